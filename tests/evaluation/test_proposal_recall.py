"""Proposal recall: laws, hand-made figures, and a loop over every pair as the oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.errors import EvaluationError
from sppdet.core.types import Dataset, FloatArray
from sppdet.evaluation.proposal_recall import best_overlaps, proposal_recall
from tests.helpers.evaluation_cases import CLASSES, random_case, sample_of

NONE = np.zeros((0, 4), np.float32)


def boxes(*rows: tuple[float, ...]) -> FloatArray:
    return np.array(rows, np.float32).reshape(-1, 4)


def test_best_overlaps_of_nothing() -> None:
    assert best_overlaps(sample_of("a", [], []), NONE).shape == (0,)
    assert best_overlaps(sample_of("a", [], []), boxes((0, 0, 9, 9))).shape == (0,)
    found = best_overlaps(sample_of("a", [[0, 0, 9, 9]], [0]), NONE)
    assert found.dtype == np.float32
    assert found.tolist() == [0]


def test_recall_of_nothing_is_nan() -> None:
    result = proposal_recall(Dataset("d", CLASSES, ()), {})
    assert math.isnan(result.abo)
    assert math.isnan(result.mabo)
    assert all(math.isnan(value) for value in (*result.recall, *result.class_abo))
    assert (result.n_images, result.n_objects) == (0, 0)


def test_best_overlaps_is_half_open_and_truncates() -> None:
    sample = sample_of("a", [[0, 0, 20, 10], [100, 100, 110, 110]], [0, 1])
    proposals = boxes((0, 0, 10, 10), (0, 0, 20, 10), (110, 100, 120, 110))
    assert best_overlaps(sample, proposals).tolist() == [1, 0]
    assert best_overlaps(sample, proposals, limit=1).tolist() == [0.5, 0]
    assert best_overlaps(sample, proposals, limit=0).tolist() == [0, 0]


def test_recall_by_hand() -> None:
    first = sample_of("a", [[0, 0, 10, 10], [0, 0, 10, 5]], [0, 0])
    second = sample_of("b", [[0, 0, 10, 10], [50, 50, 60, 60]], [1, 1], [False, True])
    dataset = Dataset("d", CLASSES, (first, second))
    proposals = {"a": boxes((0, 0, 10, 5)), "b": boxes((0, 0, 7, 10), (50, 50, 60, 60))}
    result = proposal_recall(dataset, proposals, thresholds=(0.5, 0.7, 0.9))
    assert result.recall == pytest.approx((1, 2 / 3, 1 / 3))  # best IoUs: 0.5, 1, 0.7
    assert result.abo == pytest.approx((0.5 + 1 + 0.7) / 3)
    assert result.class_abo[:2] == pytest.approx((0.75, 0.7))
    assert math.isnan(result.class_abo[2])
    assert result.mabo == pytest.approx((0.75 + 0.7) / 2)
    assert (result.n_images, result.n_objects, result.mean_proposals) == (2, 3, 1.5)
    assert proposal_recall(dataset, proposals, difficult=True).n_objects == 4
    assert proposal_recall(dataset, proposals, limit=1).mean_proposals == 1


def test_missing_images_and_negative_limits_are_refused() -> None:
    dataset = Dataset("d", CLASSES, (sample_of("a", [], []),))
    with pytest.raises(EvaluationError, match="no proposals for image a"):
        proposal_recall(dataset, {})
    with pytest.raises(EvaluationError, match="limit of -1"):
        proposal_recall(dataset, {"a": NONE}, limit=-1)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(0, 5))
def test_recall_grows_with_the_limit_and_falls_with_the_threshold(seed: int, limit: int) -> None:
    dataset, detections = random_case(seed)
    found = {s.image_id: NONE for s in dataset} | {k: d.boxes for k, d in detections.items()}
    fewer = proposal_recall(dataset, found, thresholds=(0.3, 0.5, 0.7), limit=limit)
    more = proposal_recall(dataset, found, thresholds=(0.3, 0.5, 0.7), limit=limit + 1)
    if not fewer.n_objects:
        return
    assert list(fewer.recall) == sorted(fewer.recall, reverse=True)
    assert all(a <= b for a, b in zip(fewer.recall, more.recall, strict=True))
    assert fewer.abo <= more.abo
    assert fewer.mabo <= more.mabo


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6))
def test_best_overlaps_equals_a_loop_over_pairs(seed: int) -> None:
    dataset, detections = random_case(seed)
    for sample in dataset:
        if sample.image_id not in detections:
            continue
        proposals = detections[sample.image_id].boxes
        expected = []
        for ax1, ay1, ax2, ay2 in sample.boxes.tolist():
            best = 0.0
            for bx1, by1, bx2, by2 in proposals.tolist():
                w, h = min(ax2, bx2) - max(ax1, bx1), min(ay2, by2) - max(ay1, by1)
                if w > 0 and h > 0:
                    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - w * h
                    best = max(best, w * h / union)
            expected.append(best)
        assert best_overlaps(sample, proposals).tolist() == pytest.approx(expected, abs=1e-5)
