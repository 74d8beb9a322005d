"""What an image as a whole says of the classes in it: one logistic regression a class.

A region on a motorway is a car rather than a boat, whatever it looks like. The regions' own windows
do not reach that far: this looks at all cells of the maps that are there anyway, averaged, and its
log probabilities take part in the regions' scores (contextual rescoring, as in Felzenszwalb et al.
2010, sec. 7.1, but from the map and not from other detections).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sppdet.errors import ConfigError
from sppdet.types import BoolArray, FloatArray


@dataclass(frozen=True)
class SceneConfig:
    """How the scene classifier is trained."""

    # Weight of the losses against the penalty on the squared weights, for features of variance 1.
    c: float = 0.001
    # Iterations that the solver may take for a class.
    max_iterations: int = 300

    def __post_init__(self) -> None:
        if not self.c > 0:
            raise ConfigError(f"scene.c is {self.c}", mend="give a number above 0")
        if self.max_iterations < 1:
            raise ConfigError(
                f"scene.max_iterations is {self.max_iterations}", mend="give 1 or more"
            )


@dataclass(frozen=True, slots=True, eq=False)
class SceneClassifier:
    """One logistic regression a class, over raw scene vectors (their scale is folded in).

    Attributes:
        weights: `float32 (K, D)`; zeros for an untrained class.
        bias: `float32 (K,)`.
        trained: `bool (K,)`; False for a class that all training images showed, or none.
    """

    weights: FloatArray
    bias: FloatArray
    trained: BoolArray

    def __post_init__(self) -> None:
        weights = np.ascontiguousarray(self.weights, dtype=np.float32)
        bias = np.asarray(self.bias, dtype=np.float32)
        trained = np.asarray(self.trained, dtype=np.bool_)
        if weights.ndim != 2 or not bias.shape == trained.shape == (len(weights),):
            raise ValueError(
                f"scene weights {weights.shape}, bias {bias.shape} and trained {trained.shape} "
                "do not fit together"
            )
        if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
            raise ValueError("a scene classifier's weight is not finite")
        for name, value in (("weights", weights), ("bias", bias), ("trained", trained)):
            object.__setattr__(self, name, value)

    def log_probabilities(self, scene: FloatArray) -> FloatArray:
        """`float32 (K,)`: logarithms of the probabilities that the image shows the classes.

        `scene (D,)` is raw. 0 for an untrained class, which leaves its scores alone.
        """
        logits = self.weights @ np.asarray(scene, np.float32) + self.bias
        found: FloatArray = np.where(self.trained, -np.logaddexp(0, -logits), 0).astype(np.float32)
        return found


def fit_scenes(scenes: FloatArray, shown: BoolArray, config: SceneConfig) -> SceneClassifier:
    """The classifier of images `float32 (N, D)` of which `bool (N, K)` says what they show."""
    # A second to import, and only training needs it.
    from sklearn.linear_model import LogisticRegression

    mean, deviation = scenes.mean(axis=0), scenes.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1)
    rows = (scenes - mean) / deviation
    count = shown.shape[1]
    weights, bias = np.zeros((count, scenes.shape[1])), np.zeros(count)
    positives = shown.sum(axis=0)
    trained: BoolArray = (positives > 0) & (positives < len(shown))
    for label in np.flatnonzero(trained):
        solver = LogisticRegression(C=config.c, max_iter=config.max_iterations)
        solver.fit(rows, shown[:, label])
        weights[label] = solver.coef_[0] / deviation
        bias[label] = solver.intercept_[0] - weights[label] @ mean
    return SceneClassifier(weights.astype(np.float32), bias.astype(np.float32), trained)
