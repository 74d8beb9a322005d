"""The memory of hard-negative mining: feature rows shared by the classes, and each class's list."""

from __future__ import annotations

import numpy as np

from sppdet.core.types import BoolArray, Float64Array, FloatArray, IntArray


class FeaturePool:
    """Feature rows that several classes share; a row is freed when no class uses it.

    One row is `4 * dim` bytes, however many classes use it. The matrix grows in place by a
    quarter at a time, so what is allocated is at most 1.25 times the most rows ever in use.
    """

    def __init__(self, dim: int) -> None:
        self.rows: FloatArray = np.zeros((0, dim), dtype=np.float32)
        self.squares: Float64Array = np.zeros(0)
        self.uses: IntArray = np.zeros(0, dtype=np.int64)
        self.image: IntArray = np.zeros(0, dtype=np.int64)
        self.region: IntArray = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return int(np.count_nonzero(self.uses))

    def add(self, rows: FloatArray, image: int, region: IntArray) -> IntArray:
        """Store rows at `int64 (n,)` places, in use by nobody yet: `retain` them at once."""
        free = np.flatnonzero(self.uses == 0)[: len(rows)]
        missing = len(rows) - len(free)
        if missing:
            old = len(self.rows)
            self._resize(old + max(missing, old // 4))
            free = np.concatenate([free, np.arange(old, old + missing)])
        self.rows[free] = rows
        self.squares[free] = np.einsum("nd,nd->n", rows, rows, dtype=np.float64)
        self.image[free] = image
        self.region[free] = region
        return free

    def retain(self, places: IntArray) -> None:
        """Count one more user of each place; `places` holds no duplicates."""
        self.uses[places] += 1

    def release(self, places: IntArray) -> None:
        """Count one user less of each place; `places` holds no duplicates."""
        self.uses[places] -= 1

    def _resize(self, size: int) -> None:
        # refcheck=False: no view outlives a method, and realloc moves pages instead of copying.
        self.rows.resize((size, self.rows.shape[1]), refcheck=False)
        for column in (self.squares, self.uses, self.image, self.region):
            column.resize(size, refcheck=False)


class NegativeCache:
    """What one class keeps: its rows in the store, their multipliers, and its current SVM."""

    def __init__(self, dim: int) -> None:
        self.positives: IntArray = np.zeros(0, dtype=np.int64)
        self.negatives: IntArray = np.zeros(0, dtype=np.int64)
        # Scores of the negatives under the current weights.
        self.scores: Float64Array = np.zeros(0)
        self.positive_alpha: Float64Array = np.zeros(0)
        self.negative_alpha: Float64Array = np.zeros(0)
        self.weights: Float64Array = np.zeros(dim)
        self.bias = 0.0
        # Negatives added since the last training, and trainings so far.
        self.added = 0
        self.rounds = 0
        self.converged = False

    def keep(self, mask: BoolArray) -> IntArray:
        """Keep the masked negatives; return the places of the others."""
        dropped: IntArray = self.negatives[~mask]
        self.negatives = self.negatives[mask]
        self.scores = self.scores[mask]
        self.negative_alpha = self.negative_alpha[mask]
        return dropped
