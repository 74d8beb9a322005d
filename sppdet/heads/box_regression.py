"""Per-class ridge regression from region features to box deltas (R-CNN's box regressors).

For each class, on its regions that overlap one of its objects well: features x are scaled and
get a constant 1, the targets y (`boxes.encode_deltas`) are centered and whitened, and each of the
four is fitted with the penalty `alpha`, the constant's weight included, as the SPP-net release
does. `NormalEquations` and `ReservoirSample` solve the same problem in bounded memory: the first
from sums over all samples, for short features, the second from a random choice, for long ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sppdet.core.boxes import decode_deltas, encode_deltas, paired_iou
from sppdet.core.errors import TrainingError
from sppdet.core.parallel import matmul
from sppdet.core.types import Float64Array, FloatArray, IntArray
from sppdet.heads.linear_models import LinearModels

# Up to this length of feature all samples are used, through the normal equations.
MAX_NORMAL_DIM = 2048

# Added to the eigenvalues of the targets' covariance before whitening (SPP-net release).
WHITENING_EPSILON = 1e-3

# Rows gathered before the normal equations are updated: one large product instead of many small.
BUFFER_ROWS = 512


@dataclass(frozen=True, slots=True, eq=False)
class BoxRegressors(LinearModels):
    """One box regressor per class, over raw features (scale, whitening and mean folded in).

    Attributes:
        weights: `float32 (K, D, 4)`; zeros for an untrained class.
        bias: `float32 (K, 4)`.
        trained: `bool (K,)`; False for a class that had no samples.
    """

    outputs: ClassVar[tuple[int, ...]] = (4,)

    def predict(
        self, features: FloatArray, boxes: FloatArray, regions: IntArray, labels: IntArray
    ) -> FloatArray:
        """Move boxes by the regressors of given classes: `float32 (M, 4)`, not clipped.

        Args:
            features: `float32 (N, D)`, raw.
            boxes: `float32 (N, 4)`.
            regions: `int64 (M,)` rows of both; one that may be of two classes is there twice.
            labels: `int64 (M,)`, the class that each is moved for.

        A box of an untrained class comes back as it was.
        """
        features = np.asarray(features, dtype=np.float32)
        classes = len(self.bias)
        # All classes in one product: many small ones take longer.
        matrix = self.weights.transpose(1, 0, 2).reshape(-1, 4 * classes)
        deltas = matmul(features, matrix).reshape(len(features), classes, 4)[regions, labels]
        deltas += self.bias[labels]
        own = np.asarray(boxes, dtype=np.float32)[regions]
        moved: FloatArray = np.where(self.trained[labels, None], decode_deltas(deltas, own), own)
        return moved


class BoxRegressionFitter:
    """Gathers samples image by image and fits the box regressors.

    Features up to `MAX_NORMAL_DIM` long: the normal equations of all samples, 8 (D + 1)^2 bytes
    per class. Longer ones: at most `max_samples` samples per class, 4 D bytes each.

    Invariant: the result is a function of the samples and their order, however they were batched.
    """

    def __init__(
        self,
        n_classes: int,
        dim: int,
        *,
        alpha: float = 4000.0,
        min_iou: float = 0.5,
        max_samples: int = 2000,
        seed: int = 0,
        scale: float = 1.0,
    ) -> None:
        """Start with no samples.

        Args:
            n_classes, dim: numbers of classes and of features.
            alpha: penalty on the squared weights.
            min_iou: regions that overlap an object by more than this are samples of its class.
            max_samples: samples per class at most, where features are long.
            seed: draws those samples.
            scale: multiplies every feature that comes in, see `svm.feature_scale`.
        """
        self.alpha, self.min_iou, self.scale = alpha, min_iou, float(scale)
        self.dim = dim
        self._classes: list[NormalEquations | ReservoirSample] = [
            NormalEquations(dim)
            if dim <= MAX_NORMAL_DIM
            else ReservoirSample(dim, max_samples, seed + k)
            for k in range(n_classes)
        ]

    def add(
        self,
        features: FloatArray,
        boxes: FloatArray,
        gt_boxes: FloatArray,
        labels: IntArray,
        *,
        image_id: str | None = None,
    ) -> None:
        """Add the regions whose IoU with their object is above `min_iou`; ignore the others.

        Args:
            features: `float32 (N, D)`, raw.
            boxes, gt_boxes: `float32 (N, 4)`, each region and the object it overlaps best.
            labels: `int64 (N,)`, the class of that object.
            image_id: the image's name, for the error.

        Raises TrainingError if a feature is not finite.
        """
        features = np.asarray(features, dtype=np.float32)
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(f"features must be (N, {self.dim}), got {features.shape}")
        if not len(features) == len(boxes) == len(gt_boxes) == len(labels):
            raise ValueError("features, boxes, gt_boxes and labels differ in length")
        use = np.flatnonzero(paired_iou(boxes, gt_boxes) > self.min_iou)
        labels = np.asarray(labels, dtype=np.int64)[use]
        if labels.size and not 0 <= labels.min() <= labels.max() < len(self._classes):
            raise ValueError(f"a label lies outside the {len(self._classes)} classes")
        rows = np.ones((len(use), self.dim + 1), dtype=np.float32)
        rows[:, :-1] = features[use] * np.float32(self.scale)
        if not np.isfinite(rows).all():
            raise TrainingError(
                "a feature is not finite", path=image_id, hint="train the head again"
            )
        targets = encode_deltas(gt_boxes[use], boxes[use]).astype(np.float64)
        for label in np.unique(labels):
            own = labels == label
            self._classes[label].add(rows[own], targets[own])

    def counts(self) -> IntArray:
        """`int64 (K,)` samples given per class."""
        return np.array([part.count for part in self._classes], dtype=np.int64)

    def fit(self) -> BoxRegressors:
        """Fit the regressors over raw features; a class without samples is left untrained."""
        weights = np.zeros((len(self._classes), self.dim, 4), dtype=np.float32)
        bias = np.zeros((len(self._classes), 4), dtype=np.float32)
        for k, part in enumerate(self._classes):
            if part.count:
                solution, mean = part.solve(self.alpha)
                weights[k] = solution[:-1] * self.scale
                bias[k] = solution[-1] + mean
        return BoxRegressors(weights, bias, self.counts() > 0)


def whitening(covariance: Float64Array) -> tuple[Float64Array, Float64Array]:
    """The symmetric `float64 (4, 4)` whitening matrix of the targets, and its inverse."""
    values, vectors = np.linalg.eigh(covariance)
    root = np.sqrt(np.maximum(values, 0.0) + WHITENING_EPSILON)
    return (vectors / root) @ vectors.T, (vectors * root) @ vectors.T


class NormalEquations:
    """Sums over all samples of one class: `8 * (dim + 1)^2` bytes, whatever their number."""

    def __init__(self, dim: int) -> None:
        self.gram: Float64Array = np.zeros((dim + 1, dim + 1))
        self.cross: Float64Array = np.zeros((dim + 1, 4))
        self.target_sum: Float64Array = np.zeros(4)
        self.target_square: Float64Array = np.zeros((4, 4))
        self.count = 0
        # Samples that the sums do not hold yet.
        self.rows: FloatArray = np.zeros((0, dim + 1), dtype=np.float32)
        self.targets: Float64Array = np.zeros((0, 4))

    def add(self, rows: FloatArray, targets: Float64Array) -> None:
        """Add samples `(n, dim + 1)` and their targets `(n, 4)`."""
        self.count += len(rows)
        self.rows = np.concatenate([self.rows, rows])
        self.targets = np.concatenate([self.targets, targets])
        while len(self.rows) >= BUFFER_ROWS:
            rows, targets = self.rows[:BUFFER_ROWS], self.targets[:BUFFER_ROWS]
            self.gram += matmul(rows.T, rows)
            self.cross += matmul(rows.T.astype(np.float64), targets)
            self.target_sum += targets.sum(axis=0)
            self.target_square += targets.T @ targets
            self.rows = self.rows[BUFFER_ROWS:].copy()
            self.targets = self.targets[BUFFER_ROWS:].copy()

    def solve(self, alpha: float) -> tuple[Float64Array, Float64Array]:
        """`float64 (dim + 1, 4)` weights to unwhitened targets, and the targets' mean `(4,)`."""
        n = self.count
        mean = (self.target_sum + self.targets.sum(axis=0)) / n
        square = self.target_square + self.targets.T @ self.targets
        whiten, unwhiten = whitening(square / n - np.outer(mean, mean))
        system = self.gram + self.rows.T @ self.rows
        cross = self.cross + self.rows.T.astype(np.float64) @ self.targets
        # The constant column makes the last row of the Gram matrix the sum of the samples.
        cross = (cross - np.outer(system[-1], mean)) @ whiten
        system[np.diag_indices_from(system)] += alpha
        return np.linalg.solve(system, cross) @ unwhiten, mean


