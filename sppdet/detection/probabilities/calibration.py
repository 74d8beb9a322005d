"""Margins as probabilities: one logistic function per class, fitted to held-out detections.

A detection's probability is that its box overlaps an object of its class by an IoU of 0.5 or
more, which a duplicate does too. It is a logistic function of the margin (Platt 1999), per class,
since classes differ in how often a margin is right; monotone, so that no ranking within a class
changes. Classes of few detections are drawn towards all classes' function (a hierarchical model,
its spread fitted by empirical Bayes: Gelman et al., "Bayesian Data Analysis", ch. 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sppdet.core.types import BoolArray, Float64Array, FloatArray, IntArray

# Of a model that nobody calibrated: those of VOC are right half the time near a margin of -0.5.
UNCALIBRATED_SLOPE, UNCALIBRATED_INTERCEPT = 2.0, 1.0
# Standard deviations around these, of log slope and of intercept, that any model's values may have:
# all that is known where there are no detections, nothing beside a hundred of them.
WIDE = np.array([1.0, 3.0])
# Standard deviations of classes around the common function with which the estimate starts.
FIRST_SPREAD = np.array([0.3, 0.7])
# Steps of the estimate of the spread, of a fit, and the change at which they end.
SPREAD_STEPS, FIT_STEPS, TOLERANCE = 60, 60, 1e-4
FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """The probability of a margin, per class: `1 / (1 + exp(-(slope * margin + intercept)))`.

    Invariant: within a class a higher margin has no lower probability.

    Attributes:
        slope: `float32 (K,)`, above 0.
        intercept: `float32 (K,)`.

    Raises:
        ValueError: arrays of other shapes, a value that is not finite, or a slope not above 0.
    """

    slope: FloatArray
    intercept: FloatArray

    def __post_init__(self) -> None:
        slope = np.asarray(self.slope, np.float32)
        intercept = np.asarray(self.intercept, np.float32)
        if slope.ndim != 1 or slope.shape != intercept.shape:
            raise ValueError(f"slope {slope.shape} and intercept {intercept.shape} do not fit")
        if not (np.isfinite(slope).all() and np.isfinite(intercept).all() and (slope > 0).all()):
            raise ValueError("a slope is not above 0, or a value is not finite")
        object.__setattr__(self, "slope", slope)
        object.__setattr__(self, "intercept", intercept)

    def __len__(self) -> int:
        return len(self.slope)

    @classmethod
    def uncalibrated(cls, n_classes: int) -> Calibration:
        """Make the one of a model that was never calibrated: in [0, 1], but no probabilities."""
        values = (UNCALIBRATED_SLOPE, UNCALIBRATED_INTERCEPT)
        return cls(*(np.full(n_classes, value, np.float32) for value in values))

    @classmethod
    def mean(cls, parts: Sequence[Calibration]) -> Calibration:
        """Average those of several models of the same classes."""
        slope = np.mean([one.slope for one in parts], axis=0)
        intercept = np.mean([one.intercept for one in parts], axis=0)
        return cls(slope.astype(np.float32), intercept.astype(np.float32))

    @classmethod
    def fit(
        cls, margins: FloatArray, labels: IntArray, is_object: BoolArray, n_classes: int
    ) -> Calibration:
        """Fit to detections of images that the model was not trained on.

        Args:
            margins: `float32 (N,)`.
            labels: `int64 (N,)`, each below `n_classes`.
            is_object: `bool (N,)`, whether the box overlaps an object of its class by 0.5 or more;
                detections of difficult objects alone are not among them.
            n_classes: classes of the model; one without detections gets the common function.
        """
        rows = [np.flatnonzero(labels == label) for label in range(n_classes)]
        x, y = np.asarray(margins, np.float64), np.asarray(is_object, np.float64)
        start = np.array([np.log(UNCALIBRATED_SLOPE), UNCALIBRATED_INTERCEPT])
        common, _ = _fit(x, y, start, start, WIDE**-2.0)
        # Where detections tell the most, slope and value are nearly independent of each other: the
        # spread of each is then a number of its own.
        weights = _logistic(np.exp(common[0]) * x + common[1])
        weights *= 1 - weights
        center = float(weights @ x / weights.sum()) if weights.sum() > 0 else 0.0
        common[1] += np.exp(common[0]) * center
        data = [(x[own] - center, y[own]) for own in rows]
        values = _fit_classes(data, common)
        slope = np.exp(values[:, 0])
        intercept = values[:, 1] - slope * center
        return cls(slope.astype(np.float32), intercept.astype(np.float32))

    def check(self, n_classes: int) -> Calibration:
        """Return itself; ValueError where it is not for so many classes."""
        if len(self) != n_classes:
            raise ValueError(f"a calibration of {len(self)} classes, not {n_classes}")
        return self

    def join(self, parts: Sequence[Calibration]) -> Calibration:
        """Put the classes of others after these."""
        every = [self, *parts]
        slope = np.concatenate([one.slope for one in every])
        return Calibration(slope, np.concatenate([one.intercept for one in every]))

    def take(self, labels: Sequence[int]) -> Calibration:
        """Keep some of the classes, in this order."""
        chosen = np.array(labels, np.int64)
        return Calibration(self.slope[chosen], self.intercept[chosen])

    def tensors(self) -> dict[str, FloatArray]:
        """Name its arrays as a model file does."""
        return {"calibration.slope": self.slope, "calibration.intercept": self.intercept}

    def toml(self) -> str:
        """Write it as the table of a preset (`model_zoo.Preset`)."""
        lines = ["[calibration]"]
        for name, values in (("slope", self.slope), ("intercept", self.intercept)):
            lines.append(f"{name} = [{', '.join(str(float(str(value))) for value in values)}]")
        return "\n".join(lines)

    def logits(self, margins: FloatArray, labels: IntArray) -> Float64Array:
        """`float64 (N,)`: log odds of margins `(N,)` of classes `labels (N,)`."""
        slope, intercept = self.slope[labels], self.intercept[labels]
        out: Float64Array = slope.astype(np.float64) * margins + intercept
        return out

    def probabilities(self, margins: FloatArray, labels: IntArray) -> FloatArray:
        """`float32 (N,)`, in [0, 1]: the probabilities of margins `(N,)` of `labels (N,)`."""
        return as_probabilities(self.logits(margins, labels))


def as_probabilities(logits: Float64Array) -> FloatArray:
    """`float32 (N,)`, in [0, 1]: the probabilities of log odds `(N,)`."""
    return _logistic(logits).astype(np.float32)


def cross_fitted(
    margins: FloatArray,
    labels: IntArray,
    is_object: BoolArray,
    images: IntArray,
    n_classes: int,
    *,
    folds: int = FOLDS,
) -> FloatArray:
    """`float32 (N,)`: each detection's probability by a fit to the other folds' images.

    What the calibration is worth on new images, without images set aside for it. Arguments as in
    `Calibration.fit`; `images int64 (N,)` says which image each detection is of.
    """
    _, number = np.unique(images, return_inverse=True)
    count = int(number.max(initial=-1)) + 1
    fold = np.random.default_rng(0).permutation(count)[number] % folds
    out = np.zeros(len(margins), np.float32)
    for one in range(folds):
        rest, own = fold != one, fold == one
        made = Calibration.fit(margins[rest], labels[rest], is_object[rest], n_classes)
        out[own] = made.probabilities(margins[own], labels[own])
    return out


def _fit_classes(
    data: list[tuple[Float64Array, Float64Array]], common: Float64Array
) -> Float64Array:
    """`float64 (K, 2)`: log slope and value of each class, drawn towards the common ones.

    A class's two numbers are taken as drawn from normal distributions around the common ones. Their
    variances are those of highest marginal likelihood, found by EM with Laplace's approximation:
    the mean over classes of the squared distance plus its own uncertainty. So many detections
    decide for themselves how far a class may go, and no constant has to suit every data set.
    """
    values = np.tile(common, (len(data), 1))
    seen = [label for label, (x, _) in enumerate(data) if len(x)]
    variance = FIRST_SPREAD**2
    for _ in range(SPREAD_STEPS if seen else 0):
        moments = np.zeros(2)
        for label in seen:
            values[label], doubt = _fit(*data[label], values[label], common, 1 / variance)
            moments += (values[label] - common) ** 2 + doubt
        before, variance = variance, np.maximum(moments / len(seen), 1e-6)
        if np.abs(np.log(variance / before)).max() < 100 * TOLERANCE:
            break
    return values


def _fit(
    x: Float64Array,
    y: Float64Array,
    start: Float64Array,
    mean: Float64Array,
    precision: Float64Array,
) -> tuple[Float64Array, Float64Array]:
    """Fit a logistic function of `x (N,)` to `y (N,)`, 0 or 1, with a normal prior.

    Returns log slope and value at 0, and the variance of each. Fisher scoring, with halved steps
    where one does not help: the slope is positive by its logarithm, which is not quite convex.
    """
    found = start.copy()
    loss = _loss(x, y, found, mean, precision)
    for _ in range(FIT_STEPS):
        gradient, information = _slopes(x, y, found, mean, precision)
        step = np.linalg.solve(information, gradient)
        for _ in range(30):
            tried = found - step
            after = _loss(x, y, tried, mean, precision)
            if after <= loss:
                break
            step /= 2
        else:
            break
        found, loss = tried, after
        if np.abs(step).max() < TOLERANCE:
            break
    _, information = _slopes(x, y, found, mean, precision)
    return found, np.diag(np.linalg.inv(information)).copy()


def _loss(
    x: Float64Array, y: Float64Array, at: Float64Array, mean: Float64Array, precision: Float64Array
) -> float:
    logits = np.exp(at[0]) * x + at[1]
    prior = 0.5 * (precision * (at - mean) ** 2).sum()
    return float((np.logaddexp(0, logits) - y * logits).sum() + prior)


def _slopes(
    x: Float64Array, y: Float64Array, at: Float64Array, mean: Float64Array, precision: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """Gradient `(2,)` and expected second derivatives `(2, 2)` of `_loss`."""
    scaled = np.exp(at[0]) * x
    p = _logistic(scaled + at[1])
    columns = np.stack([scaled, np.ones_like(x)])
    gradient = columns @ (p - y) + precision * (at - mean)
    information = (columns * (p * (1 - p))) @ columns.T + np.diag(precision)
    return gradient, information


def _logistic(logits: Float64Array) -> Float64Array:
    out: Float64Array = np.exp(-np.logaddexp(0, -logits))
    return out
