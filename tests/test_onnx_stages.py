"""Layers that onnxruntime runs: what torch makes of them, up to rounding."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.backbones import load_backbone
from sppdet.backbones.efficientnet_lite import VARIANTS, EfficientNetLite, load_efficientnet_lite

TAPS = (*(f"stage{number}" for number in range(1, 7)), "bottleneck", "head")


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_same(net: EfficientNetLite, taps: Sequence[str], x: torch.Tensor) -> None:
    with torch.no_grad():
        expected = net(x, taps)
        found = net.for_inference(taps)(x)
    assert list(found) == list(taps)
    for tap in taps:
        assert found[tap].shape == expected[tap].shape
        scale = float(expected[tap].abs().max())
        torch.testing.assert_close(found[tap], expected[tap], rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "efficientnet_lite1"])
@pytest.mark.parametrize("dilate", [True, False])
def test_every_tap_is_that_of_torch(name: str, dilate: bool) -> None:
    assert_same(load_efficientnet_lite(name, dilate=dilate), TAPS, images(2, 3, 64, 96))


@pytest.fixture(scope="module")
def lite0() -> EfficientNetLite:
    return load_efficientnet_lite()


@settings(deadline=None, max_examples=15)
@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    taps=st.lists(st.sampled_from(TAPS), min_size=1, max_size=3, unique=True),
)
def test_images_of_any_size_and_taps_in_any_order(
    lite0: EfficientNetLite, batch: int, height: int, width: int, taps: list[str]
) -> None:
    assert_same(lite0, taps, images(batch, 3, height, width))


def test_threads_change_no_bit(lite0: EfficientNetLite) -> None:
    forward, x = lite0.for_inference(["stage5"]), images(1, 3, 160, 224)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(forward(x)["stage5"])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_the_weights_are_those_of_the_moment() -> None:
    net, x = load_efficientnet_lite(), images(1, 3, 64, 64)
    forward = net.for_inference(["stage1"])
    before = forward(x)["stage1"]
    assert net.stem.bias is not None
    with torch.no_grad():
        net.stem.bias += 0.5
    assert torch.equal(forward(x)["stage1"], before)
    assert not torch.allclose(net.for_inference(["stage1"])(x)["stage1"], before, atol=0.01)


def test_other_networks_go_through_torch() -> None:
    net, x = load_backbone("zf5", pretrained=False), images(1, 3, 80, 96)
    with torch.no_grad():
        expected = net(x, ["conv"])["conv"]
        assert torch.equal(net.for_inference(["conv"])(x)["conv"], expected)
