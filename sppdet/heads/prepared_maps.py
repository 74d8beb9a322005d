"""An image's feature maps, and what the layers below pooling make of them once per image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sppdet.backbones.feature_maps import FeatureMap, FeatureMaps


@dataclass(frozen=True, slots=True, eq=False)
class PreparedMap:
    """One feature map and what the layers below pooling make of it.

    Attributes:
        source: the extractor's map.
        low: its values `float32 (h, w, C)`, on the pooler's device.
        high: what the trained top stages make of it `(h', w', C')`, on their coarser grid; None
            where there are none.
        head_features: the pretrained 1x1 head's map `(h', w', C'')`, on the grid of the deepest
            map; None where there is none.
        pyramid: the map that the pyramid pools, on the grid of `low`; None where there is none.
        products: per window of `HeadConfig.context_scales`, `head_features` times that window's
            share of a linear layer, on the grid of `low`; empty unless prepared for that layer.
    """

    source: FeatureMap
    low: Tensor
    high: Tensor | None
    head_features: Tensor | None
    pyramid: Tensor | None
    products: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, eq=False)
class PreparedMaps:
    """The maps of one image, ready to pool any number of regions from.

    Attributes:
        maps: the extractor's.
        prepared: one per scale, in their order.
    """

    maps: FeatureMaps
    prepared: tuple[PreparedMap, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image in pixels."""
        return self.maps.width, self.maps.height

    def image_vector(self) -> Tensor:
        """Average the pretrained head's channels, or the map's own, over the whole image: `(C,)`.

        Each scale counts alike.
        """
        maps = [
            one.low if one.head_features is None else one.head_features for one in self.prepared
        ]
        return torch.stack([cells.flatten(0, 1).mean(dim=0) for cells in maps]).mean(dim=0)
