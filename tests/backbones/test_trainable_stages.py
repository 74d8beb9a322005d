"""The trainable top stages: the pretrained network's own, cut out and upsampled again."""

from __future__ import annotations

import copy
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from sppdet.backbones import load_backbone
from sppdet.backbones.efficientnet_lite import EfficientNetLite, load_efficientnet_lite
from sppdet.core.images import read_image
from sppdet.heads.upsample import upsample2x


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite2"])
@pytest.mark.parametrize("layer", ["stage4", "stage5"])
def test_the_trainable_stages_are_those_of_the_network(name: str, layer: str) -> None:
    dilated, original = load_efficientnet_lite(name), load_efficientnet_lite(name, dilate=False)
    x = torch.randn(1, 3, 128, 192, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        maps = dilated(x, (layer, "bottleneck"))
        stages = dilated.trainable_stages(layer)
        assert stages is not None
        found = stages(maps[layer][0].permute(1, 2, 0))
        whole = original(x, ("bottleneck",))["bottleneck"][0].permute(1, 2, 0)
    assert found.shape == (4, 6, stages.channels)
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-4)
    # Where its cells lie on the map of stride 16: at the odd rows and columns.
    odd = maps["bottleneck"][0].permute(1, 2, 0)[1::2, 1::2]
    torch.testing.assert_close(found, odd, rtol=1e-4, atol=1e-4)
    assert torch.equal(upsample2x(found, 8, 12)[1::2, 1::2], found)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 4), (5, 2), (7, 9), (6, 8)])
def test_maps_of_any_size_come_back_to_their_own(height: int, width: int) -> None:
    stages = load_efficientnet_lite().trainable_stages("stage5")
    assert stages is not None
    found = stages(torch.randn(height, width, 112))
    assert found.shape == ((height + 1) // 2, (width + 1) // 2, 320)
    back = upsample2x(found, height, width)
    assert back.shape == (height, width, 320)
    assert torch.isfinite(back).all()


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite2"])
def test_frozen_they_give_the_same(name: str) -> None:
    stages = load_efficientnet_lite(name).trainable_stages("stage5")
    assert stages is not None
    maps = torch.randn(13, 18, 112 if name.endswith("0") else 120)
    before = stages(maps)
    assert before.requires_grad
    stages.freeze()
    found = stages(maps)
    assert not found.requires_grad
    assert found.shape == before.shape
    torch.testing.assert_close(found, before.detach(), rtol=1e-4, atol=1e-4)
    assert torch.equal(copy.deepcopy(stages)(maps), found)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite2"])
def test_frozen_and_quantized_they_give_nearly_the_same(name: str) -> None:
    net = load_efficientnet_lite(name)
    stages = net.trainable_stages("stage5")
    assert stages is not None
    photo = read_image(Path(str(files("skimage") / "data" / "chelsea.png")))
    x = net.preprocess(photo, 192)[0]
    maps = net.compile(["stage5"], quantize=True)(x)["stage5"][0].permute(1, 2, 0)
    exact = stages(maps)
    # Nothing is rounded while there is something to learn.
    assert torch.equal(stages(maps, quantize=True), exact)
    stages.freeze()
    found = stages(maps, quantize=True)
    assert 0 < (found - exact).norm() / exact.norm() < 0.15
    # Once more in floats, and in integers.
    torch.testing.assert_close(stages(maps), exact.detach(), rtol=1e-4, atol=1e-4)
    assert torch.equal(stages(maps, quantize=True), found)


def test_stages_of_unknown_range_stay_floats() -> None:
    stages = EfficientNetLite("efficientnet_lite0").trainable_stages("stage5")
    assert stages is not None
    stages.freeze()
    maps = torch.randn(6, 8, 112)
    assert torch.equal(stages(maps, quantize=True), stages(maps))


def test_spreading_keeps_what_is_flat_and_what_is_linear() -> None:
    flat = torch.full((3, 4, 2), 2.5)
    assert torch.equal(upsample2x(flat, 6, 8), torch.full((6, 8, 2), 2.5))
    ramp = torch.arange(5.0)[None, :, None].expand(2, 5, 1)
    row = upsample2x(ramp, 4, 10)[0, :, 0]
    assert row.tolist() == [0, 0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]


def test_networks_that_cannot_be_cut_say_so() -> None:
    assert load_efficientnet_lite().trainable_stages("stage3") is None
    assert load_backbone("zf5", pretrained=False, seed=0).trainable_stages("conv") is None
