"""Per-class ridge regression from region features to box offsets (R-CNN's box regressors).

For each class, on its regions that overlap one of its objects well: features x are scaled and
get a constant 1, the targets y (`boxes.encode`) are centred and whitened, and each of the four is
fitted with the penalty `ridge`, the constant's weight included, as the SPP-net release does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sppdet.boxes import decode, encode
from sppdet.errors import ConfigError, TrainingError
from sppdet.products import product
from sppdet.ridge import Float64Array, KeptSamples, NormalEquations
from sppdet.types import BoolArray, FloatArray, IntArray

State = dict[str, NDArray[Any]]

LAYERS = ("pool", "fc6", "fc7")


@dataclass(frozen=True, slots=True)
class RegressionConfig:
    """How the box regressors are trained. The defaults are the SPP-net release's but the layer."""

    # Features the regressors see: the pooled pyramid (release), or the output of fc6 or fc7, which
    # cost nothing where the SVMs read them too.
    layer: str = "fc7"
    # Penalty on the squared weights, for features of mean norm `feature_norm`.
    ridge: float = 4000.0
    # Regions that overlap an object by more than this IoU are samples of its class.
    min_iou: float = 0.5
    # Features are multiplied by one number that gives them this mean L2 norm.
    feature_norm: float = 20.0
    # Up to this length of feature all samples are used, through the normal equations.
    max_normal_dim: int = 2048
    # Samples a class keeps at most where features are longer: a seeded uniform choice.
    max_samples: int = 2000
    # Seed of that choice.
    seed: int = 0

    def __post_init__(self) -> None:
        if self.layer not in LAYERS:
            raise ConfigError(
                f"regression.layer is {self.layer!r}", mend=f"use one of {', '.join(LAYERS)}"
            )
        for name in ("ridge", "feature_norm", "max_samples"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"regression.{name} is {getattr(self, name)}", mend="give a number above 0"
                )
        if not 0 <= self.min_iou < 1:
            raise ConfigError(
                f"regression.min_iou is {self.min_iou}", mend="give a number in [0, 1)"
            )


