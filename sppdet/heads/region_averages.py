"""The channels of the backbone's pretrained 1x1 head, averaged over regions.

Part of every pooled vector, where they go through fc6. Here they are by themselves: what ImageNet
training knew, and no fine-tuning has narrowed to its own classes, for classes that are added later.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sppdet.core.types import FloatArray
from sppdet.heads.prepared_maps import PreparedMap, PreparedMaps
from sppdet.heads.region_pooler import WHOLE, RegionPooler
from sppdet.spp.roi_pooling import spatial_pyramid_pool

# The window that is the region itself.
ITSELF = 1.0


def has_averages(pooler: RegionPooler) -> bool:
    """Tell whether there is such a head, averaged over the regions themselves."""
    return bool(pooler.head_channels) and ITSELF in pooler.config.context_scales


@torch.inference_mode()
def region_averages(
    pooler: RegionPooler, prepared: PreparedMaps, boxes: FloatArray, weights: Tensor | None = None
) -> Tensor:
    """`float32 (N, A)`: the averages `(N, C)` over boxes in image pixels, times weights `(C, A)`.

    The map is multiplied and not the averages: it has fewer cells. Without weights, A is C.
    """

    def pool_scale(one: PreparedMap, boxes: FloatArray) -> Tensor:
        assert one.head_features is not None
        cells = one.head_features if weights is None else one.head_features @ weights
        values = pooler.on_grid(cells, one.low).permute(2, 0, 1)
        return spatial_pyramid_pool(values, pooler.project(one.source, boxes), WHOLE, "mean")

    width = pooler.head_channels if weights is None else weights.shape[1]
    return pooler.by_scale(prepared, boxes, width, pool_scale)


def averages_of_pooled(
    pooler: RegionPooler, pooled: Tensor, weights: Tensor | None = None
) -> Tensor:
    """The averages as they stand in pooled vectors `(N, dim)`, times weights as above."""
    place = pooler.config.context_scales.index(ITSELF)
    start = pooler.pyramid_width + place * pooler.head_channels
    values = pooled[:, start : start + pooler.head_channels]
    return values if weights is None else values @ weights
