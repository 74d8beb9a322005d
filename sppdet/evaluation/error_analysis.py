"""Errors of a detector by cause, and what each cause costs in average precision.

After Bolya, Foley, Hays and Hoffman, "TIDE: A General Toolbox for Identifying Object Detection
Errors" (ECCV 2020): its six causes (section 2.2) and its oracles, each of which fixes one cause
and leaves the others as they are (section 2.3). Detections are matched as the VOC devkit does, so
that a detection's IoU with its nearest object decides, whether or not that object is claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sppdet.core.types import BoolArray, Dataset, Detections, Float64Array, IntArray
from sppdet.evaluation.matching import (
    DUPLICATE,
    FALSE_POSITIVE,
    IGNORED,
    TRUE_POSITIVE,
    FlatDetections,
    FlatGroundTruth,
    best_matches,
    flatten_detections,
    flatten_ground_truth,
    match_class,
)
from sppdet.evaluation.voc_ap import MIN_IOU, area_ap

# A box that overlaps an object by less is of the background (section 2.2).
BACKGROUND_IOU = 0.1

CAUSES = ("classification", "localization", "both", "duplicate", "background", "missed")
CLASSIFICATION, LOCALIZATION, BOTH, DUPLICATED, BACKGROUND, MISSED = range(len(CAUSES))
# What is no error: a true positive, and a detection of a difficult object.
RIGHT, LEFT_OUT = -1, -2

# AP of `int64 (M,)` true positives among the first 1, 2, ... detections, and a number of objects.
AveragePrecision = Callable[[IntArray, int], float]


@dataclass(frozen=True, slots=True, eq=False)
class Causes:
    """Every detection's cause of error, and the objects that none of them accounts for.

    Attributes:
        truth, detections: what was compared, as `flatten_ground_truth` and `flatten_detections`
            have it.
        causes: `int8 (N,)` per detection: index into `CAUSES`, `RIGHT` or `LEFT_OUT`.
        targets: `int64 (N,)` index of the object that a detection is, or would be if its error
            were fixed; -1 for those of the background.
        found: `bool` per object: a true positive claims it.
        missed: `bool` per object, not difficult: it is not found, and no error of classification
            or localization is one on it.
    """

    truth: FlatGroundTruth
    detections: FlatDetections
    causes: NDArray[np.int8]
    targets: IntArray
    found: BoolArray
    missed: BoolArray


@dataclass(frozen=True, slots=True)
class ClassErrors:
    """Errors of one class per cause of `CAUSES`: their number, and what AP would gain without.

    `gains` are nan for a class without objects.
    """

    name: str
    counts: tuple[int, ...]
    gains: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ErrorAnalysis:
    """Errors per class, in the data set's order, and of `all`: sums of counts, means of gains."""

    classes: tuple[ClassErrors, ...]
    total: ClassErrors


def assign_causes(
    dataset: Dataset, detections: Mapping[str, Detections], *, min_iou: float = MIN_IOU
) -> Causes:
    """Find the cause of every error.

    The first that fits, in the order of TIDE's own code: `localization`, an IoU of
    `BACKGROUND_IOU` or more, but too little, with an object of the class; `classification`, enough
    with one of another class; `duplicate`, enough with one that is found already; `background`,
    less than `BACKGROUND_IOU` with any; `both`, all else.

    Raises:
        EvaluationError: detections that do not fit the data set, or a bad `min_iou`.
    """
    truth, flat = flatten_ground_truth(dataset), flatten_detections(dataset, detections)
    causes = np.full(len(flat), RIGHT, np.int8)
    targets = np.full(len(flat), -1, np.int64)
    found = np.zeros(len(truth), np.bool_)
    for label in range(len(dataset.classes)):
        own = match_class(truth, flat, label, min_iou)
        others = np.flatnonzero(truth.labels != label)
        boxes = own.detections.images, own.detections.boxes
        across, other = best_matches(*boxes, truth.images[others], truth.boxes[others])
        near = (own.outcomes == FALSE_POSITIVE) & (own.overlaps >= BACKGROUND_IOU)
        causes[own.rows] = np.select(
            [
                own.outcomes == TRUE_POSITIVE,
                own.outcomes == IGNORED,
                near,
                across >= min_iou,
                own.outcomes == DUPLICATE,
                across < BACKGROUND_IOU,
            ],
            [RIGHT, LEFT_OUT, LOCALIZATION, CLASSIFICATION, DUPLICATED, BACKGROUND],
            default=BOTH,
        )
        # Without an object in the image, the index -1 stays: the one put behind all others.
        same = np.append(own.objects, -1)[own.nearest]
        cross = np.append(others, -1)[other]
        cause = causes[own.rows]
        is_other = (cause == CLASSIFICATION) | (cause == BOTH)
        targets[own.rows] = np.where(cause == BACKGROUND, -1, np.where(is_other, cross, same))
        found[own.objects[own.found]] = True
    covered = np.zeros(len(truth), np.bool_)
    covered[targets[np.isin(causes, (CLASSIFICATION, LOCALIZATION))]] = True
    return Causes(truth, flat, causes, targets, found, ~(truth.difficult | found | covered))