class ReservoirSample:
    """At most `limit` samples of one class, a uniform choice: `4 * dim` bytes each.

    A sample's priority depends on the seed and on how many came before it, and the lowest ones
    stay; so the choice does not depend on how the samples were batched.
    """

    def __init__(self, dim: int, limit: int, seed: int) -> None:
        self.limit = limit
        self.seed = seed
        self.rows: FloatArray = np.zeros((0, dim + 1), dtype=np.float32)
        self.targets: Float64Array = np.zeros((0, 4))
        self.priority: Float64Array = np.zeros(0)
        self.count = 0

    def add(self, rows: FloatArray, targets: Float64Array) -> None:
        """Add samples `(n, dim + 1)` and their targets `(n, 4)`."""
        first = self.count
        self.count += len(rows)
        for i in range(len(rows)):
            # One generator per sample: the choice then depends on no earlier draws.
            priority = np.random.default_rng([self.seed, first + i]).random()
            place = first + i
            if place >= self.limit:
                place = int(np.argmax(self.priority))
                if priority >= self.priority[place]:
                    continue
            elif place >= len(self.priority):
                self._resize(min(self.limit, place + 1 + place // 4))
            self.rows[place], self.targets[place], self.priority[place] = (
                rows[i],
                targets[i],
                priority,
            )

    def _resize(self, size: int) -> None:
        # refcheck=False: no view outlives a method, and realloc moves pages instead of copying.
        self.rows.resize((size, self.rows.shape[1]), refcheck=False)
        self.targets.resize((size, 4), refcheck=False)
        self.priority.resize(size, refcheck=False)

    def solve(self, alpha: float) -> tuple[Float64Array, Float64Array]:
        """`float64 (dim + 1, 4)` weights to unwhitened targets, and the targets' mean `(4,)`.

        Through the kernel matrix: X' (X X' + alpha I)^-1 Y = (X' X + alpha I)^-1 X' Y.
        """
        n = min(self.count, self.limit)
        rows, targets = self.rows[:n], self.targets[:n]
        mean = targets.mean(axis=0)
        centered = targets - mean
        whiten, unwhiten = whitening(centered.T @ centered / n)
        kernel = (rows @ rows.T).astype(np.float64)
        kernel[np.diag_indices_from(kernel)] += alpha
        dual = np.linalg.solve(kernel, centered @ whiten)
        return (rows.T @ dual.astype(np.float32)).astype(np.float64) @ unwhiten, mean
