"""Backbones: images in, named feature maps with their geometry out, all behind one seam."""

from __future__ import annotations

from pathlib import Path

from sppdet.backbones.allocator import keep_freed_memory
from sppdet.backbones.base import Backbone
from sppdet.backbones.efficientnet_lite import VARIANTS, EfficientNetLite, load_efficientnet_lite
from sppdet.backbones.geometry import Geometry
from sppdet.backbones.paper import PAPER_NETWORKS, init_he, paper_network
from sppdet.backbones.torchvision_nets import TORCHVISION_NETWORKS, torchvision_network
from sppdet.backbones.trained import is_model_file, read_convolutions
from sppdet.errors import ModelFormatError, SppdetError

BACKBONES = (*VARIANTS, *TORCHVISION_NETWORKS, *PAPER_NETWORKS)

__all__ = ["BACKBONES", "Backbone", "Geometry", "load_backbone"]


def load_backbone(
    name: str = "efficientnet_lite0",
    pretrained: bool = True,
    *,
    seed: int = 0,
    download: bool = False,
) -> Backbone:
    """A frozen backbone of `BACKBONES`, with ImageNet weights or random ones drawn from `seed`.

    A name may also be the path of a classifier's model file: its convolutional layers, as they were
    trained, whatever `pretrained` says.

    EfficientNet-Lite's weights come from installed packages, torchvision's from its cache or, only
    with `download`, from the network. The paper's own networks have none: `pretrained=False`. Call
    `.unfreeze()` to train one. As a side effect the C allocator keeps freed memory from here on,
    which makes the forward pass a third faster.

    Raises SppdetError for an unknown name and where weights are missing, ModelFormatError for a
    model file that cannot be used.
    """
    keep_freed_memory()
    if is_model_file(name):
        return _trained(Path(name), download)
    if name in VARIANTS:
        if pretrained:
            return load_efficientnet_lite(name)
        model = EfficientNetLite(name)
        init_he(model, seed)
        return model
    if name in TORCHVISION_NETWORKS:
        return torchvision_network(
            name, pretrained=pretrained, download=download, seed=seed
        ).freeze()
    if name not in PAPER_NETWORKS:
        raise SppdetError(f"unknown backbone {name!r}", mend=f"use one of {', '.join(BACKBONES)}")
    if pretrained:
        raise SppdetError(
            f"there are no pretrained weights of {name}",
            mend="use pretrained=False and train it, or use efficientnet_lite0",
        )
    return paper_network(name, seed).freeze()


def _trained(path: Path, download: bool) -> Backbone:
    """The frozen convolutional layers of a classifier."""
    found = read_convolutions(path)
    mend = "train the classifier again"
    if found.name not in BACKBONES:
        raise ModelFormatError(f"has the backbone {found.name!r}", where=path, mend=mend)
    if found.name in PAPER_NETWORKS:
        width, scale = found.width, found.pixel_scale
        network: Backbone = paper_network(
            found.name, found.seed, width=width, pixel_scale=scale
        ).freeze()
    else:
        # Trained layers are in the file; frozen ones come from where they came from.
        pretrained = found.pretrained and not found.state
        network = load_backbone(found.name, pretrained, seed=found.seed, download=download)
    try:
        if found.state:
            network.load_state_dict(found.state)
    except RuntimeError as error:
        raise ModelFormatError(
            f"its arrays do not fit {found.name}: {error}", where=path, mend=mend
        ) from error
    if network.weights_digest() != found.digest:
        raise ModelFormatError(
            f"was trained on other weights of {found.name} than those installed",
            where=path,
            mend="install the package versions named in its header, or train again",
        )
    return network
