"""Transforms of images: what each random choice of training may and may not change."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.backbones.paper_networks import paper_network
from sppdet.classification.config import AugmentConfig
from sppdet.classification.transforms import (
    center_crop,
    center_square,
    principal_colors,
    random_crop,
    resize_short,
    resize_square,
    shift_colors,
    to_input,
)
from sppdet.core.errors import ConfigError
from sppdet.core.types import ImageArray

NO_COLORS = np.zeros((3, 3))
STILL = AugmentConfig(flip=0.0, color=0.0)


def noise(height: int, width: int, seed: int = 0) -> ImageArray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def crop(image: ImageArray, side: int, config: AugmentConfig, seed: int) -> ImageArray:
    return random_crop(image, side, config, NO_COLORS, np.random.default_rng(seed))


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40))
@settings(max_examples=80, deadline=None)
def test_the_short_side_is_as_asked_and_the_long_one_bounded(
    height: int, width: int, short_side: int
) -> None:
    out = resize_short(noise(height, width), short_side)
    assert out.dtype == np.uint8
    assert min(out.shape[:2]) == short_side
    assert max(out.shape[:2]) <= 4 * short_side


@pytest.mark.parametrize("shape", [(70, 50), (50, 70), (300, 40)])
def test_central_crops_are_those_of_testing(shape: tuple[int, int]) -> None:
    net, image = paper_network("zf5"), noise(*shape)
    mine = net.normalize(center_square(resize_short(image, 64), 56))
    theirs = center_crop(to_input(net, image, 64), 56)
    assert torch.equal(torch.from_numpy(mine).permute(2, 0, 1)[None], theirs)


@given(st.integers(0, 10**6), st.integers(8, 20), st.integers(8, 20))
@settings(max_examples=60, deadline=None)
def test_a_still_crop_is_a_corner_or_the_center(seed: int, height: int, width: int) -> None:
    image = noise(height, width)
    found = crop(image, 8, STILL, seed)
    y, x = height - 8, width - 8
    places = [(0, 0), (0, x), (y, 0), (y, x), (round(y / 2), round(x / 2))]
    assert any(np.array_equal(found, image[r : r + 8, c : c + 8]) for r, c in places)


def test_crops_anywhere_lie_inside_and_differ() -> None:
    image = noise(40, 50)
    config = AugmentConfig(crops="anywhere", flip=0.0, color=0.0)
    windows = np.lib.stride_tricks.sliding_window_view(image, (8, 8), (0, 1))
    places = set()
    for seed in range(40):
        found = crop(image, 8, config, seed).transpose(2, 0, 1)
        match = np.argwhere((windows == found).all(axis=(2, 3, 4)))
        assert len(match) == 1
        places.add(tuple(match[0].tolist()))
    assert len(places) > 30


def test_a_flip_flips_and_moves_nothing_else() -> None:
    image = noise(30, 20)
    for seed in range(20):
        still = crop(image, 16, STILL, seed)
        flipped = crop(image, 16, AugmentConfig(flip=1.0, color=0.0), seed)
        assert np.array_equal(flipped, still[:, ::-1])
    halves = [
        np.array_equal(crop(image, 16, AugmentConfig(color=0.0), s), crop(image, 16, STILL, s))
        for s in range(200)
    ]
    assert 70 < sum(halves) < 130


def test_one_seed_gives_one_crop_and_the_smaller_size_shows_the_same() -> None:
    image = resize_short(np.asarray(cv2.GaussianBlur(noise(300, 400), (0, 0), 6), np.uint8), 256)
    config, colors = AugmentConfig(), np.diag([20.0, 10.0, 5.0])
    large, again = (
        random_crop(image, 224, config, colors, np.random.default_rng(5)) for _ in range(2)
    )
    assert np.array_equal(large, again)
    small = resize_square(large, 180)
    assert small.shape == (180, 180, 3)
    back = resize_square(small, 224).astype(int)
    assert np.abs(back - large.astype(int)).mean() < 2
    assert resize_square(large, 224).tobytes() == large.tobytes()


def test_colors_are_shifted_alike_everywhere_and_clipped() -> None:
    image = np.array([[[0, 100, 250], [10, 20, 30]]], np.uint8)
    shifted = shift_colors(image, np.array([-5.4, 3.0, 10.0]))
    assert shifted.tolist() == [[[0, 103, 255], [5, 23, 40]]]
    assert np.array_equal(shift_colors(image, np.zeros(3)), image)


def test_color_shifts_have_the_deviation_asked_for() -> None:
    image = np.full((8, 8, 3), 128, np.uint8)
    config = AugmentConfig(flip=0.0, color=0.1)
    basis = np.diag([100.0, 200.0, 0.0])
    found = [
        random_crop(image, 8, config, basis, np.random.default_rng(s))[0, 0].astype(float) - 128
        for s in range(400)
    ]
    assert np.std(found, axis=0) == pytest.approx([10, 20, 0], rel=0.15)


def test_principal_colors_are_the_covariance_of_the_pixels() -> None:
    images = [noise(7, 9, seed) // (seed + 1) for seed in range(3)]
    for image in images:
        image[..., 1] = image[..., 0] // 2
    basis = principal_colors(images)
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]).astype(float)
    assert basis @ basis.T == pytest.approx(np.cov(pixels.T, bias=True), rel=1e-9, abs=1e-6)
    assert basis.T @ basis == pytest.approx(np.diag(np.diag(basis.T @ basis)), abs=1e-6)
    assert not principal_colors([]).any()


@pytest.mark.parametrize("changes", [{"enlarge": 0.9}, {"flip": 1.5}, {"color": -1.0}])
def test_bad_settings_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"augment.{next(iter(changes))}"):
        AugmentConfig(**changes)  # type: ignore[arg-type]
