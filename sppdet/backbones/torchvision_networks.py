"""torchvision's AlexNet, VGG16 and ResNet-18/50, cut at their last conv layer, at stride 16.

ResNet's stage 4 keeps stride 16: its strided convolution gets stride 1 and all after it dilation 2.
Every second cell of that map, from the first, is exactly a cell of the original stride-32 map.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import nn

from sppdet.backbones.paper_networks import init_he
from sppdet.backbones.sequential import SequentialBackbone
from sppdet.core.errors import SppdetError

# ImageNet statistics of torchvision's weights, for pixels of 0 to 255.
MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
SCALE = (1 / (0.229 * 255), 1 / (0.224 * 255), 1 / (0.225 * 255))


def _features(network: nn.Module) -> nn.Sequential:
    """Return the conv part of AlexNet or VGG without its last pooling."""
    layers = network.features
    assert isinstance(layers, nn.Sequential)
    return layers[:-1]


def _residual(network: nn.Module) -> nn.Sequential:
    """Return the conv part of a ResNet as a chain, stage 4 at stride 16."""
    parts = dict(network.named_children())
    _dilate(parts["layer4"])
    stem = [parts[name] for name in ("conv1", "bn1", "relu", "maxpool")]
    return nn.Sequential(*stem, *(parts[f"layer{n}"] for n in range(1, 5)))


def _dilate(stage: nn.Module) -> None:
    """Turn a stage's stride 2 into dilation 2 of the 3x3 convolutions after the strided one."""
    seen = False
    for name, layer in stage.named_modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        if layer.stride == (2, 2):
            layer.stride = (1, 1)
            seen = seen or "downsample" not in name
        elif seen and layer.kernel_size == (3, 3):
            layer.dilation = layer.padding = (2, 2)


RESNET_DEPTHS = {"layer2": 6, "layer3": 7, "layer4": 8}
# name -> (version of its weights, how to cut it, depths of its layers); torchvision itself takes
# seconds to import, and is only when one of them is asked for.
TORCHVISION_NETWORKS: dict[
    str, tuple[str, Callable[[nn.Module], nn.Sequential], dict[str, int]]
] = {
    "alexnet": ("IMAGENET1K_V1", _features, {"conv5": 12}),
    "vgg16": ("IMAGENET1K_V1", _features, {"conv4": 23, "conv5": 30}),
    "resnet18": ("IMAGENET1K_V1", _residual, RESNET_DEPTHS),
    "resnet50": ("IMAGENET1K_V2", _residual, RESNET_DEPTHS),
}


def torchvision_network(
    name: str, *, pretrained: bool, download: bool = False, seed: int = 0
) -> SequentialBackbone:
    """Build a torchvision network as a backbone, with ImageNet weights or He's random ones.

    Raises SppdetError where the weights are wanted but neither cached nor, with `download`,
    reachable.
    """
    from torchvision import models as zoo

    version, cut, depths = TORCHVISION_NETWORKS[name]
    # Constructors draw random weights from torch's global generator: leave its state alone.
    with torch.random.fork_rng(devices=[]):
        network = zoo.get_model(name)
    if pretrained:
        _load_weights(network, name, zoo.get_model_weights(name)[version], download)
    else:
        init_he(network, seed)
    return SequentialBackbone(name, cut(network), depths, mean=MEAN, scale=SCALE)


def _load_weights(network: nn.Module, name: str, weights: Any, download: bool) -> None:
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not download and not cached.is_file():
        raise SppdetError(
            f"the ImageNet weights of {name} are not on this machine",
            path=cached,
            hint=f"set features.download to true, or put {weights.url} there",
        )
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        network.load_state_dict(state)
    except (URLError, OSError, RuntimeError) as error:
        raise SppdetError(
            f"cannot load the ImageNet weights of {name}: {error}",
            path=cached,
            hint=f"put {weights.url} there, or use efficientnet_lite0, which needs no download",
        ) from error
