"""Which images a detector does worst on, and annotations that its errors cast doubt on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sppdet.core.types import BoolArray, Float64Array, IntArray
from sppdet.evaluation.error_analysis import (
    BACKGROUND,
    CLASSIFICATION,
    LOCALIZATION,
    RIGHT,
    Causes,
)
from sppdet.evaluation.matching import best_matches
from sppdet.evaluation.voc_ap import MIN_IOU


@dataclass(frozen=True, slots=True, eq=False)
class ImageErrors:
    """What is wrong when detections below a threshold are left out.

    Attributes:
        missed: `bool` per object, not difficult: no detection that is kept finds it.
        wrong: `bool` per detection: it is kept, and an error.
        fits_badly: `bool` per detection: it is wrong, of the right class beside its object.
        totals: `int64` per image: objects missed and detections wrong. An object beside which a
            detection lies counts as both.
    """

    missed: BoolArray
    wrong: BoolArray
    fits_badly: BoolArray
    totals: IntArray


def count_image_errors(causes: Causes, n_images: int, threshold: float) -> ImageErrors:
    """Find the errors of the detections that score `threshold` or more."""
    kept = causes.detections.scores >= threshold
    found = np.zeros(len(causes.truth), np.bool_)
    found[causes.targets[kept & (causes.causes == RIGHT)]] = True
    missed = ~(found | causes.truth.difficult)
    wrong = kept & (causes.causes >= 0)
    totals = np.bincount(causes.truth.images[missed], minlength=n_images)
    totals += np.bincount(causes.detections.images[wrong], minlength=n_images)
    return ImageErrors(missed, wrong, wrong & (causes.causes == LOCALIZATION), totals)


def worst_images(causes: Causes, errors: ImageErrors, count: int) -> IntArray:
    """Rank at most `count` images with errors, the most errors first.

    Of equal numbers, the higher sum of wrong scores goes first, then the data set's order.
    """
    wrong = causes.detections.images[errors.wrong]
    scores = causes.detections.scores[errors.wrong].astype(np.float64)
    sums = np.bincount(wrong, scores, minlength=len(errors.totals))
    order = np.lexsort((-sums, -errors.totals))[:count]
    return order[errors.totals[order] > 0].astype(np.int64)


def unannotated_objects(causes: Causes, errors: ImageErrors) -> IntArray:
    """Detections that lie on no annotated object, best score first."""
    return _by_score(causes, errors.wrong & (causes.causes == BACKGROUND))


def swapped_classes(causes: Causes, errors: ImageErrors) -> IntArray:
    """Detections that fit an object of another class that nothing finds, best score first."""
    lost = np.append(errors.missed, False)[causes.targets]
    return _by_score(causes, errors.wrong & (causes.causes == CLASSIFICATION) & lost)


def unfitted_objects(causes: Causes) -> tuple[IntArray, Float64Array]:
    """Objects that no detection of any class and score fits, the worst fit first, and its IoU."""
    truth, flat = causes.truth, causes.detections
    best, _ = best_matches(truth.images, truth.boxes, flat.images, flat.boxes)
    order = np.argsort(best, kind="stable")
    order = order[(best[order] < MIN_IOU) & ~truth.difficult[order]]
    return order, best[order]


def _by_score(causes: Causes, which: BoolArray) -> IntArray:
    rows = np.flatnonzero(which)
    return rows[np.argsort(-causes.detections.scores[rows], kind="stable")]
