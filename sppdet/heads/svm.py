"""Linear SVMs over region features, once trained, and their scores.

The objective is R-CNN's and SPP-net's (Girshick et al. 2014, section 2.3; He et al. 2014,
section 4.2), for scaled features x, labels s = +1 or -1 and a bias learnt as the weight v of a
constant feature `intercept_scaling`:

    |w|^2 / 2 + v^2 / 2 + c * sum_i p_i * max(0, 1 - s_i * (w.x_i + v * intercept_scaling))

with p_i = `positive_weight` for positives and 1 for negatives. `hinge` minimizes it, `mining`
finds the negatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sppdet.core.errors import TrainingError
from sppdet.core.parallel import matmul
from sppdet.core.types import BoolArray, FloatArray
from sppdet.heads.linear_models import LinearModels


@dataclass(frozen=True, slots=True, eq=False)
class LinearSvms(LinearModels):
    """One linear SVM per class, over raw features (the training scale is folded in).

    Attributes:
        weights: `float32 (K, D)`; zeros for an untrained class.
        bias: `float32 (K,)`.
        trained: `bool (K,)`; False for a class that had no positives or met no negatives.
        converged: `bool (K,)`; whether the last training reached its tolerance.
    """

    converged: BoolArray

    def __post_init__(self) -> None:
        LinearModels.__post_init__(self)
        converged = np.asarray(self.converged, dtype=np.bool_)
        if converged.shape != self.trained.shape:
            raise ValueError(f"converged must be {self.trained.shape}, got {converged.shape}")
        object.__setattr__(self, "converged", converged)

    def decision_function(self, features: FloatArray) -> FloatArray:
        """`float32 (N, K)` margins of raw features `(N, D)`; -inf for an untrained class."""
        out: FloatArray = matmul(np.asarray(features, dtype=np.float32), self.weights.T)
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
            f"the mean feature norm is {mean}", hint="check the network: its features are dead"
        )
    return feature_norm / mean