@dataclass(frozen=True, slots=True, eq=False)
class BoxRegressors:
    """One box regressor a class, over raw features (scale, whitening and mean folded in).

    Attributes:
        weights: `float32 (K, D, 4)`; zeros for an untrained class.
        bias: `float32 (K, 4)`.
        trained: `bool (K,)`; False for a class that had no samples.
    """

    weights: FloatArray
    bias: FloatArray
    trained: BoolArray

    def __post_init__(self) -> None:
        weights = np.ascontiguousarray(self.weights, dtype=np.float32)
        bias = np.asarray(self.bias, dtype=np.float32)
        trained = np.asarray(self.trained, dtype=np.bool_)
        if weights.ndim != 3 or weights.shape[2] != 4:
            raise ValueError(f"weights must be (classes, features, 4), got {weights.shape}")
        if bias.shape != (len(weights), 4) or trained.shape != (len(weights),):
            raise ValueError(f"bias {bias.shape} or trained {trained.shape} does not fit weights")
        if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
            raise ValueError("a regressor's weight is not finite")
        for name, value in (("weights", weights), ("bias", bias), ("trained", trained)):
            object.__setattr__(self, name, value)

    def refine(
        self, features: FloatArray, boxes: FloatArray, regions: IntArray, labels: IntArray
    ) -> FloatArray:
        """`float32 (M, 4)`: some boxes moved by the regressors of some classes, not clipped.

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
        offsets = product(features, matrix).reshape(len(features), classes, 4)[regions, labels]
        offsets += self.bias[labels]
        own = np.asarray(boxes, dtype=np.float32)[regions]
        moved: FloatArray = np.where(self.trained[labels, None], decode(offsets, own), own)
        return moved


def _paired_iou(a: FloatArray, b: FloatArray) -> Float64Array:
    """`float64 (N,)` intersection over union of `a[i]` with `b[i]`; 0 where both areas are 0."""
    a64, b64 = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    side = np.minimum(a64[:, 2:], b64[:, 2:]) - np.maximum(a64[:, :2], b64[:, :2])
    inter = np.prod(np.clip(side, 0.0, None), axis=1)
    area = np.prod(a64[:, 2:] - a64[:, :2], axis=1) + np.prod(b64[:, 2:] - b64[:, :2], axis=1)
    union = area - inter
    out: Float64Array = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    return out


class RidgeCollector:
    """Gathers samples image by image and fits the box regressors.

    Features up to `max_normal_dim` long: the normal equations of all samples, 8 (D + 1)^2 bytes
    a class. Longer ones: at most `max_samples` samples a class, 4 D bytes each.

    Law: the result is a function of the samples and their order, however they were batched;
    `from_state(state())` continues bit for bit.
    """

    def __init__(
        self, n_classes: int, dim: int, config: RegressionConfig, scale: float = 1.0
    ) -> None:
        """`scale` (see `svm.feature_scale`) multiplies every feature that comes in."""
        self.config = config
        self.scale = float(scale)
        self.dim = dim
        self._classes: list[NormalEquations | KeptSamples] = [
            NormalEquations(dim)
            if dim <= config.max_normal_dim
            else KeptSamples(dim, config.max_samples, config.seed + k)
            for k in range(n_classes)
        ]

    def add(
        self,
        features: FloatArray,
        boxes: FloatArray,
        gt_boxes: FloatArray,
        labels: IntArray,
        *,
        where: str | None = None,
    ) -> None:
        """Adds the regions whose IoU with their object is above `min_iou`; ignores the others.

        Args:
            features: `float32 (N, D)`, raw.
            boxes, gt_boxes: `float32 (N, 4)`, each region and the object it overlaps best.
            labels: `int64 (N,)`, the class of that object.
            where: the image's name, for the error.

        Raises TrainingError if a feature is not finite.
        """
        features = np.asarray(features, dtype=np.float32)
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(f"features must be (N, {self.dim}), got {features.shape}")
        if not len(features) == len(boxes) == len(gt_boxes) == len(labels):
            raise ValueError("features, boxes, gt_boxes and labels differ in length")
        use = np.flatnonzero(_paired_iou(boxes, gt_boxes) > self.config.min_iou)
        labels = np.asarray(labels, dtype=np.int64)[use]
        if labels.size and not 0 <= labels.min() <= labels.max() < len(self._classes):
            raise ValueError(f"a label lies outside the {len(self._classes)} classes")
        rows = np.ones((len(use), self.dim + 1), dtype=np.float32)
        rows[:, :-1] = features[use] * np.float32(self.scale)
        if not np.isfinite(rows).all():
            raise TrainingError("a feature is not finite", where=where, mend="train the head again")
        targets = encode(gt_boxes[use], boxes[use]).astype(np.float64)
        for label in np.unique(labels):
            own = labels == label
            self._classes[label].add(rows[own], targets[own])

    def counts(self) -> IntArray:
        """`int64 (K,)` samples that each class has been given."""
        return np.array([int(part.count[0]) for part in self._classes], dtype=np.int64)

    def finish(self) -> BoxRegressors:
        """The regressors over raw features; a class without samples is left untrained."""
        weights = np.zeros((len(self._classes), self.dim, 4), dtype=np.float32)
        bias = np.zeros((len(self._classes), 4), dtype=np.float32)
        for k, part in enumerate(self._classes):
            if part.count[0]:
                solution, mean = part.solve(self.config.ridge)
                weights[k] = solution[:-1] * self.scale
                bias[k] = solution[-1] + mean
        return BoxRegressors(weights, bias, self.counts() > 0)

    def state(self) -> State:
        """Everything needed to go on, as arrays."""
        out: State = {"shape": np.array([len(self._classes), self.dim])}
        out["scale"] = np.array([self.scale])
        for k, part in enumerate(self._classes):
            for name in part.FIELDS:
                out[f"{k}.{name}"] = getattr(part, name).copy()
        return out

    @classmethod
    def from_state(
        cls, state: Mapping[str, NDArray[Any]], config: RegressionConfig
    ) -> RidgeCollector:
        """A collector that goes on where `state()` was taken; `config` must be the same."""
        n_classes, dim = (int(v) for v in state["shape"])
        collector = cls(n_classes, dim, config, float(state["scale"][0]))
        for k, part in enumerate(collector._classes):
            for name in part.FIELDS:
                setattr(part, name, state[f"{k}.{name}"].copy())
        return collector
