"""Whether scores are the probabilities that they claim to be: reliability, and its error.

A score claims that the box overlaps an object of its class by an IoU of 0.5 or more. That is less
than the devkit asks for: a second box on an object is right here, and a duplicate there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from sppdet.core.types import BoolArray, Dataset, Detections, FloatArray
from sppdet.evaluation.matching import (
    FlatDetections,
    FlatGroundTruth,
    best_matches,
    flatten_detections,
    flatten_ground_truth,
)
from sppdet.evaluation.voc_ap import MIN_IOU

# Bins of equal width (Guo et al. 2017, who take 15).
BINS = 10
# Nearly all of a detector's boxes score next to nothing, rightly, and would hide every other error.
LEAST_SCORE = 0.05


class LabeledDetections(NamedTuple):
    """Detections of many images, and which of them are right.

    Attributes:
        detections: those that tell anything: without those of difficult objects alone.
        is_object: `bool (N,)`, whether the box overlaps an object of its class by `MIN_IOU`.
    """

    detections: FlatDetections
    is_object: BoolArray


class ReliabilityBin(NamedTuple):
    """Detections of scores from `low` to below `high`; means are nan where there are none."""

    low: float
    high: float
    detections: int
    mean_score: float
    share_right: float


@dataclass(frozen=True, slots=True)
class CalibrationResult:
    """How far scores are from the shares of detections that are right.

    Attributes:
        error: expected calibration error of the detections that score `LEAST_SCORE` or more: the
            mean over `BINS` bins, weighted by detections, of |mean score - share right|; nan where
            there are none.
        error_of_all: the same of all detections.
        bins: the bins, the first one cut at `LEAST_SCORE`.
    """

    error: float
    error_of_all: float
    bins: tuple[ReliabilityBin, ...]


def label_detections(dataset: Dataset, detections: Mapping[str, Detections]) -> LabeledDetections:
    """Say of each detection (by image id) whether it is right.

    Raises EvaluationError for detections that do not fit the data set.
    """
    truth, flat = flatten_ground_truth(dataset), flatten_detections(dataset, detections)
    plain = _overlaps_one(flat, truth.where(~truth.difficult), len(dataset.classes))
    difficult = _overlaps_one(flat, truth.where(truth.difficult), len(dataset.classes))
    told = np.flatnonzero(plain | ~difficult)
    return LabeledDetections(flat.take(told), plain[told])


def _overlaps_one(flat: FlatDetections, truth: FlatGroundTruth, n_classes: int) -> BoolArray:
    """`bool (N,)`: whether a detection overlaps one of these objects, if of its class."""
    out = np.zeros(len(flat), np.bool_)
    for label in range(n_classes):
        own, objects = np.flatnonzero(flat.labels == label), truth.where(truth.labels == label)
        boxes = (flat.images[own], flat.boxes[own], objects.images, objects.boxes)
        out[own] = best_matches(*boxes)[0] >= MIN_IOU
    return out


def evaluate_calibration(
    dataset: Dataset, detections: Mapping[str, Detections]
) -> CalibrationResult | None:
    """Measure the calibration of `detections` (by image id); None if a score is not in [0, 1].

    Raises EvaluationError for detections that do not fit the data set.
    """
    labeled = label_detections(dataset, detections)
    scores = labeled.detections.scores
    if len(scores) and not 0 <= scores.min() <= scores.max() <= 1:
        return None
    return calibration_error(scores, labeled.is_object)


def calibration_error(scores: FloatArray, is_object: BoolArray) -> CalibrationResult:
    """Compare scores `float32 (N,)` in [0, 1] with what is right, `bool (N,)`."""
    edges = [*(number / BINS for number in range(BINS)), np.inf]
    counted = scores >= LEAST_SCORE
    cut = _bins(scores, is_object, [0.0, LEAST_SCORE, *edges[1:]])
    return CalibrationResult(
        _error(_bins(scores[counted], is_object[counted], edges)),
        _error(_bins(scores, is_object, edges)),
        (*cut[:-1], cut[-1]._replace(high=1.0)),
    )


def _bins(
    scores: FloatArray, is_object: BoolArray, edges: list[float]
) -> tuple[ReliabilityBin, ...]:
    out = []
    for low, high in pairwise(edges):
        inside = (scores >= low) & (scores < high)
        count, means = int(inside.sum()), (float("nan"), float("nan"))
        if count:
            right = float(is_object[inside].mean())
            means = float(scores[inside].mean(dtype=np.float64)), right
        out.append(ReliabilityBin(low, high, count, *means))
    return tuple(out)


def _error(bins: tuple[ReliabilityBin, ...]) -> float:
    filled = [one for one in bins if one.detections]
    total = sum(one.detections for one in filled)
    gaps = [one.detections * abs(one.mean_score - one.share_right) for one in filled]
    return sum(gaps) / total if total else float("nan")
