"""Drawing: what is touched, what is not, and every degenerate box."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.types import Detections, ImageArray
from sppdet.visualise import class_colour, draw, grid

CLASSES = ("cat", "dog", "a class with quite a long name")


def _detections(rows: list[tuple[float, float, float, float, float, int]]) -> Detections:
    table = np.array(rows, dtype=np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64), CLASSES)


def _grey(width: int, height: int) -> ImageArray:
    return np.full((height, width, 3), 128, np.uint8)


def test_no_detections_leave_the_image_as_it_was() -> None:
    image = _grey(30, 20)
    out = draw(image, _detections([]))
    assert np.array_equal(out, image)
    assert out is not image


def test_the_frame_lies_on_the_boxs_own_pixels() -> None:
    image = _grey(400, 300)
    out = draw(image, _detections([(100, 150, 200, 250, 1.0, 1)]))
    colour = np.array(class_colour(1))
    assert (out[150:250, 100] == colour).all()
    assert (out[150:250, 199] == colour).all()
    assert (out[249, 100:200] == colour).all()
    assert (out[150:250, 99] == 128).all()
    assert (out[150:250, 200] == 128).all()
    assert (out[160:240, 110:190] == 128).all()
    assert (image == 128).all()


def test_the_threshold_leaves_lower_scores_out() -> None:
    image = _grey(200, 200)
    both = _detections([(0, 50, 90, 150, 0.5, 0), (110, 50, 190, 150, -0.5, 1)])
    out = draw(image, both, 0.0)
    assert (out[:, 110:] == 128).all()
    assert np.array_equal(out, draw(image, both.above(0.5)))


def test_the_best_scored_is_on_top() -> None:
    box = (10, 50, 90, 150)
    out = draw(_grey(100, 200), _detections([(*box, 2.0, 0), (*box, 1.0, 1)]))
    assert (out[149, 50] == class_colour(0)).all()


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
    out = draw(_grey(*size), _detections([(*box, 0.0, label)]))
    assert out.shape == (size[1], size[0], 3)
    assert out.dtype == np.uint8
    assert (out != 128).any()


def test_class_colours_are_told_apart() -> None:
    colours = np.array([class_colour(k) for k in range(20)], dtype=float)
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=2) + 1e3 * np.eye(20)
    assert apart.min() > 25


def test_grid_places_every_image() -> None:
    images = [
        np.full((h, w, 3), k, np.uint8) for k, (w, h) in enumerate([(50, 100), (80, 40), (9, 9)])
    ]
    sheet = grid(images, 2, cell=64, gap=4)
    assert sheet.shape == (4 + 64 + 4 + 64 + 4, 4 + 64 + 4 + 64 + 4, 3)
    assert [(sheet == k).all(axis=2).sum() for k in range(3)] == [32 * 64, 64 * 32, 64 * 64]


def test_grid_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="needs an image"):
        grid([], 3)
