"""Precision, recall and F1 of the detections above a score threshold.

Average precision covers all thresholds at once; a detector in use needs one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sppdet.core.types import Float64Array, FloatArray, IntArray
from sppdet.evaluation.voc_ap import ClassResult, VocResult

# Name of the point of all classes together.
ALL = "all"


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Precision and recall of a class at one threshold.

    Attributes:
        name: the class, or `ALL`.
        threshold: detections of this score and above are kept; nan where keeping none is best.
        precision: share of those kept that find an object; nan where none is kept.
        recall: share of the objects that they find.
        f1: harmonic mean of the two, 0 where none is kept.
    """

    name: str
    threshold: float
    precision: float
    recall: float
    f1: float


def best_points(result: VocResult) -> tuple[OperatingPoint, ...]:
    """Find the highest F1 of each class that has objects, at the highest threshold of equals."""
    return tuple(_best_of(each) for each in result.classes if each.npos)


def best_common_point(result: VocResult) -> OperatingPoint:
    """Find the one threshold of the highest mean F1 over the classes, and means there."""
    scored = [each for each in result.classes if each.npos]
    tried = np.unique(np.concatenate([np.zeros(0, np.float32), *(each.scores for each in scored)]))
    if not len(tried):
        return _mean_point(scored, float("nan"))
    f1 = np.mean([_f1(each, _kept(each, tried)) for each in scored], axis=0)
    # The highest threshold among equals: what it leaves out was of no use.
    best = len(f1) - 1 - int(np.argmax(f1[::-1]))
    return _mean_point(scored, float(tried[best]))


def point_of_all(result: VocResult, threshold: float) -> OperatingPoint:
    """Compute the figures of all classes' detections and objects together, at a threshold.

    Classes without objects count too: what is found of them is wrong.
    """
    level = np.array([threshold], np.float32)
    counts = [(each, int(_kept(each, level)[0])) for each in result.classes]
    right = sum(_count_found(each, kept) for each, kept in counts)
    kept, npos = sum(count for _, count in counts), sum(each.npos for each, _ in counts)
    return OperatingPoint(
        ALL,
        threshold,
        right / kept if kept else float("nan"),
        right / npos if npos else float("nan"),
        2 * right / (kept + npos) if kept + npos else float("nan"),
    )


def point_at(result: ClassResult, threshold: float) -> OperatingPoint:
    """Compute the figures of a class with objects at a threshold."""
    kept = int(_kept(result, np.array([threshold], np.float32))[0])
    found = _count_found(result, kept)
    return OperatingPoint(
        result.name,
        threshold,
        found / kept if kept else float("nan"),
        found / result.npos,
        2 * found / (kept + result.npos),
    )


def _best_of(result: ClassResult) -> OperatingPoint:
    thresholds = np.unique(result.scores)
    f1 = _f1(result, _kept(result, thresholds))
    if not len(f1) or not f1.max():
        return point_at(result, float("nan"))
    return point_at(result, float(thresholds[len(f1) - 1 - int(np.argmax(f1[::-1]))]))


def _mean_point(results: Sequence[ClassResult], threshold: float) -> OperatingPoint:
    points = [point_at(each, threshold) for each in results]
    # A class of which nothing is kept has no precision, and says nothing about the others'.
    precisions = [point.precision for point in points if not np.isnan(point.precision)]
    return OperatingPoint(
        ALL,
        threshold,
        float(np.mean(precisions)) if precisions else float("nan"),
        float(np.mean([point.recall for point in points])) if points else float("nan"),
        float(np.mean([point.f1 for point in points])) if points else float("nan"),
    )


def _count_found(result: ClassResult, kept: int) -> int:
    """Count the objects that the best `kept` detections find."""
    return round(float(result.recall[kept - 1]) * result.npos) if kept and result.npos else 0


def _kept(result: ClassResult, thresholds: FloatArray) -> IntArray:
    """Count the detections of at least each threshold; none is at least nan."""
    kept = len(result.scores) - np.searchsorted(result.scores[::-1], thresholds, side="left")
    return np.where(np.isnan(thresholds), 0, kept).astype(np.int64)


def _f1(result: ClassResult, kept: IntArray) -> Float64Array:
    """F1 with the best `kept` detections."""
    found = np.append(0.0, result.recall * result.npos)[kept]
    out: Float64Array = 2 * found / (kept + result.npos)
    return out
