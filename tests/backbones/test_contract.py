"""What holds of every backbone: channels, receptive fields, finite maps, compiled as it is."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sppdet.backbones import BACKBONES, Backbone, load_backbone
from sppdet.backbones.base import resized_shape
from sppdet.core.errors import ConfigError


@cache
def random_backbone(name: str) -> Backbone:
    """Load a network of random weights; nothing may change it for good."""
    return load_backbone(name, pretrained=False)


def assert_near(found: Tensor, expected: Tensor) -> None:
    """Equal up to rounding; activations of random weights may be of any size."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def images(count: int, height: int, width: int) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", BACKBONES)
def test_there_is_a_geometry_for_every_layer(name: str) -> None:
    net = random_backbone(name)
    assert net.name == name
    assert net.default_layer in net.channels
    assert set(net.geometries) == set(net.channels)
    assert net.geometry is net.geometries[net.default_layer]
    assert all(field.stride > 0 for field in net.geometries.values())
    assert net.min_side >= 1


@pytest.mark.parametrize("name", BACKBONES)
def test_compiled_it_computes_the_same(name: str) -> None:
    net = random_backbone(name)
    x = images(1, 90, 70)
    maps = net(x, net.channels)
    # Of unknown ranges, nothing is rounded.
    for quantize in (False, True):
        found = net.compile(net.channels, quantize=quantize)(x)
        assert set(found) == set(maps)
        for layer, values in found.items():
            assert not values.requires_grad
            assert_near(values, maps[layer])
    (alone,) = net.compile([net.default_layer])(x).values()
    assert_near(alone, maps[net.default_layer])


@pytest.mark.parametrize("name", BACKBONES)
def test_images_of_a_batch_do_not_depend_on_each_other(name: str) -> None:
    net = random_backbone(name)
    x = images(2, 90, 70)
    (together,) = net(x).values()
    (alone,) = net(x[1:]).values()
    assert_near(together[1:], alone)


@pytest.mark.parametrize("name", BACKBONES)
def test_unknown_layers_are_refused_by_name(name: str) -> None:
    net = random_backbone(name)
    first = next(iter(net.channels))
    for call in (lambda: net(images(1, 90, 90), ["fc6"]), lambda: net.compile(["fc6"])):
        with pytest.raises(ConfigError, match=rf"has no layer 'fc6'; use one of {first}"):
            call()


def lowest_and_highest(values: Tensor) -> tuple[int, int]:
    found = values.nonzero().flatten()
    return int(found.min()), int(found.max())


@pytest.mark.parametrize("name", BACKBONES)
def test_geometry_is_the_center_of_the_measured_receptive_field(name: str) -> None:
    net = load_backbone(name, pretrained=False)
    # All weights alike and positive, no ceilings: every pixel of the field gets some gradient.
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1.0 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    named = (each for each in net.channels if each in ("stage3", "layer2", "conv4"))
    layer = next(named, net.default_layer)
    geometry = net.geometries[layer]
    # Brightness grows to the lower right, then to the upper left: max pooling picks one end of
    # each window, so the two fields together show both ends.
    side = 256
    ramp = torch.linspace(1e-3, 2e-3, side)
    low, high = side, 0
    for image in (ramp[:, None] + ramp, (ramp[:, None] + ramp).flip((0, 1))):
        x = image.expand(1, 3, side, side).clone().requires_grad_()
        cells = net(x, [layer])[layer]
        cell = cells.shape[3] // 2
        cells[0, :, cell, cell].sum().backward()
        assert x.grad is not None
        ends = lowest_and_highest(x.grad[0].abs().sum((0, 1)))
        low, high = min(low, ends[0]), max(high, ends[1])
    assert low > 0
    assert high < side - 1
    assert (low + high + 1) / 2 == geometry.offset + cell * geometry.stride


@pytest.mark.parametrize("name", BACKBONES)
def test_every_size_and_every_layer(name: str) -> None:
    net = random_backbone(name)
    for height, width in ((1, 1), (1, 70), (65, 31), (40, 97)):
        image = np.zeros((height, width, 3), np.uint8)
        x, factor_x, factor_y = net.preprocess(image, min(height, width))
        maps = net(x, net.channels)
        assert set(maps) == set(net.channels)
        assert x.shape[3] / width == factor_x
        assert x.shape[2] / height == factor_y
        for layer, channels in net.channels.items():
            assert maps[layer].shape[:2] == (1, channels)
            assert min(maps[layer].shape[2:]) >= 1
            assert torch.isfinite(maps[layer]).all()


@pytest.mark.parametrize("name", BACKBONES)
def test_frozen_unless_asked(name: str) -> None:
    net = random_backbone(name)
    assert not net.train().training
    assert not any(p.requires_grad for p in net.parameters())
    try:
        assert net.unfreeze().training
        assert all(p.requires_grad for p in net.parameters())
    finally:
        net.freeze()
    assert not net.train().training
    assert not any(p.requires_grad for p in net.parameters())


def test_preprocess_scales_and_orders_channels() -> None:
    image = np.zeros((30, 60, 3), np.uint8)
    image[..., 0] = 200
    lite, factor_x, factor_y = random_backbone("efficientnet_lite0").preprocess(image, 90)
    assert lite.shape == (1, 3, 90, 180)
    assert (factor_x, factor_y) == (3.0, 3.0)
    assert lite[0, :, 5, 5].tolist() == [(200 - 127) / 128, -127 / 128, -127 / 128]
    zf5, _, _ = random_backbone("zf5").preprocess(image, 90)
    assert zf5[0, :, 5, 5].tolist() == [-128, -128, 72]
    resnet, _, _ = random_backbone("resnet18").preprocess(image, 90)
    expected = [(200 / 255 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    assert resnet[0, :, 5, 5].tolist() == pytest.approx(expected, rel=1e-5)


def test_resized_shape() -> None:
    assert resized_shape(500, 375, 600) == (800, 600)
    assert resized_shape(375, 500, 600) == (600, 800)
    assert resized_shape(1, 1000, 2) == (2, 2000)
    assert resized_shape(333, 500, 688) == (688, 1033)
