"""What an image as a whole says of the classes in it: one logistic regression per class.

A region on a motorway is a car rather than a boat, whatever it looks like. The regions' own windows
do not reach that far: this looks at all cells of the maps that are there anyway, averaged, and its
log probabilities take part in the regions' scores (contextual rescoring, as in Felzenszwalb et al.
2010, sec. 7.1, but from the map and not from other detections).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sppdet.core.types import BoolArray, FloatArray
from sppdet.heads.linear_models import LinearModels


@dataclass(frozen=True, slots=True, eq=False)
class ContextClassifier(LinearModels):
    """One logistic regression per class, over raw context vectors (their scale is folded in).

    Attributes:
        weights: `float32 (K, D)`; zeros for an untrained class.
        bias: `float32 (K,)`.
        trained: `bool (K,)`; False for a class that all training images showed, or none.
    """

    @classmethod
    def fit(
        cls, vectors: FloatArray, shown: BoolArray, *, c: float = 0.001, max_iterations: int = 300
    ) -> ContextClassifier:
        """Fit to context vectors `float32 (N, D)` of images that show classes `bool (N, K)`.

        `c` is the weight of the losses against the penalty on the squared weights, for features
        of variance 1.
        """
        # A second to import, and only training needs it.
        from sklearn.linear_model import LogisticRegression

        mean, deviation = vectors.mean(axis=0), vectors.std(axis=0)
        deviation = np.where(deviation > 0, deviation, 1)
        rows = (vectors - mean) / deviation
        count = shown.shape[1]
        weights, bias = np.zeros((count, vectors.shape[1])), np.zeros(count)
        positives = shown.sum(axis=0)
        trained: BoolArray = (positives > 0) & (positives < len(shown))
        for label in np.flatnonzero(trained):
            solver = LogisticRegression(C=c, max_iter=max_iterations)
            solver.fit(rows, shown[:, label])
            weights[label] = solver.coef_[0] / deviation
            bias[label] = solver.intercept_[0] - weights[label] @ mean
        return cls(weights.astype(np.float32), bias.astype(np.float32), trained)

    def log_probabilities(self, vector: FloatArray) -> FloatArray:
        """`float32 (K,)`: log probabilities that an image shows the classes.

        `vector (D,)` is raw. 0 for an untrained class, which leaves its scores alone.
        """
        logits = self.weights @ np.asarray(vector, np.float32) + self.bias
        found: FloatArray = np.where(self.trained, -np.logaddexp(0, -logits), 0).astype(np.float32)
        return found
