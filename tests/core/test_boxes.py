"""The laws of box geometry, and overlaps against exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sppdet.core.boxes import (
    MAX_LOG_SCALE,
    areas,
    box_iou,
    clip,
    decode_deltas,
    encode_deltas,
    expand,
    flip,
    paired_iou,
)
from sppdet.core.types import FloatArray
from tests.helpers.region_cases import random_boxes

NONE = np.zeros((0, 4), np.float32)
WIDTH, HEIGHT = 150, 100


def _ordered(corners: FloatArray) -> FloatArray:
    first, second = corners[:, :2], corners[:, 2:]
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=1)


def boxes_of(
    elements: st.SearchStrategy[float], count: int | None = None
) -> st.SearchStrategy[FloatArray]:
    rows = st.integers(0, 6) if count is None else st.just(count)
    shapes = st.tuples(rows, st.just(4))
    return hnp.arrays(np.float32, shapes, elements=elements).map(_ordered)


cells = boxes_of(st.integers(0, 30).map(float))
pixels = boxes_of(st.floats(-2000, 5000, width=32, allow_subnormal=False))


def sided(low: float, high: float) -> st.SearchStrategy[FloatArray]:
    """One box in image pixels, its sides between `low` and `high`."""
    place = st.floats(-1000, 4000, width=32)
    side = st.floats(low, high, width=32)
    return st.tuples(place, place, side, side).map(
        lambda v: np.array([[v[0], v[1], v[0] + v[2], v[1] + v[3]]], np.float32)
    )


def exact_iou(a: FloatArray, b: FloatArray) -> Fraction:
    ax1, ay1, ax2, ay2 = (Fraction(float(v)) for v in a)
    bx1, by1, bx2, by2 = (Fraction(float(v)) for v in b)
    inter = max(Fraction(0), min(ax2, bx2) - max(ax1, bx1)) * max(
        Fraction(0), min(ay2, by2) - max(ay1, by1)
    )
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - inter
    return inter / union if union else Fraction(0)


def test_no_boxes() -> None:
    some = np.array([[0, 0, 2, 2]], np.float32)
    assert areas(NONE).shape == (0,)
    assert box_iou(NONE, some).shape == (0, 1)
    assert box_iou(some, NONE).shape == (1, 0)
    for out in (
        clip(NONE, 5, 5),
        flip(NONE, 5),
        encode_deltas(NONE, NONE),
        decode_deltas(NONE, NONE),
    ):
        assert out.shape == (0, 4)
        assert out.dtype == np.float32


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1),
        ([0, 0, 2, 2], [2, 0, 4, 2], 0),  # half-open: touching is not overlapping
        ([0, 0, 2, 2], [1, 0, 3, 2], 1 / 3),
        ([0, 0, 4, 4], [1, 1, 3, 3], 1 / 4),
        ([1, 1, 1, 1], [1, 1, 1, 1], 0),  # no area
        ([1, 0, 1, 5], [0, 0, 5, 5], 0),
    ],
)
def test_iou_by_hand(a: list[int], b: list[int], expected: float) -> None:
    out = box_iou(np.array([a], np.float32), np.array([b], np.float32))
    assert out == pytest.approx(np.array([[expected]]))


@given(a=cells, b=cells)
def test_iou_is_the_exact_one_rounded(a: FloatArray, b: FloatArray) -> None:
    out = box_iou(a, b)
    assert out.dtype == np.float32
    for i, j in np.ndindex(out.shape):
        assert out[i, j] == np.float32(float(exact_iou(a[i], b[j])))


@given(a=pixels, b=pixels)
def test_iou_laws(a: FloatArray, b: FloatArray) -> None:
    out = box_iou(a, b)
    assert ((out >= 0) & (out <= 1)).all()
    np.testing.assert_array_equal(out, box_iou(b, a).T)
    own = np.diagonal(box_iou(a, a))
    np.testing.assert_array_equal(own, (areas(a) > 0).astype(np.float32))


@given(a=cells, b=cells)
def test_paired_iou_is_the_exact_one_row_by_row(a: FloatArray, b: FloatArray) -> None:
    count = min(len(a), len(b))
    out = paired_iou(a[:count], b[:count])
    assert out.dtype == np.float64
    assert out.tolist() == [float(exact_iou(a[i], b[i])) for i in range(count)]


@given(boxes=pixels)
def test_areas_are_not_negative(boxes: FloatArray) -> None:
    assert (areas(boxes) >= 0).all()


@given(boxes=pixels, width=st.integers(1, 3000), height=st.integers(1, 3000))
def test_clipped_boxes_lie_in_the_image(boxes: FloatArray, width: int, height: int) -> None:
    out = clip(boxes, width, height)
    assert out.dtype == np.float32
    assert (out >= 0).all()
    assert (out <= [width, height, width, height]).all()
    assert (out[:, :2] <= out[:, 2:]).all()
    np.testing.assert_array_equal(clip(out, width, height), out)
    inside = (boxes >= 0).all(axis=1) & (boxes <= [width, height, width, height]).all(axis=1)
    np.testing.assert_array_equal(out[inside], boxes[inside])


@given(boxes=cells, width=st.integers(1, 5000))
def test_flipping_twice_gives_the_boxes_back(boxes: FloatArray, width: int) -> None:
    once = flip(boxes, width)
    np.testing.assert_array_equal(flip(once, width), boxes)
    np.testing.assert_array_equal(areas(once), areas(boxes))
    np.testing.assert_array_equal(once[:, [1, 3]], boxes[:, [1, 3]])


def test_flipping_mirrors_pixels() -> None:
    image = np.arange(7 * 5).reshape(5, 7)
    box = np.array([[1, 2, 4, 5]], np.float32)
    x1, y1, x2, y2 = flip(box, 7)[0].astype(int)
    np.testing.assert_array_equal(image[:, ::-1][y1:y2, x1:x2], image[2:5, 1:4][:, ::-1])
    np.testing.assert_array_equal(box, [[1, 2, 4, 5]])


@given(target=sided(20, 500), box=sided(20, 500))
def test_decode_undoes_encode(target: FloatArray, box: FloatArray) -> None:
    found = decode_deltas(encode_deltas(target, box), box)
    np.testing.assert_allclose(found, target, rtol=1e-5, atol=0.02)


@given(box=sided(1, 500))
def test_no_offset_means_no_move(box: FloatArray) -> None:
    np.testing.assert_array_equal(encode_deltas(box, box), np.zeros((1, 4)))
    np.testing.assert_allclose(decode_deltas(np.zeros((1, 4), np.float32), box), box, atol=1e-3)


def test_encode_by_hand() -> None:
    box = np.array([[10, 20, 20, 40]], np.float32)
    target = np.array([[15, 20, 35, 30]], np.float32)
    expected = [[1.0, -0.25, np.log(2), np.log(0.5)]]
    np.testing.assert_allclose(encode_deltas(target, box), expected, atol=1e-6)


@given(
    offsets=hnp.arrays(np.float32, (1, 4), elements=st.floats(-1e6, 1e6, width=32)),
    box=sided(1, 500),
)
def test_nonsense_offsets_stay_boxes(offsets: FloatArray, box: FloatArray) -> None:
    out = decode_deltas(offsets, box)
    assert np.isfinite(out).all()
    assert (out[:, :2] <= out[:, 2:]).all()
    grown = (out[:, 2:] - out[:, :2]) / (box[:, 2:] - box[:, :2])
    center = np.abs(out).max()
    assert (grown <= np.exp(MAX_LOG_SCALE) * 1.001 + 1e-6 * center).all()


@given(target=sided(20, 500), box=sided(20, 500), width=st.integers(1, 2000))
def test_a_mirrored_image_mirrors_the_offset(
    target: FloatArray, box: FloatArray, width: int
) -> None:
    plain = encode_deltas(target, box)
    mirrored = encode_deltas(flip(target, width), flip(box, width))
    np.testing.assert_allclose(mirrored, plain * [-1, 1, 1, 1], rtol=1e-3, atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), factor=st.floats(1, 5))
def test_grown_boxes_hold_the_box_and_stay_in_the_image(seed: int, factor: float) -> None:
    boxes = random_boxes(8, WIDTH, HEIGHT, seed)
    grown = expand(boxes, factor, WIDTH, HEIGHT)
    assert grown.dtype == np.float32
    tolerance = 1e-4
    assert (grown[:, :2] <= boxes[:, :2] + tolerance).all()
    assert (grown[:, 2:] >= boxes[:, 2:] - tolerance).all()
    assert (grown >= 0).all()
    assert (grown <= [WIDTH, HEIGHT, WIDTH, HEIGHT]).all()


def test_growing_by_hand() -> None:
    boxes = np.array([[40, 40, 60, 50], [0, 0, 20, 20]], np.float32)
    np.testing.assert_allclose(
        expand(boxes, 2.0, WIDTH, HEIGHT), [[30, 35, 70, 55], [0, 0, 30, 30]]
    )
    np.testing.assert_array_equal(expand(boxes, 1.0, WIDTH, HEIGHT), boxes)
