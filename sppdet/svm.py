"""Linear SVMs over region features: their settings and, once trained, their scores.

The objective is R-CNN's and SPP-net's (Girshick et al. 2014, section 2.3; He et al. 2014,
section 4.2), for scaled features x, labels s = +1 or -1 and a bias learnt as the weight v of a
constant feature `bias_scale`:

    |w|^2 / 2 + v^2 / 2 + c * sum_i p_i * max(0, 1 - s_i * (w.x_i + v * bias_scale))

with p_i = `positive_weight` for positives and 1 for negatives. `hinge` minimises it, `mining`
finds the negatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sppdet.errors import ConfigError, TrainingError
from sppdet.products import product
from sppdet.types import BoolArray, FloatArray

LAYERS = ("pool", "fc6", "fc7")


@dataclass(frozen=True, slots=True)
class SvmConfig:
    """How the SVMs are trained. The defaults are the SPP-net release's."""

    # Features the SVMs see: the pooled pyramid, or the output of fc6 or fc7.
    layer: str = "fc7"
    # Weight of the hinge losses against the regulariser.
    c: float = 1e-3
    # Weight of a positive's loss in units of a negative's: there are far fewer positives.
    positive_weight: float = 2.0
    # Constant feature whose weight is the bias; large, so that the bias is hardly regularised.
    bias_scale: float = 10.0
    # Negatives are mined among the first so many proposals of an image; 0 for all, as the release
    # does, at twice the time.
    proposals: int = 1000
    # A region is a negative of a class if it overlaps that class's objects by less than this IoU.
    negative_iou: float = 0.3
    # A negative is hard, and is added to the cache, if it scores above this.
    hard_score: float = -1.0001
    # Cached negatives that score below this after a retraining are dropped.
    evict_score: float = -1.2
    # A class is trained anew when more than this many negatives were added since the last time.
    retrain_after: int = 2000
    # Cached negatives a class keeps at most; beyond it the lowest-scoring ones are dropped.
    max_negatives: int = 10_000
    # Features are multiplied by one number that gives them this mean L2 norm.
    feature_norm: float = 20.0
    # The solver stops when no optimality condition is violated by more than this (score units).
    tolerance: float = 0.01
    # Passes over the cache a training may take; a class that needs more is marked unconverged.
    max_iterations: int = 1000
    # Seed of the order in which the solver visits the cache.
    seed: int = 0

    def __post_init__(self) -> None:
        if self.layer not in LAYERS:
            raise ConfigError(
                f"svm.layer is {self.layer!r}", mend=f"use one of {', '.join(LAYERS)}"
            )
        for name in ("c", "positive_weight", "bias_scale", "feature_norm", "tolerance"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"svm.{name} is {getattr(self, name)}", mend="give a number above 0"
                )
        for name in ("retrain_after", "max_negatives", "max_iterations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"svm.{name} is {getattr(self, name)}", mend="give 1 or more")
        if self.proposals < 0:
            raise ConfigError(f"svm.proposals is {self.proposals}", mend="give 0 or more")
        if not 0 < self.negative_iou <= 1:
            raise ConfigError(
                f"svm.negative_iou is {self.negative_iou}", mend="give a number in (0, 1]"
            )
        if not self.evict_score < self.hard_score:
            raise ConfigError(
                f"svm.evict_score {self.evict_score} is not below svm.hard_score {self.hard_score}",
                mend="evicted negatives must be easier than the ones that are added",
            )


@dataclass(frozen=True, slots=True, eq=False)
class LinearSvms:
    """One linear SVM a class, over raw features (the training scale is folded in).

    Attributes:
        weights: `float32 (K, D)`; zeros for an untrained class.
        bias: `float32 (K,)`.
        trained: `bool (K,)`; False for a class that had no positives or met no negatives.
        converged: `bool (K,)`; whether the last training reached its tolerance.
    """

    weights: FloatArray
    bias: FloatArray
    trained: BoolArray
    converged: BoolArray

    def __post_init__(self) -> None:
        weights = np.ascontiguousarray(self.weights, dtype=np.float32)
        if weights.ndim != 2:
            raise ValueError(f"weights must be (classes, features), got {weights.shape}")
        if not (np.isfinite(weights).all() and np.isfinite(self.bias).all()):
            raise ValueError("an SVM weight is not finite")
        object.__setattr__(self, "weights", weights)
        for name, dtype in (("bias", np.float32), ("trained", np.bool_), ("converged", np.bool_)):
            value = np.asarray(getattr(self, name), dtype=dtype)
            if value.shape != (len(weights),):
                raise ValueError(f"{name} must be ({len(weights)},), got {value.shape}")
            object.__setattr__(self, name, value)

    def scores(self, features: FloatArray) -> FloatArray:
        """`float32 (N, K)` margins of raw features `(N, D)`; -inf for an untrained class."""
        out: FloatArray = product(np.asarray(features, dtype=np.float32), self.weights.T)
        out += self.bias
        out[:, ~self.trained] = -np.inf
        return out


def feature_scale(norms: NDArray[np.floating], feature_norm: float = 20.0) -> float:
    """The number that gives features of L2 norms `norms` the mean norm `feature_norm`.

    Raises TrainingError if there are no norms, or their mean is zero or not finite.
    Source: the SPP-net release; the constants of the SVMs and regressors suit a norm of 20.
    """
    mean = float(np.mean(norms, dtype=np.float64)) if len(norms) else 0.0
    if not (np.isfinite(mean) and mean > 0):
        raise TrainingError(
            f"the mean feature norm is {mean}", mend="check the network: its features are dead"
        )
    return feature_norm / mean
