"""Two sets of detections compared: differences in AP with intervals, and images that changed.

Images are drawn with replacement, the same ones for both (paired bootstrap: Efron and Tibshirani,
"An Introduction to the Bootstrap", 1993). An image that is drawn n times counts n times, with its
objects and detections, which is what evaluating on n copies of it would give.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sppdet.core.types import Dataset, Detections, Float64Array, FloatArray, IntArray
from sppdet.evaluation.error_analysis import assign_causes
from sppdet.evaluation.matching import (
    IGNORED,
    TRUE_POSITIVE,
    ClassMatches,
    flatten_detections,
    flatten_ground_truth,
    match_class,
)
from sppdet.evaluation.operating_points import best_common_point
from sppdet.evaluation.voc_ap import MIN_IOU, evaluate_voc
from sppdet.reports.image_errors import count_image_errors

RESAMPLES = 1000
CONFIDENCE = 0.95
# Numbers of a table of resamples by true positives at once: 100 MB.
_CELLS = 1 << 23


class Difference(NamedTuple):
    """AP (area, IoU 0.5) of A and B, B less A, and the interval that holds it by `CONFIDENCE`.

    `b_is_better` is the share of resamples in which B has the higher AP. All are nan where there
    are no objects.
    """

    name: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    b_is_better: float


class ChangedImage(NamedTuple):
    """An image and its errors with A and B, each at its threshold of the highest mean F1."""

    image_id: str
    errors_a: int
    errors_b: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Mean and classes, as `Difference`s, and the images that changed, those most changed first."""

    dataset: str
    n_images: int
    resamples: int
    mean: Difference
    classes: tuple[Difference, ...]
    images: tuple[ChangedImage, ...]


def compare_detections(
    dataset: Dataset,
    a: Mapping[str, Detections],
    b: Mapping[str, Detections],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare two sets of detections, by image id, on the images of a data set.

    Raises EvaluationError where they do not fit the data set.
    """
    rng = np.random.default_rng(seed)
    n_images = len(dataset)
    # The first row is the data set as it is.
    even = np.full(n_images, 1 / max(1, n_images))
    weights = np.ones((resamples + 1, n_images), np.float32)
    weights[1:] = rng.multinomial(n_images, even, resamples) if n_images else 1
    found_a, found_b = (resampled_ap(dataset, each, weights) for each in (a, b))
    means = [_mean(each) for each in (found_a, found_b)]
    classes = [
        _difference(name, found_a[:, k], found_b[:, k]) for k, name in enumerate(dataset.classes)
    ]
    mean = _difference("mean", means[0], means[1])
    images = _changed_images(dataset, a, b)
    return Comparison(dataset.name, n_images, resamples, mean, tuple(classes), images)


def resampled_ap(
    dataset: Dataset, detections: Mapping[str, Detections], weights: FloatArray
) -> Float64Array:
    """`float64 (R, K)` area AP per class when image i counts `weights[r, i]` times, a whole number.

    nan where no object of the class is left. Raises EvaluationError as `evaluate_voc` does.
    """
    truth, flat = flatten_ground_truth(dataset), flatten_detections(dataset, detections)
    out = np.full((len(weights), len(dataset.classes)), np.nan)
    for label in range(len(dataset.classes)):
        matches = match_class(truth, flat, label, MIN_IOU)
        objects = np.bincount(
            matches.truth.images[~matches.truth.difficult], minlength=len(dataset)
        )
        npos = (weights @ objects.astype(np.float32)).astype(np.float64)
        area = _areas_under_curve(matches, weights)
        np.divide(area, npos, out=out[:, label], where=npos > 0)
    return out


def _areas_under_curve(matches: ClassMatches, weights: FloatArray) -> Float64Array:
    """`float64 (R,)` areas under the envelope of precision, over true positives, not recall.

    Precision is highest right after a true positive, so that only those places are looked at. How
    many detections each image has between one of them and the next is a table, and a product with
    the weights is all that depends on the number of detections.
    """
    counted = matches.outcomes != IGNORED
    images = matches.detections.images[counted]
    is_right = matches.outcomes[counted] == TRUE_POSITIVE
    right = np.flatnonzero(is_right)
    out = np.zeros(len(weights))
    if not len(right):
        return out
    gaps = _count_gaps(images, right, weights.shape[1])
    step = max(1, _CELLS // len(right))
    for start in range(0, len(weights), step):
        some = weights[start : start + step]
        rise = some[:, images[right]].astype(np.float64)
        ranked = np.cumsum((some @ gaps).astype(np.float64), axis=1)
        tp = np.cumsum(rise, axis=1)
        precision = np.divide(tp, ranked, out=np.zeros_like(tp), where=ranked > 0)
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        out[start : start + step] = (rise * best).sum(axis=1)
    return out


def _count_gaps(images: IntArray, right: IntArray, n_images: int) -> NDArray[np.float32]:
    """`float32 (I, T)`: detections of each image from behind one true positive to the next."""
    gap = np.searchsorted(right, np.arange(len(images)))
    seen = gap < len(right)
    cells = images[seen] * len(right) + gap[seen]
    counts = np.bincount(cells, minlength=n_images * len(right))
    return counts.reshape(n_images, len(right)).astype(np.float32)


def _mean(values: Float64Array) -> Float64Array:
    """Mean over the classes that have objects; nan where none has."""
    there = ~np.isnan(values)
    sums, counts = np.where(there, values, 0).sum(axis=1), there.sum(axis=1)
    out = np.full(len(values), np.nan)
    np.divide(sums, counts, out=out, where=counts > 0)
    return out


def _difference(name: str, a: Float64Array, b: Float64Array) -> Difference:
    """Of a class or the mean: row 0 is the data set as it is, the others are resamples."""
    drawn = (b - a)[1:]
    drawn = drawn[~np.isnan(drawn)]
    low = high = share = float("nan")
    if drawn.size and not np.isnan(a[0]):
        tail = (1 - CONFIDENCE) / 2
        low, high = (float(value) for value in np.quantile(drawn, [tail, 1 - tail]))
        share = float((drawn > 0).mean())
    first_a, first_b = float(a[0]), float(b[0])
    return Difference(name, first_a, first_b, first_b - first_a, low, high, share)


def _changed_images(
    dataset: Dataset, a: Mapping[str, Detections], b: Mapping[str, Detections]
) -> tuple[ChangedImage, ...]:
    errors = [_image_errors(dataset, each) for each in (a, b)]
    change = np.abs(errors[1] - errors[0])
    order = np.argsort(-change, kind="stable")
    ids = [sample.image_id for sample in dataset]
    return tuple(
        ChangedImage(ids[i], int(errors[0][i]), int(errors[1][i])) for i in order if change[i]
    )


def _image_errors(dataset: Dataset, detections: Mapping[str, Detections]) -> IntArray:
    best = best_common_point(evaluate_voc(dataset, detections)).threshold
    threshold = np.inf if np.isnan(best) else best
    return count_image_errors(assign_causes(dataset, detections), len(dataset), threshold).totals
