"""The maps of whole images: shapes, scale factors, channels in order, and odd images."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.backbones.feature_maps import (
    FeatureConfig,
    FeatureExtractor,
    FeatureMaps,
)
from sppdet.core.errors import ConfigError
from sppdet.core.types import ImageArray

SMALL = FeatureConfig(scales=(96,))


@cache
def extractor(config: FeatureConfig = SMALL) -> FeatureExtractor:
    return FeatureExtractor(config)


def image(height: int, width: int, seed: int = 0) -> ImageArray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def same(a: FeatureMaps, b: FeatureMaps) -> bool:
    return all(torch.equal(x.values, y.values) for x, y in zip(a.maps, b.maps, strict=True))


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
    (one,) = maps.maps
    assert one.values.shape == (*shape, sum(extractor().channels.values()))
    assert one.values.dtype == torch.float32
    assert one.values.is_contiguous()
    assert not one.values.requires_grad
    # The factors are those of the resize: the short side becomes 96 pixels.
    short = one.scale_x if width <= height else one.scale_y
    assert short * min(size) == pytest.approx(96)
    assert one.scale_x == pytest.approx(one.scale_y, rel=0.01)


def test_channels_are_those_of_the_layers_in_order() -> None:
    whole = extractor(FeatureConfig(layers=("bottleneck", "stage5"), scales=(96,), quantize=False))
    assert whole.config.layers == ("bottleneck", "stage5")
    assert dict(whole.channels) == {"bottleneck": 352, "stage5": 120}
    photo = image(64, 80)
    x, factor_x, factor_y = whole.backbone.preprocess(photo, 96)
    maps = whole(photo).maps[0]
    assert (maps.scale_x, maps.scale_y) == (factor_x, factor_y)
    start = 0
    for layer, width in whole.channels.items():
        with torch.inference_mode():
            alone = whole.backbone(x, (layer,))[layer][0].permute(1, 2, 0)
        found = maps.values[..., start : start + width]
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-4)
        start += width


def test_each_scale_is_a_pass_of_its_own() -> None:
    photo = image(60, 90)
    several = extractor(FeatureConfig(scales=(128, 64)))(photo)
    assert [one.values.shape[0] for one in several.maps] == [8, 4]
    for scale, found in zip((128, 64), several.maps, strict=True):
        (alone,) = extractor(FeatureConfig(scales=(scale,)))(photo).maps
        assert torch.equal(found.values, alone.values)
        assert (found.scale_x, found.scale_y) == (alone.scale_x, alone.scale_y)


def test_maps_are_a_function_of_the_image() -> None:
    again = FeatureExtractor(SMALL)
    assert same(extractor()(image(50, 70)), again(image(50, 70)))
    assert not same(extractor()(image(50, 70)), again(image(50, 70, seed=1)))


def test_the_key_tells_configs_and_weights_apart() -> None:
    def key(seed: int = 0, **changes: object) -> str:
        config = FeatureConfig(backbone="zf5", pretrained=False, layers=("conv",), **changes)  # type: ignore[arg-type]
        return FeatureExtractor(config, seed=seed).key

    assert key() == key()
    others = {key(), key(seed=1), key(quantize=False), key(max_aspect_ratio=2.0)}
    assert len(others) == 4
    # Each map has its scale by itself, and where weights come from changes no map.
    assert key(scales=(480,)) == key(download=True) == key()


def test_scales_that_are_asked_for_replace_the_configured_ones() -> None:
    photo = image(60, 90)
    found = extractor()(photo, (128, 64))
    assert found.scales == (128, 64)
    assert extractor()(photo).scales == (96,)
    assert same(found, extractor(FeatureConfig(scales=(128, 64)))(photo))
    for scale, one in zip((128, 64), found.maps, strict=True):
        assert torch.equal(extractor().at_scale(photo, scale).values, one.values)
    second = found.only(1)
    assert (second.scales, second.width, second.height) == ((64,), 90, 60)
    assert second.maps[0] is found.maps[1]


def test_a_loaded_backbone_is_used_again() -> None:
    other = FeatureExtractor(SMALL.replace(scales=(64,)), backbone=extractor().backbone)
    assert other.backbone is extractor().backbone
    assert other.key == extractor().key
    assert same(other(image(50, 70)), extractor()(image(50, 70), (64,)))


@settings(max_examples=100, deadline=None)
@given(
    width=st.integers(1, 20_000), height=st.integers(1, 20_000), scale=st.sampled_from([96, 600])
)
def test_long_images_are_resized_less(width: int, height: int, scale: int) -> None:
    whole = extractor()
    side = whole.resized_side(width, height, scale)
    ratio = max(width, height) / min(width, height)
    assert 1 <= side <= scale
    if ratio <= whole.config.max_aspect_ratio:
        assert side == scale
    elif side > 1:
        # Rounding the short side moves the long one by half of the aspect ratio.
        longest = scale * whole.config.max_aspect_ratio
        assert abs(side * ratio - longest) <= ratio / 2 + 1e-6


def test_the_aspect_ratio_cap_reaches_the_network() -> None:
    (one,) = extractor()(image(20, 200)).maps
    height, width = one.values.shape[:2]
    assert (height, width) == (1, 10)
    assert one.scale_x == pytest.approx(0.8)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 200), (2, 2)])
def test_odd_images_have_finite_maps(size: tuple[int, int]) -> None:
    for photo in (image(*size), np.zeros((*size, 3), np.uint8), np.full((*size, 3), 255, np.uint8)):
        (one,) = extractor()(photo).maps
        assert one.values.numel() > 0
        assert torch.isfinite(one.values).all()
        assert one.scale_x > 0
        assert one.scale_y > 0


def test_read_only_images_and_views_are_taken() -> None:
    photo = image(80, 80)
    whole = extractor()(photo[::2, ::-1])
    frozen = photo[::2, ::-1].copy()
    frozen.setflags(write=False)
    assert same(whole, extractor()(frozen))


def test_half_precision_keeps_the_rest() -> None:
    maps = extractor()(image(64, 64))
    half = maps.to(torch.float16)
    assert half.maps[0].values.dtype == torch.float16
    assert maps.maps[0].values.dtype == torch.float32
    assert torch.equal(half.maps[0].values, maps.maps[0].values.half())
    assert half.maps[0].scale_x == maps.maps[0].scale_x
    assert (half.width, half.height) == (maps.width, maps.height)


@pytest.mark.parametrize(
    "values",
    [
        {"layers": ()},
        {"layers": ("stage5", "stage5")},
        {"scales": ()},
        {"scales": (600, 0)},
        {"max_aspect_ratio": 0.5},
    ],
)
def test_impossible_settings_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        FeatureConfig(**values)  # type: ignore[arg-type]


def test_unknown_maps_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"no map 'conv5'.*stage5"):
        FeatureExtractor(FeatureConfig(layers=("bottleneck", "conv5")))


def test_maps_of_different_strides_are_refused() -> None:
    with pytest.raises(ConfigError, match="different strides"):
        FeatureExtractor(FeatureConfig(layers=("bottleneck", "stage3")))
