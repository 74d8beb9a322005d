from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.types import ImageArray
from sppdet.proposals.color_spaces import COLOR_SPACES, convert_color, resized_shape, shrink


def noise(height: int, width: int, seed: int = 0) -> ImageArray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 10**5))
def test_resized_shape_fits_and_never_enlarges(width: int, height: int, area: int) -> None:
    new_width, new_height = resized_shape(width, height, area)
    assert 1 <= new_width <= width
    assert 1 <= new_height <= height
    assert new_width * new_height <= area
    if width * height <= area:
        assert (new_width, new_height) == (width, height)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (500, 375, (200, 150)),
        (375, 500, (150, 200)),
        (5472, 3648, (212, 141)),
        (200, 150, (200, 150)),
    ],
)
def test_resized_shape_of_usual_photos(width: int, height: int, expected: tuple[int, int]) -> None:
    assert resized_shape(width, height, 30_000) == expected


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_shrink_is_the_mean_of_the_covered_area(
    height: int, width: int, data: st.DataObject
) -> None:
    new_height = data.draw(st.integers(1, height))
    new_width = data.draw(st.integers(1, width))
    image = noise(height, width, data.draw(st.integers(0, 99)))
    small = shrink(image, new_width, new_height)
    for y in range(new_height):
        for x in range(new_width):
            exact = area_mean(image, x, y, new_width, new_height)
            assert all(
                abs(Fraction(int(v)) - e) <= Fraction(51, 100)
                for v, e in zip(small[y, x], exact, strict=True)
            )


def area_mean(image: ImageArray, x: int, y: int, width: int, height: int) -> list[Fraction]:
    """The exact mean of image pixels under pixel (x, y) of a `width` x `height` version of it."""
    tall, wide = image.shape[:2]

    def overlap(i: int, position: int, size: int, full: int) -> Fraction:
        low, high = Fraction(position * full, size), Fraction((position + 1) * full, size)
        return max(Fraction(0), min(high, Fraction(i + 1)) - max(low, Fraction(i)))

    total = [Fraction(0)] * 3
    for j in range(tall):
        for i in range(wide):
            share = overlap(j, y, height, tall) * overlap(i, x, width, wide)
            total = [t + share * int(v) for t, v in zip(total, image[j, i], strict=True)]
    return [t * Fraction(width * height, tall * wide) for t in total]


def test_shrink_to_the_same_size_changes_nothing() -> None:
    image = noise(7, 5)
    np.testing.assert_array_equal(shrink(image, 5, 7), image)


def test_shrink_does_not_overflow_on_a_white_photo() -> None:
    white = np.full((4000, 5000, 3), 255, np.uint8)
    assert (shrink(white, 194, 155) == 255).all()


@pytest.mark.parametrize("space", COLOR_SPACES)
def test_convert_keeps_size_and_type(space: str) -> None:
    view = convert_color(noise(4, 6), space)
    assert view.shape == (4, 6, 3)
    assert view.dtype == np.uint8
