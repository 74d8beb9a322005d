"""Backbones by name, or out of a classifier's model file."""

from __future__ import annotations

from pathlib import Path

import torch

from sppdet.backbones.base import Backbone
from sppdet.backbones.efficientnet_lite import VARIANTS, EfficientNetLite, load_efficientnet_lite
from sppdet.backbones.paper_networks import PAPER_NETWORKS, init_he, paper_network
from sppdet.backbones.torchvision_networks import TORCHVISION_NETWORKS, torchvision_network
from sppdet.core.errors import ConfigError, ModelFormatError, SppdetError
from sppdet.core.model_file import CLASSIFIER, SUFFIX, load_model
from sppdet.core.parallel import guard_forks, keep_freed_memory

BACKBONES = (*VARIANTS, *TORCHVISION_NETWORKS, *PAPER_NETWORKS)

# Names of a classifier's convolutional weights in its file begin so.
PREFIX = "backbone."


def load_backbone(
    name: str = "efficientnet_lite0",
    pretrained: bool = True,
    *,
    seed: int = 0,
    download: bool = False,
    dilate: bool = True,
    width: float = 1.0,
    pixel_scale: float = 1.0,
) -> Backbone:
    """Load a frozen backbone; `.unfreeze()` makes it trainable.

    EfficientNet-Lite's weights come from installed packages, torchvision's from its cache or, only
    with `download`, from the network. The paper's own networks have none. As a side effect the C
    allocator keeps freed memory from here on (see `keep_freed_memory`).

    Args:
        name: one of `BACKBONES`; or the path of a classifier's model file, whose convolutional
            layers are taken as they were trained, and to which `download` alone applies.
        pretrained: ImageNet weights, or random ones drawn from `seed`.
        seed: of random weights.
        download: fetch torchvision's weights where they are not cached.
        dilate: EfficientNet-Lite at stride 16; False: as published, at stride 32.
        width, pixel_scale: as `paper_network` takes them.

    An option that is of other networks only has no effect.

    Raises:
        ConfigError: an unknown name.
        SppdetError: weights are missing.
        ModelFormatError: a model file that cannot be used.
    """
    keep_freed_memory()
    guard_forks()
    if name.endswith(SUFFIX):
        return _load_from_classifier(Path(name), download)
    if name in VARIANTS:
        if pretrained:
            return load_efficientnet_lite(name, dilate=dilate)
        lite = EfficientNetLite(name, dilate=dilate)
        init_he(lite, seed)
        return lite
    if name in TORCHVISION_NETWORKS:
        return torchvision_network(
            name, pretrained=pretrained, download=download, seed=seed
        ).freeze()
    if name not in PAPER_NETWORKS:
        raise ConfigError(f"unknown backbone {name!r}", hint=f"use one of {', '.join(BACKBONES)}")
    if pretrained:
        raise SppdetError(
            f"there are no pretrained weights of {name}",
            hint="use pretrained=False and train it, or use efficientnet_lite0",
        )
    return paper_network(name, seed, width=width, pixel_scale=pixel_scale).freeze()


def _load_from_classifier(path: Path, download: bool) -> Backbone:
    """Load the frozen convolutional layers of a classifier."""
    header, tensors = load_model(path, CLASSIFIER)
    name, hint = header.backbone, "train the classifier again"
    network, seed = header.config.get("network"), header.config.get("seed")
    kinds = {"width": (int, float), "pixel_scale": (int, float), "pretrained": (bool,)}
    if (
        not isinstance(network, dict)
        or type(seed) is not int
        or any(type(network.get(key)) not in kind for key, kind in kinds.items())
    ):
        raise ModelFormatError("does not say what its backbone is", path=path, hint=hint)
    if name not in BACKBONES:
        raise ModelFormatError(f"has the backbone {name!r}", path=path, hint=hint)
    state = {
        key.removeprefix(PREFIX): torch.from_numpy(value)
        for key, value in tensors.items()
        if key.startswith(PREFIX)
    }
    # Trained layers are in the file; frozen ones come from where they came from.
    backbone = load_backbone(
        name,
        network["pretrained"] and not state and name not in PAPER_NETWORKS,
        seed=seed,
        download=download,
        width=float(network["width"]),
        pixel_scale=float(network["pixel_scale"]),
    )
    try:
        if state:
            backbone.load_state_dict(state)
    except RuntimeError as error:
        raise ModelFormatError(
            f"its arrays do not fit {name}: {error}", path=path, hint=hint
        ) from error
    if backbone.weights_digest() != header.backbone_digest:
        raise ModelFormatError(
            f"was trained on other weights of {name} than those installed",
            path=path,
            hint="install the package versions named in its header, or train again",
        )
    return backbone
