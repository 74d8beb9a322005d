"""Errors of a detector: false positives by cause, missed objects by size.

After Hoiem, Chodpathumwan and Dai, "Diagnosing Error in Object Detectors" (ECCV 2012): of each
class the best-scored false positives are examined, as many as the class has objects. Duplicates,
which the paper counts as poor localization, stand by themselves here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sppdet.core.boxes import areas
from sppdet.core.types import BoolArray, Dataset, Detections, IntArray
from sppdet.evaluation.matching import (
    DUPLICATE,
    FALSE_POSITIVE,
    ClassMatches,
    FlatDetections,
    FlatGroundTruth,
    best_matches,
    flatten_detections,
    flatten_ground_truth,
    match_class,
)
from sppdet.evaluation.tables import SIZE_NAMES, size_bands
from sppdet.evaluation.voc_ap import MIN_IOU

# A false positive that overlaps an object by at least this is blamed on that object (section 3).
BLAME_IOU = 0.1

CAUSES = ("duplicate", "localization", "similar class", "other class", "background")

# Sets of classes that are easily taken for each other (section 3), by VOC's names.
VOC_SIMILAR = (
    frozenset({"aeroplane", "bicycle", "boat", "bus", "car", "motorbike", "train"}),
    frozenset({"bird", "cat", "cow", "dog", "horse", "person", "sheep"}),
    frozenset({"chair", "diningtable", "sofa"}),
    frozenset({"aeroplane", "bird"}),
)


@dataclass(frozen=True, slots=True)
class ClassErrors:
    """Errors of one class.

    Attributes:
        name: the class.
        n_examined: false positives examined: the best-scored, at most `npos` by default.
        causes: number of them per cause of `CAUSES`.
        objects: number of objects, difficult ones apart, per size of `SIZE_NAMES`.
        missed: number of those that no detection finds.
    """

    name: str
    n_examined: int
    causes: tuple[int, ...]
    objects: tuple[int, ...]
    missed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ErrorAnalysis:
    """Errors per class, in the data set's order, and their sum, named `all`."""

    classes: tuple[ClassErrors, ...]
    total: ClassErrors


def analyze_errors(
    dataset: Dataset,
    detections: Mapping[str, Detections],
    *,
    min_iou: float = MIN_IOU,
    top: int | None = None,
    similar: tuple[frozenset[str], ...] = VOC_SIMILAR,
) -> ErrorAnalysis:
    """Count false positives by cause, and missed objects by size.

    Each false positive has the first cause that fits: `duplicate`, of an object already found;
    `localization`, IoU of at least 0.1 with an object of its class; `similar class` and `other
    class`, at least 0.1 with an object of such a class; `background`.

    Args:
        dataset: the ground truth; difficult objects can be to blame, but are not missed.
        detections: by image id.
        min_iou: the IoU at which a detection finds an object.
        top: false positives examined per class; None for as many as it has objects.
        similar: sets of class names that are easily confused.

    Raises:
        EvaluationError: detections that do not fit the data set, or a bad `min_iou`.
    """
    truth = flatten_ground_truth(dataset)
    flat = flatten_detections(dataset, detections)
    classes = []
    for label, name in enumerate(dataset.classes):
        matches = match_class(truth, flat, label, min_iou)
        alike = _alike(dataset.classes, name, similar)
        classes.append(_class_errors(name, label, matches, truth, alike, top))
    total = ClassErrors(
        name="all",
        n_examined=sum(each.n_examined for each in classes),
        causes=_sums([each.causes for each in classes], len(CAUSES)),
        objects=_sums([each.objects for each in classes], len(SIZE_NAMES)),
        missed=_sums([each.missed for each in classes], len(SIZE_NAMES)),
    )
    return ErrorAnalysis(tuple(classes), total)


def _alike(classes: tuple[str, ...], name: str, similar: tuple[frozenset[str], ...]) -> BoolArray:
    """`bool (n_classes,)`: the classes that `name` is easily taken for, itself apart."""
    confused = frozenset().union(*(group for group in similar if name in group)) - {name}
    return np.array([each in confused for each in classes], dtype=np.bool_)


def _class_errors(
    name: str,
    label: int,
    matches: ClassMatches,
    truth: FlatGroundTruth,
    alike: BoolArray,
    top: int | None,
) -> ClassErrors:
    positive = ~matches.truth.difficult
    wrong = np.flatnonzero(np.isin(matches.outcomes, (DUPLICATE, FALSE_POSITIVE)))
    wrong = wrong[: int(positive.sum()) if top is None else top]
    examined = matches.detections.take(wrong)
    near_similar = _near(examined, truth.where(alike[truth.labels]))
    near_other = _near(examined, truth.where(truth.labels != label))
    cause = np.select(
        [
            matches.outcomes[wrong] == DUPLICATE,
            matches.overlaps[wrong] >= BLAME_IOU,
            near_similar,
            near_other,
        ],
        [0, 1, 2, 3],
        default=4,
    )
    bands = size_bands(areas(matches.truth.boxes[positive]))
    missed = ~matches.found[positive]
    return ClassErrors(
        name=name,
        n_examined=len(wrong),
        causes=_counts(cause, len(CAUSES)),
        objects=_counts(bands, len(SIZE_NAMES)),
        missed=_counts(bands[missed], len(SIZE_NAMES)),
    )


def _near(examined: FlatDetections, truth: FlatGroundTruth) -> BoolArray:
    overlaps, _ = best_matches(examined.images, examined.boxes, truth.images, truth.boxes)
    return overlaps >= BLAME_IOU


def _counts(values: IntArray, n: int) -> tuple[int, ...]:
    return tuple(int(v) for v in np.bincount(values, minlength=n))


def _sums(rows: list[tuple[int, ...]], n: int) -> tuple[int, ...]:
    return tuple(sum(row[i] for row in rows) for i in range(n))
