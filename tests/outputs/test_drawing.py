"""Drawing: what is touched, what is not, and every degenerate box."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.types import Detections, ImageArray
from sppdet.outputs.drawing import class_color, draw_detections, ink_color, luminance

CLASSES = ("cat", "dog", "a class with quite a long name")


def _detections(rows: list[tuple[float, float, float, float, float, int]]) -> Detections:
    table = np.array(rows, dtype=np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64), CLASSES)


def _gray(width: int, height: int) -> ImageArray:
    return np.full((height, width, 3), 128, np.uint8)


def test_no_detections_leave_the_image_as_it_was() -> None:
    image = _gray(30, 20)
    out = draw_detections(image, _detections([]))
    assert np.array_equal(out, image)
    assert out is not image


def test_the_frame_lies_on_the_boxs_own_pixels() -> None:
    image = _gray(400, 300)
    out = draw_detections(image, _detections([(100, 150, 200, 250, 1.0, 1)]))
    color = np.array(class_color(1))
    assert (out[150:250, 100] == color).all()
    assert (out[150:250, 199] == color).all()
    assert (out[249, 100:200] == color).all()
    assert (out[150:250, 99] == 128).all()
    assert (out[150:250, 200] == 128).all()
    assert (out[160:240, 110:190] == 128).all()
    assert (image == 128).all()


def test_the_threshold_leaves_lower_scores_out() -> None:
    image = _gray(200, 200)
    both = _detections([(0, 50, 90, 150, 0.5, 0), (110, 50, 190, 150, -0.5, 1)])
    out = draw_detections(image, both, 0.0)
    assert (out[:, 110:] == 128).all()
    assert np.array_equal(out, draw_detections(image, both.above(0.5)))


def test_the_best_scored_is_on_top() -> None:
    box = (10, 50, 90, 150)
    out = draw_detections(_gray(100, 200), _detections([(*box, 2.0, 0), (*box, 1.0, 1)]))
    assert (out[149, 50] == class_color(0)).all()


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    corner=st.tuples(st.floats(-50, 90), st.floats(-50, 90)),
    extent=st.tuples(st.floats(0, 120), st.floats(0, 120)),
    label=st.integers(0, 2),
)
def test_any_box_on_any_image_is_drawn(
    size: tuple[int, int],
    corner: tuple[float, float],
    extent: tuple[float, float],
    label: int,
) -> None:
    box = (*corner, corner[0] + extent[0], corner[1] + extent[1])
    out = draw_detections(_gray(*size), _detections([(*box, 0.0, label)]))
    assert out.shape == (size[1], size[0], 3)
    assert out.dtype == np.uint8
    assert (out != 128).any()


def test_class_colors_are_told_apart() -> None:
    colors = np.array([class_color(k) for k in range(20)], dtype=float)
    apart = np.linalg.norm(colors[:, None] - colors[None], axis=2) + 1e3 * np.eye(20)
    assert apart.min() > 25


def test_labels_stay_inside_and_grow_with_the_image() -> None:
    heights = []
    for side in (200, 1000):
        far = _detections([(side - 12, side - 12, side, side, 0.5, 2)])
        rows, columns = np.nonzero((draw_detections(_gray(side, side), far) != 128).any(axis=2))
        assert columns.min() < side / 2  # all of the long name, though the box is at the right
        heights.append(rows.max() - rows.min())
    assert heights[1] > 2 * heights[0]


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_labels_stand_out_from_their_background(color: tuple[int, int, int]) -> None:
    light, dark = sorted((luminance(color), luminance(ink_color(color))), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.mark.parametrize("label", [0, 1, 2])
def test_a_frame_stands_out_from_its_own_color(label: int) -> None:
    image = np.full((200, 300, 3), class_color(label), np.uint8)
    out = draw_detections(image, _detections([(50, 60, 250, 180, 1.0, label)]))
    assert (out[120, 50:60] == ink_color(class_color(label))).all(axis=-1).any()


@pytest.mark.parametrize("name", ["кот", "a\nb", "", "\U00013000", "猫" * 40, "x" * 400])
def test_any_class_name_is_drawn(name: str) -> None:
    box = np.array([[5, 30, 60, 70]], np.float32)
    found = Detections(box, np.ones(1, np.float32), np.zeros(1, np.int64), (name,))
    out = draw_detections(_gray(100, 80), found)
    assert (out[:30] != 128).any()
