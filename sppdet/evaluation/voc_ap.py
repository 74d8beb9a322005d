"""Average precision as the Pascal VOC devkits define it: 11-point (2007) and area (2010 on)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sppdet.core.boxes import areas
from sppdet.core.types import BoolArray, Dataset, Detections, Float64Array, FloatArray, IntArray
from sppdet.evaluation.matching import (
    IGNORED,
    TRUE_POSITIVE,
    ClassMatches,
    flatten_detections,
    flatten_ground_truth,
    match_class,
)

# The IoU at which a detection finds an object (the devkit compares with >=).
MIN_IOU = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class ClassResult:
    """Average precision, curve and recall of one class.

    Attributes:
        name: the class.
        ap11, ap_area: average precision in [0, 1]; nan where the class has no positives.
        precision, recall: `float64 (M,)` after each detection that counts, best score first;
            detections of difficult objects do not count. Recall is nan without positives.
        scores: `float32 (M,)` of the same detections.
        npos: objects that are not difficult.
        n_detections: all detections of the class.
        object_areas: `float32 (npos,)` square pixels of those objects.
        found: `bool (npos,)` whether a detection found them.
    """

    name: str
    ap11: float
    ap_area: float
    precision: Float64Array
    recall: Float64Array
    scores: FloatArray
    npos: int
    n_detections: int
    object_areas: FloatArray
    found: BoolArray

    @property
    def final_recall(self) -> float:
        """Share of objects that all detections find; nan where there are no objects."""
        return float(self.found.mean()) if self.npos else float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class VocResult:
    """Average precision of a data set, per class and mean.

    Attributes:
        dataset: the data set's name.
        n_images: images evaluated.
        min_iou: the IoU at which a detection finds an object.
        classes: one result per class, in the data set's order.
        map11, map_area: means of the classes' AP over those that have positives; nan if none has.
    """

    dataset: str
    n_images: int
    min_iou: float
    classes: tuple[ClassResult, ...]
    map11: float
    map_area: float

    @property
    def left_out(self) -> tuple[str, ...]:
        """Classes without positives, which no mean includes."""
        return tuple(result.name for result in self.classes if not result.npos)


def evaluate_voc(
    dataset: Dataset, detections: Mapping[str, Detections], *, min_iou: float = MIN_IOU
) -> VocResult:
    """Compute the VOC figures of `detections` (by image id) on `dataset`.

    Every image of the data set counts, with or without an entry in `detections`.

    Raises:
        EvaluationError: an image id or class names that the data set lacks, a score that is not
            finite, or a `min_iou` that is not in (0, 1].
    """
    truth = flatten_ground_truth(dataset)
    flat = flatten_detections(dataset, detections)
    classes = tuple(
        _class_result(name, match_class(truth, flat, label, min_iou))
        for label, name in enumerate(dataset.classes)
    )
    scored = [result for result in classes if result.npos]
    return VocResult(
        dataset=dataset.name,
        n_images=len(dataset),
        min_iou=min_iou,
        classes=classes,
        map11=float(np.mean([r.ap11 for r in scored])) if scored else float("nan"),
        map_area=float(np.mean([r.ap_area for r in scored])) if scored else float("nan"),
    )


def _class_result(name: str, matches: ClassMatches) -> ClassResult:
    positive = ~matches.truth.difficult
    npos = int(positive.sum())
    counts = matches.outcomes != IGNORED
    counted = matches.outcomes[counts]
    tp = np.cumsum(counted == TRUE_POSITIVE, dtype=np.int64)
    precision = tp / np.arange(1, len(tp) + 1)
    recall = tp / npos if npos else np.full(len(tp), np.nan)
    return ClassResult(
        name=name,
        ap11=eleven_point_ap(tp, npos),
        ap_area=area_ap(tp, npos),
        precision=precision,
        recall=recall,
        scores=matches.detections.scores[counts],
        npos=npos,
        n_detections=len(matches.detections),
        object_areas=areas(matches.truth.boxes[positive]),
        found=matches.found[positive],
    )


def _envelope(precision: Float64Array) -> Float64Array:
    """Highest precision at each point's recall or any higher one."""
    return np.maximum.accumulate(precision[::-1])[::-1]


def eleven_point_ap(tp: IntArray, npos: int) -> float:
    """VOC2007 AP: mean over recall 0, 0.1 .. 1 of the best precision at that recall or above.

    Args:
        tp: `int64 (M,)` true positives among the first 1, 2, ..., M detections.
        npos: objects to be found; nan comes back where there are none.

    A precision is 0 at recalls never reached. Recall is compared in integers: 3 of 10 reaches
    0.3, which `0.1 + 0.1 + 0.1` in floating point does not allow.
    """
    if not npos:
        return float("nan")
    best = np.append(_envelope(tp / np.arange(1, len(tp) + 1)), 0.0)
    reached_at = np.searchsorted(10 * tp, np.arange(11) * npos, side="left")
    return float(best[reached_at].mean())


def area_ap(tp: IntArray, npos: int) -> float:
    """VOC2010 AP: area under the precision envelope, summed where recall rises.

    Arguments as for `eleven_point_ap`.
    """
    if not npos:
        return float("nan")
    best = _envelope(tp / np.arange(1, len(tp) + 1))
    rise = np.diff(tp, prepend=0) / npos
    return float((rise * best).sum())
