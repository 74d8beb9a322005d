"""One linear model per class over raw features: the arrays that SVMs and regressors share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sppdet.core.types import BoolArray, FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class LinearModels:
    """Weights and biases of one linear model per class, checked and of one type.

    Attributes:
        weights: `float32 (K, D)`, or `(K, D, O)` of a model with `outputs` O; zeros for an
            untrained class.
        bias: `float32 (K,)` or `(K, O)`.
        trained: `bool (K,)`; False for a class that had nothing to learn from.

    Raises:
        ValueError: arrays of other shapes, or a value that is not finite.
    """

    outputs: ClassVar[tuple[int, ...]] = ()

    weights: FloatArray
    bias: FloatArray
    trained: BoolArray

    def __post_init__(self) -> None:
        weights = np.ascontiguousarray(self.weights, dtype=np.float32)
        bias = np.asarray(self.bias, dtype=np.float32)
        trained = np.asarray(self.trained, dtype=np.bool_)
        name, classes = type(self).__name__, len(weights)
        if (
            weights.ndim != 2 + len(self.outputs)
            or weights.shape[2:] != self.outputs
            or bias.shape != (classes, *self.outputs)
            or trained.shape != (classes,)
        ):
            raise ValueError(
                f"{name}: weights {weights.shape}, bias {bias.shape} and trained {trained.shape} "
                "do not fit together"
            )
        if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
            raise ValueError(f"{name}: a weight is not finite")
        for field, value in (("weights", weights), ("bias", bias), ("trained", trained)):
            object.__setattr__(self, field, value)