def analyze_errors(
    dataset: Dataset, causes: Causes, *, average_precision: AveragePrecision = area_ap
) -> ErrorAnalysis:
    """Count errors by cause, and measure what AP would gain if there were none of a cause.

    Of errors of classification or localization on one object that is not found, the one of the
    best score becomes right, in the object's class; all other errors vanish. Missed objects no
    longer count. (A class that has missed all its objects gains all that is lacking.)
    """
    truth, flat = causes.truth, causes.detections
    order = np.lexsort((-flat.margins, -flat.scores))
    kept, right = causes.causes != LEFT_OUT, causes.causes == RIGHT
    n_classes = len(dataset.classes)
    npos = np.bincount(truth.labels[~truth.difficult], minlength=n_classes)
    missed = np.bincount(truth.labels[causes.missed], minlength=n_classes)

    def precision(
        labels: IntArray, kept: BoolArray, right: BoolArray, npos: IntArray
    ) -> Float64Array:
        found = [right[order][kept[order] & (labels[order] == k)] for k in range(n_classes)]
        pairs = zip(found, npos, strict=True)
        return np.array([average_precision(np.cumsum(tp), int(n)) for tp, n in pairs])

    base = precision(flat.labels, kept, right, npos)
    gains, counts = [], []
    for cause in range(MISSED):
        is_cause = causes.causes == cause
        labels, fixed = _fix(causes, order[is_cause[order]], cause)
        after = precision(labels, kept & ~(is_cause & ~fixed), right | fixed, npos)
        gains.append(after - base)
        counts.append(np.bincount(flat.labels[is_cause], minlength=n_classes))
    without = precision(flat.labels, kept, right, npos - missed)
    gains.append(np.where((npos > 0) & (npos == missed), 1.0, without) - base)
    counts.append(missed)
    rows = zip(dataset.classes, np.array(counts).T.tolist(), np.array(gains).T, strict=True)
    classes = tuple(ClassErrors(name, tuple(n), tuple(g.tolist())) for name, n, g in rows)
    scored = np.array(gains)[:, npos > 0]
    means = scored.mean(axis=1) if scored.size else np.full(len(CAUSES), np.nan)
    sums = np.array(counts).sum(axis=1)
    return ErrorAnalysis(classes, ClassErrors("all", tuple(sums.tolist()), tuple(means.tolist())))


def _fix(causes: Causes, wrong: IntArray, cause: int) -> tuple[IntArray, BoolArray]:
    """Labels of all detections, and which become right, when the errors of a cause are fixed.

    `wrong` are those detections, best score first.
    """
    labels, fixed = causes.detections.labels.copy(), np.zeros(len(causes.causes), np.bool_)
    if cause in (CLASSIFICATION, LOCALIZATION):
        targets = causes.targets[wrong]
        free = ~(causes.found | causes.truth.difficult)[targets]
        _, first = np.unique(targets[free], return_index=True)
        best = wrong[free][first]
        fixed[best] = True
        labels[best] = causes.truth.labels[causes.targets[best]]
    return labels, fixed
