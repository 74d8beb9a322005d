"""The maps of whole images: shapes, scale factors, channels in order, and odd images."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.errors import ConfigError
from sppdet.features import FeatureConfig, FeatureExtractor, FeatureMaps
from sppdet.types import ImageArray

SMALL = FeatureConfig(scales=(96,))


@cache
def extractor(config: FeatureConfig = SMALL) -> FeatureExtractor:
    return FeatureExtractor(config)


def image(height: int, width: int, seed: int = 0) -> ImageArray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def same(a: FeatureMaps, b: FeatureMaps) -> bool:
    return all(torch.equal(x.map, y.map) for x, y in zip(a.scaled, b.scaled, strict=True))


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((96, 96), (6, 6)),
        ((100, 150), (6, 9)),
        ((150, 100), (9, 6)),
        ((500, 500), (6, 6)),
        ((30, 40), (6, 8)),
    ],
)
def test_maps_have_the_size_of_the_resized_image(
    size: tuple[int, int], shape: tuple[int, int]
) -> None:
    height, width = size
    maps = extractor()(image(height, width))
    assert (maps.width, maps.height) == (width, height)
    (scaled,) = maps.scaled
    assert scaled.map.shape == (*shape, sum(extractor().channels.values()))
    assert scaled.map.dtype == torch.float32
    assert scaled.map.is_contiguous()
    assert not scaled.map.requires_grad
    # The factors are those of the resize: the short side becomes 96 pixels.
    short = scaled.factor_x if width <= height else scaled.factor_y
    assert short * min(size) == pytest.approx(96)
    assert scaled.factor_x == pytest.approx(scaled.factor_y, rel=0.01)


def test_channels_are_those_of_the_taps_in_order() -> None:
    whole = extractor(FeatureConfig(taps=("bottleneck", "stage5"), scales=(96,), eight_bits=False))
    assert whole.config.taps == ("bottleneck", "stage5")
    assert dict(whole.channels) == {"bottleneck": 352, "stage5": 120}
    photo = image(64, 80)
    x, factor_x, factor_y = whole.backbone.preprocess(photo, 96)
    maps = whole(photo).scaled[0]
    assert (maps.factor_x, maps.factor_y) == (factor_x, factor_y)
    start = 0
    for tap, width in whole.channels.items():
        with torch.inference_mode():
            alone = whole.backbone(x, (tap,))[tap][0].permute(1, 2, 0)
        found = maps.map[..., start : start + width]
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-4)
        start += width


def test_each_scale_is_a_pass_of_its_own() -> None:
    photo = image(60, 90)
    several = extractor(FeatureConfig(scales=(128, 64)))(photo)
    assert [one.map.shape[0] for one in several.scaled] == [8, 4]
    for scale, found in zip((128, 64), several.scaled, strict=True):
        (alone,) = extractor(FeatureConfig(scales=(scale,)))(photo).scaled
        assert torch.equal(found.map, alone.map)
        assert (found.factor_x, found.factor_y) == (alone.factor_x, alone.factor_y)


def test_maps_are_a_function_of_the_image() -> None:
    again = FeatureExtractor(SMALL)
    assert same(extractor()(image(50, 70)), again(image(50, 70)))
    assert not same(extractor()(image(50, 70)), again(image(50, 70, seed=1)))


def test_the_digest_tells_configs_and_weights_apart() -> None:
    def digest(seed: int = 0, **changes: object) -> str:
        config = FeatureConfig(backbone="zf5", pretrained=False, taps=("conv",), **changes)  # type: ignore[arg-type]
        return FeatureExtractor(config, seed=seed).digest()

    assert digest() == digest()
    assert len({digest(), digest(seed=1), digest(scales=(480,)), digest(max_elongation=2.0)}) == 4


@settings(max_examples=100, deadline=None)
@given(
    width=st.integers(1, 20_000), height=st.integers(1, 20_000), scale=st.sampled_from([96, 600])
)
def test_long_images_are_resized_less(width: int, height: int, scale: int) -> None:
    whole = extractor()
    side = whole.short_side(width, height, scale)
    elongation = max(width, height) / min(width, height)
    assert 1 <= side <= scale
    if elongation <= whole.config.max_elongation:
        assert side == scale
    elif side > 1:
        # Rounding the short side moves the long one by half of the elongation.
        longest = scale * whole.config.max_elongation
        assert abs(side * elongation - longest) <= elongation / 2 + 1e-6


def test_the_elongation_cap_reaches_the_network() -> None:
    (scaled,) = extractor()(image(20, 200)).scaled
    height, width = scaled.map.shape[:2]
    assert (height, width) == (1, 10)
    assert scaled.factor_x == pytest.approx(0.8)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 200), (2, 2)])
def test_odd_images_have_finite_maps(size: tuple[int, int]) -> None:
    for photo in (image(*size), np.zeros((*size, 3), np.uint8), np.full((*size, 3), 255, np.uint8)):
        (scaled,) = extractor()(photo).scaled
        assert scaled.map.numel() > 0
        assert torch.isfinite(scaled.map).all()
        assert scaled.factor_x > 0
        assert scaled.factor_y > 0


def test_read_only_images_and_views_are_taken() -> None:
    photo = image(80, 80)
    whole = extractor()(photo[::2, ::-1])
    frozen = photo[::2, ::-1].copy()
    frozen.setflags(write=False)
    assert same(whole, extractor()(frozen))


def test_half_precision_keeps_the_rest() -> None:
    maps = extractor()(image(64, 64))
    half = maps.to(torch.float16)
    assert half.scaled[0].map.dtype == torch.float16
    assert maps.scaled[0].map.dtype == torch.float32
    assert torch.equal(half.scaled[0].map, maps.scaled[0].map.half())
    assert half.scaled[0].factor_x == maps.scaled[0].factor_x
    assert (half.width, half.height) == (maps.width, maps.height)


@pytest.mark.parametrize(
    "values",
    [
        {"taps": ()},
        {"taps": ("stage5", "stage5")},
        {"scales": ()},
        {"scales": (600, 0)},
        {"max_elongation": 0.5},
    ],
)
def test_impossible_settings_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        FeatureConfig(**values)  # type: ignore[arg-type]


def test_unknown_maps_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"no map 'conv5'.*stage5"):
        FeatureExtractor(FeatureConfig(taps=("bottleneck", "conv5")))


def test_maps_of_different_strides_are_refused() -> None:
    with pytest.raises(ConfigError, match="different strides"):
        FeatureExtractor(FeatureConfig(taps=("bottleneck", "stage3")))
