"""Backbones: images in, named feature maps with their geometry out, all behind one seam."""

from __future__ import annotations

from sppdet.backbones.allocator import keep_freed_memory
from sppdet.backbones.base import Backbone
from sppdet.backbones.efficientnet_lite import VARIANTS, EfficientNetLite, load_efficientnet_lite
from sppdet.backbones.geometry import Geometry
from sppdet.backbones.paper import PAPER_NETWORKS, init_he, paper_network
from sppdet.backbones.torchvision_nets import TORCHVISION_NETWORKS, torchvision_network
from sppdet.errors import SppdetError

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

    EfficientNet-Lite's weights come from installed packages, torchvision's from its cache or, only
    with `download`, from the network. The paper's own networks have none: `pretrained=False`. Call
    `.unfreeze()` to train one. As a side effect the C allocator keeps freed memory from here on,
    which makes the forward pass a third faster.

    Raises SppdetError for an unknown name and where weights are missing.
    """
    keep_freed_memory()
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
