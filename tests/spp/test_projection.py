"""Projection against the release's 1-based formula, and both rules of choosing a scale."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.backbones.receptive_field import ReceptiveField
from sppdet.core.types import FloatArray
from sppdet.spp.projection import Rule, project_boxes, select_scale

ZF5 = ReceptiveField(stride=16, offset=20.5)
NO_BOXES = np.zeros((0, 4), np.float32)


def release_cells(first: float, last: float, cells: int) -> tuple[int, int]:
    """The release's cells, 1-based inclusive, of 1-based inclusive pixels, as its code has them."""
    offset0, shrink, step = 21, 6.5, 16
    low = math.floor((first - offset0 + shrink) / step + 0.5) + 1
    high = math.ceil((last - offset0 - shrink) / step - 0.5) + 1
    if low > high:
        low = high = int((low + high) / 2)
    return min(max(low, 1), cells), min(max(high, 1), cells)


def paper_cells(first: int, last: int, cells: int) -> tuple[int, int]:
    """The paper's cells, 0-based inclusive, of 0-based pixels; cell 0 is centerd on pixel 0."""
    low, high = first // 16 + 1, -(-last // 16) - 1
    if low > high:
        low = high = (low + high) // 2
    return min(max(low, 0), cells - 1), min(max(high, 0), cells - 1)


def box_of(x1: float, y1: float, x2: float, y2: float) -> FloatArray:
    return np.array([[x1, y1, x2, y2]], np.float32)


@pytest.mark.parametrize("rule", ["release", "paper"])
def test_no_boxes(rule: Rule) -> None:
    assert project_boxes(NO_BOXES, 1.0, 1.0, ZF5, 3, 4, rule).shape == (0, 4)
    assert select_scale(NO_BOXES, 30, 40, (480, 600), rule).shape == (0,)


@given(st.integers(0, 900), st.integers(1, 900), st.sampled_from([1.0, 1.5, 2.25, 0.625]))
@settings(max_examples=500, deadline=None)
def test_equals_the_release(first: int, size: int, factor: float) -> None:
    # Half-open edges are a box's first and last pixel, 1-based: first + 1 and first + size.
    box = box_of(first, 0, first + size, 8)
    x1, _, x2, _ = project_boxes(box, factor, 1.0, ZF5, 5, 40)[0].tolist()
    expected = release_cells(first * factor + 1, (first + size) * factor, 40)
    assert (x1 + 1, x2) == expected


def test_full_224_image_is_13_cells_and_mean_widths_are_the_releases() -> None:
    assert project_boxes(box_of(0, 0, 224, 224), 1.0, 1.0, ZF5, 13, 13).tolist() == [[0, 0, 13, 13]]
    for width, expected in ((16, 1.125), (64, 4.125), (100, 6.375), (208, 13.125)):
        boxes = np.concatenate([box_of(400 + s, 0, 400 + s + width, 9) for s in range(16)])
        windows = project_boxes(boxes, 1.0, 1.0, ZF5, 60, 60)
        assert (windows[:, 2] - windows[:, 0]).mean() == expected


@given(st.integers(0, 900), st.integers(1, 900))
@settings(max_examples=300, deadline=None)
def test_equals_the_papers_rule_where_cell_0_is_centerd_on_pixel_0(first: int, size: int) -> None:
    geometry = ReceptiveField(stride=16, offset=0.5)
    window = project_boxes(box_of(0, first, 5, first + size), 1.0, 1.0, geometry, 40, 5, "paper")
    low, high = paper_cells(first, first + size - 1, 40)
    assert window[0, [1, 3]].tolist() == [low, high + 1]


coordinate = st.floats(-50, 2000, width=32)


@given(
    st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate), max_size=20),
    st.floats(0.05, 10),
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from([(8, 7.5), (12, 14.5), (16, 0.5), (16, 20.5), (32, 31.5)]),
    st.sampled_from(["release", "paper"]),
)
@settings(max_examples=200, deadline=None)
def test_windows_are_never_empty_and_stay_on_the_map(
    corners: list[tuple[float, float, float, float]],
    factor: float,
    height: int,
    width: int,
    lattice: tuple[int, float],
    rule: Rule,
) -> None:
    pairs = np.array(corners, np.float32).reshape(-1, 4)
    low, high = np.minimum(pairs[:, :2], pairs[:, 2:]), np.maximum(pairs[:, :2], pairs[:, 2:])
    boxes = np.concatenate([low, high], axis=1)
    windows = project_boxes(boxes, factor, factor, ReceptiveField(*lattice), height, width, rule)
    assert windows.dtype == np.int64
    assert (windows[:, :2] >= 0).all()
    assert (windows[:, 2:] > windows[:, :2]).all()
    assert (windows[:, 2:] <= [width, height]).all()


def test_scales_disagree_as_the_notes_of_both_rules_say() -> None:
    scales = (480, 576, 688, 874, 1200)
    for side, release, paper in ((100, 688, 864), (150, 480, 576)):
        box = box_of(0, 0, side, side)
        assert scales[select_scale(box, 500, 375, scales)[0]] == release
        with_864 = (480, 576, 688, 864, 1200)
        assert with_864[select_scale(box, 500, 375, with_864, "paper")[0]] == paper


@given(st.floats(1, 800), st.floats(1, 800))
@settings(max_examples=200, deadline=None)
def test_scale_equals_the_formula(width: float, height: float) -> None:
    scales, short = (480, 576, 688, 874, 1200), 375
    box = box_of(0, 0, width, height)
    area = float(box[0, 2]) * float(box[0, 3])
    wanted = math.floor(208 * short / math.sqrt(area) + 0.5)
    expected = min(scales, key=lambda scale: abs(scale - wanted))
    assert scales[select_scale(box, 500, short, scales)[0]] == expected
    expected = min(scales, key=lambda scale: abs(area * (scale / short) ** 2 - 224**2))
    assert scales[select_scale(box, 500, short, scales, "paper")[0]] == expected


def test_a_box_of_no_area_has_a_scale() -> None:
    assert select_scale(box_of(5, 5, 5, 9), 500, 375, (480, 1200)).tolist() == [1]


def test_overfeat_side() -> None:
    # A box whose area wants exactly the middle of two scales goes one way or the other with `side`.
    box = box_of(0, 0, 108, 108)
    assert select_scale(box, 400, 300, (550, 590), side=18 * 12).tolist() == [1]
    assert select_scale(box, 400, 300, (550, 590)).tolist() == [1]
    assert select_scale(box, 400, 300, (570, 610), side=18 * 12).tolist() == [1]
    assert select_scale(box, 400, 300, (570, 610)).tolist() == [0]
