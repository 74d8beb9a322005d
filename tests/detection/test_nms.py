"""Soft-NMS against a restatement in plain Python, and its limits; NMS against torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torchvision.ops import nms as torchvision_nms

from sppdet.core.boxes import box_iou
from sppdet.core.types import FloatArray
from sppdet.detection.nms import APART, nms, soft_nms


def some(seed: int, count: int) -> tuple[FloatArray, FloatArray]:
    """Boxes in a small field, so that many overlap, and their scores."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 20, (count, 2))
    boxes = np.concatenate([corners, corners + rng.integers(1, 15, (count, 2))], axis=1)
    return boxes.astype(np.float32), rng.normal(0, 2, count).astype(np.float32)


def plain(
    boxes: FloatArray, scores: FloatArray, strength: float, floor: float, most: int
) -> list[tuple[int, float]]:
    left = {index: float(score) for index, score in enumerate(scores)}
    overlaps = box_iou(boxes.astype(np.float64), boxes.astype(np.float64))
    kept: list[tuple[int, float]] = []
    while left and len(kept) < most:
        best = max(left, key=lambda index: left[index])
        if left[best] <= floor:
            break
        kept.append((best, left.pop(best)))
        for index in left:
            iou = overlaps[best, index]
            left[index] -= iou**2 / strength if iou > APART else 0
    return kept


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 25),
    strength=st.sampled_from([0.05, 0.2, 1.0]),
    floor=st.sampled_from([-4.0, -1.0, 0.5]),
    most=st.integers(1, 30),
)
def test_it_is_its_restatement(
    seed: int, count: int, strength: float, floor: float, most: int
) -> None:
    boxes, scores = some(seed, count)
    kept, lowered = soft_nms(boxes, scores, strength, floor, most)
    expected = plain(boxes, scores, strength, floor, most)
    assert kept.tolist() == [index for index, _ in expected]
    np.testing.assert_allclose(lowered, [score for _, score in expected], rtol=1e-5, atol=1e-5)
    assert (np.diff(lowered) <= 0).all()
    assert (lowered <= scores[kept]).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 60), iou=st.floats(0.05, 0.95))
def test_the_greedy_kind_is_torchvisions(seed: int, count: int, iou: float) -> None:
    boxes, scores = some(seed, count)
    # torchvision's IoUs are float32.
    assume(np.abs(box_iou(boxes, boxes) - iou).min(initial=1.0) > 1e-6)
    expected = torchvision_nms(torch.from_numpy(boxes), torch.from_numpy(scores), iou)
    assert nms(boxes, scores, iou).tolist() == expected.tolist()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_without_mercy_it_is_the_greedy_kind(seed: int) -> None:
    boxes, scores = some(seed, 25)
    kept, lowered = soft_nms(boxes, scores, 1e-6, -100.0, 25)
    assert kept.tolist() == nms(boxes, scores, APART).tolist()
    np.testing.assert_array_equal(lowered, scores[kept])


def test_what_lies_apart_keeps_its_score() -> None:
    boxes = np.array([[0, 0, 10, 10], [8, 0, 18, 10], [30, 0, 40, 10]], np.float32)
    kept, lowered = soft_nms(boxes, np.array([1, 3, 2], np.float32), 0.1, -9.0, 9)
    assert kept.tolist() == [1, 2, 0]
    assert lowered.tolist() == [3, 2, 1]


def test_of_equal_scores_the_first_is_better() -> None:
    boxes = np.array([[0, 0, 10, 10]] * 3, np.float32)
    kept, lowered = soft_nms(boxes, np.ones(3, np.float32), 0.5, -9.0, 9)
    assert kept.tolist() == [0, 1, 2]
    # Each of the better boxes takes 1 / 0.5.
    assert lowered == pytest.approx([1, -1, -3])
