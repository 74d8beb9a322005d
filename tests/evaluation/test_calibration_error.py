"""Calibration figures against a restatement in plain Python, and on scores whose truth is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.types import Dataset, Detections
from sppdet.evaluation.calibration_error import (
    calibration_error,
    evaluate_calibration,
    label_detections,
)
from sppdet.evaluation.detection_report import calibration_dict, calibration_table
from sppdet.evaluation.operating_points import point_of_all
from sppdet.evaluation.voc_ap import evaluate_voc
from tests.helpers.evaluation_cases import CLASSES, detections_of, random_case, sample_of

Labeled = list[tuple[float, bool]]


def with_probabilities(detections: dict[str, Detections]) -> dict[str, Detections]:
    """The same detections, their scores taken as margins."""
    return {
        name: replace(found, scores=(1 / (1 + np.exp(-2 * found.margins))).astype(np.float32))
        for name, found in detections.items()
    }


def plain_labels(dataset: Dataset, detections: dict[str, Detections]) -> Labeled:
    """Score and whether it is right, of every detection that tells something."""
    out = []
    for sample in dataset:
        for one in detections.get(sample.image_id, ()):
            hits = []
            objects = zip(sample.boxes.tolist(), sample.labels, sample.difficult, strict=True)
            for box, label, difficult in objects:
                width = min(one.box[2], box[2]) - max(one.box[0], box[0])
                height = min(one.box[3], box[3]) - max(one.box[1], box[1])
                inter = max(width, 0.0) * max(height, 0.0)
                area = (box[2] - box[0]) * (box[3] - box[1])
                own = (one.box[2] - one.box[0]) * (one.box[3] - one.box[1])
                union = area + own - inter
                if CLASSES[label] == one.name and union and inter / union >= 0.5:
                    hits.append(bool(difficult))
            if not hits or not all(hits):
                out.append((one.score, bool(hits)))
    return out


def plain_error(labeled: Labeled) -> float:
    """Expected calibration error, bin after bin."""
    total = 0.0
    for number in range(10):
        inside = [one for one in labeled if min(int(one[0] * 10), 9) == number]
        if inside:
            right = sum(is_right for _, is_right in inside) / len(inside)
            mean = sum(score for score, _ in inside) / len(inside)
            total += len(inside) * abs(mean - right)
    return total / len(labeled) if labeled else math.nan


def test_no_detections_have_no_error() -> None:
    result = evaluate_calibration(Dataset("none", CLASSES, ()), {})
    assert result is not None
    assert math.isnan(result.error)
    assert math.isnan(result.error_of_all)
    assert sum(one.detections for one in result.bins) == 0


def test_figures_are_those_of_the_restatement() -> None:
    seen = 0
    for seed in range(1, 240, 2):
        dataset, found = random_case(seed)
        if seed % 3 == 0:
            continue  # arbitrary fractions: an IoU near a half would be a matter of rounding
        detections = with_probabilities(found)
        labeled = plain_labels(dataset, detections)
        result = evaluate_calibration(dataset, detections)
        assert result is not None
        assert result.error_of_all == pytest.approx(plain_error(labeled), nan_ok=True), seed
        counted = [one for one in labeled if one[0] >= 0.05]
        assert result.error == pytest.approx(plain_error(counted), nan_ok=True), seed
        assert sum(one.detections for one in result.bins) == len(labeled)
        for one in result.bins:
            inside = [right for score, right in labeled if one.low <= score < one.high]
            assert one.detections == len(inside)
            if inside:
                assert one.share_right == pytest.approx(sum(inside) / len(inside))
                assert one.low <= one.mean_score < one.high
        seen += len(labeled)
    assert seen > 200


def test_duplicates_are_right_and_difficult_objects_alone_tell_nothing() -> None:
    box, far, other = [0, 0, 10, 10], [200, 200, 210, 210], [300, 0, 310, 10]
    sample = sample_of("1", [box, far, far, other], [0, 0, 0, 0], [False, False, True, True])
    found = detections_of(
        [box, box, far, other, [50, 50, 60, 60]], [0.9, 0.8, 0.7, 0.6, 0.5], [0] * 5
    )
    labeled = label_detections(Dataset("one", CLASSES, (sample,)), {"1": found})
    assert labeled.detections.scores.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.5])
    assert labeled.is_object.tolist() == [True, True, True, False]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999))
def test_honest_scores_have_no_error_and_boastful_ones_do(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random(20_000).astype(np.float32)
    right = rng.random(len(truth)) < truth
    assert calibration_error(truth, right).error < 0.02
    assert calibration_error(np.sqrt(truth), right).error > 0.1


def test_by_hand() -> None:
    scores = np.array([0.01, 0.04, 0.06, 0.5, 0.55, 1.0], np.float32)
    right = np.array([False, False, True, True, False, True])
    result = calibration_error(scores, right)
    assert result.error == pytest.approx((0.94 + 2 * 0.025 + 0) / 4)
    assert result.error_of_all == pytest.approx((3 * abs(0.11 / 3 - 1 / 3) + 2 * 0.025) / 6)
    counts = {(one.low, one.high): one.detections for one in result.bins if one.detections}
    assert counts == {(0, 0.05): 2, (0.05, 0.1): 1, (0.5, 0.6): 2, (0.9, 1.0): 1}


def test_margins_are_no_probabilities() -> None:
    sample = sample_of("1", [[0, 0, 10, 10]], [0])
    for score in (-0.1, 1.1):
        found = detections_of([[0, 0, 10, 10]], [score], [0])
        assert evaluate_calibration(Dataset("one", CLASSES, (sample,)), {"1": found}) is None


def test_figures_at_a_threshold_are_of_what_is_kept() -> None:
    for seed in range(60):
        dataset, found = random_case(seed)
        detections = with_probabilities(found)
        point = point_of_all(evaluate_voc(dataset, detections), 0.5)
        kept = {name: each.above(0.5) for name, each in detections.items()}
        result = evaluate_voc(dataset, kept)
        right = sum(
            round(c.recall[-1] * c.npos) for c in result.classes if c.npos and len(c.recall)
        )
        shown = sum(len(each.precision) for each in result.classes)
        objects = sum(each.npos for each in result.classes)
        assert point.precision == pytest.approx(right / shown if shown else math.nan, nan_ok=True)
        assert point.recall == pytest.approx(right / objects if objects else math.nan, nan_ok=True)


def test_report_has_the_figures() -> None:
    dataset, found = random_case(7)
    detections = with_probabilities(found)
    result = evaluate_calibration(dataset, detections)
    assert result is not None
    point = point_of_all(evaluate_voc(dataset, detections), 0.5)
    text, report = calibration_table(result, point), calibration_dict(result, point)
    assert len(report["bins"]) == len(result.bins) == 11
    assert f"Expected calibration error: {result.error:.3f}" in text
    assert report["error"] == result.error
    assert report["at_threshold"]["threshold"] == 0.5
    empty = calibration_dict(
        calibration_error(np.zeros(0, np.float32), np.zeros(0, np.bool_)), point
    )
    assert empty["error"] is None
    assert empty["bins"][0]["mean_score"] is None
