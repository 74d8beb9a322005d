"""Ridge regression of whitened box targets, from a stream of samples in bounded memory.

`NormalEquations` and `KeptSamples` solve the same problem: the first from sums over all samples,
for short features, the second from a bounded choice of the samples, for long ones. Rows carry a
constant 1 as their last column; its weight is penalised like the others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sppdet.products import product
from sppdet.types import FloatArray, IntArray

Float64Array = NDArray[np.float64]

# Added to the eigenvalues of the targets' covariance before whitening (SPP-net release).
WHITENING_EPSILON = 1e-3

# Rows gathered before the normal equations are updated: one large product instead of many small.
BUFFER_ROWS = 512


def whitening(covariance: Float64Array) -> tuple[Float64Array, Float64Array]:
    """The symmetric `float64 (4, 4)` whitening matrix of the targets, and its inverse."""
    values, vectors = np.linalg.eigh(covariance)
    root = np.sqrt(np.maximum(values, 0.0) + WHITENING_EPSILON)
    return (vectors / root) @ vectors.T, (vectors * root) @ vectors.T


class NormalEquations:
    """Sums over all samples of one class: `8 * (dim + 1)^2` bytes, whatever their number."""

    FIELDS = ("gram", "cross", "target_sum", "target_square", "count", "rows", "targets")

    def __init__(self, dim: int) -> None:
        self.gram: Float64Array = np.zeros((dim + 1, dim + 1))
        self.cross: Float64Array = np.zeros((dim + 1, 4))
        self.target_sum: Float64Array = np.zeros(4)
        self.target_square: Float64Array = np.zeros((4, 4))
        self.count: IntArray = np.zeros(1, dtype=np.int64)
        # Samples that the sums do not hold yet.
        self.rows: FloatArray = np.zeros((0, dim + 1), dtype=np.float32)
        self.targets: Float64Array = np.zeros((0, 4))

    def add(self, rows: FloatArray, targets: Float64Array) -> None:
        """Adds samples `(n, dim + 1)` and their targets `(n, 4)`."""
        self.count += len(rows)
        self.rows = np.concatenate([self.rows, rows])
        self.targets = np.concatenate([self.targets, targets])
        while len(self.rows) >= BUFFER_ROWS:
            rows, targets = self.rows[:BUFFER_ROWS], self.targets[:BUFFER_ROWS]
            self.gram += product(rows.T, rows)
            self.cross += product(rows.T.astype(np.float64), targets)
            self.target_sum += targets.sum(axis=0)
            self.target_square += targets.T @ targets
            self.rows = self.rows[BUFFER_ROWS:].copy()
            self.targets = self.targets[BUFFER_ROWS:].copy()

    def solve(self, ridge: float) -> tuple[Float64Array, Float64Array]:
        """`float64 (dim + 1, 4)` weights to unwhitened targets, and the targets' mean `(4,)`."""
        n = int(self.count[0])
        mean = (self.target_sum + self.targets.sum(axis=0)) / n
        square = self.target_square + self.targets.T @ self.targets
        whiten, unwhiten = whitening(square / n - np.outer(mean, mean))
        system = self.gram + self.rows.T @ self.rows
        cross = self.cross + self.rows.T.astype(np.float64) @ self.targets
        # The constant column makes the last row of the Gram matrix the sum of the samples.
        cross = (cross - np.outer(system[-1], mean)) @ whiten
        system[np.diag_indices_from(system)] += ridge
        return np.linalg.solve(system, cross) @ unwhiten, mean


class KeptSamples:
    """At most `limit` samples of one class, a uniform choice: `4 * dim` bytes each.

    Every sample gets a number that depends on the seed and on how many came before it, and the
    smallest numbers stay; so the choice does not depend on how the samples were batched.
    """

    FIELDS = ("rows", "targets", "ticket", "count")

    def __init__(self, dim: int, limit: int, seed: int) -> None:
        self.limit = limit
        self.seed = seed
        self.rows: FloatArray = np.zeros((0, dim + 1), dtype=np.float32)
        self.targets: Float64Array = np.zeros((0, 4))
        self.ticket: Float64Array = np.zeros(0)
        self.count: IntArray = np.zeros(1, dtype=np.int64)

    def add(self, rows: FloatArray, targets: Float64Array) -> None:
        """Adds samples `(n, dim + 1)` and their targets `(n, 4)`."""
        first = int(self.count[0])
        self.count += len(rows)
        for i in range(len(rows)):
            # One generator a sample: the state is then the count alone.
            ticket = np.random.default_rng([self.seed, first + i]).random()
            place = first + i
            if place >= self.limit:
                place = int(np.argmax(self.ticket))
                if ticket >= self.ticket[place]:
                    continue
            elif place >= len(self.ticket):
                self._resize(min(self.limit, place + 1 + place // 4))
            self.rows[place], self.targets[place], self.ticket[place] = rows[i], targets[i], ticket

    def _resize(self, size: int) -> None:
        # refcheck=False: no view outlives a method, and realloc moves pages instead of copying.
        self.rows.resize((size, self.rows.shape[1]), refcheck=False)
        self.targets.resize((size, 4), refcheck=False)
        self.ticket.resize(size, refcheck=False)

    def solve(self, ridge: float) -> tuple[Float64Array, Float64Array]:
        """`float64 (dim + 1, 4)` weights to unwhitened targets, and the targets' mean `(4,)`.

        Through the kernel matrix: X' (X X' + ridge I)^-1 Y = (X' X + ridge I)^-1 X' Y.
        """
        n = min(int(self.count[0]), self.limit)
        rows, targets = self.rows[:n], self.targets[:n]
        mean = targets.mean(axis=0)
        centred = targets - mean
        whiten, unwhiten = whitening(centred.T @ centred / n)
        kernel = (rows @ rows.T).astype(np.float64)
        kernel[np.diag_indices_from(kernel)] += ridge
        dual = np.linalg.solve(kernel, centred @ whiten)
        return (rows.T @ dual.astype(np.float32)).astype(np.float64) @ unwhiten, mean
