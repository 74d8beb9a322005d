"""From feature maps and boxes to pooled vectors: what the fully connected layers are fed.

The pyramid of the paper ({6,3,2,1}, max) pools a map whose channels a learned 1x1 convolution has
reduced. A pretrained network whose last convolution is 1x1 (EfficientNet's head) offers one thing
more: that layer's channels, averaged over the region and over a larger window around it, keep what
ImageNet training knew and the narrow bottleneck below it hides.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sppdet.boxes import grow
from sppdet.eight_bit_linear import EightBitLinear
from sppdet.errors import ConfigError
from sppdet.features import FeatureConfig, FeatureExtractor, FeatureMaps, ScaledMap
from sppdet.grids import spread
from sppdet.head_config import HeadConfig
from sppdet.joined_maps import Joined, JoinedMaps
from sppdet.projection import best_scale, project
from sppdet.spp import Mode, spatial_pyramid_pool
from sppdet.types import FloatArray, IntArray

# One scale's map, what it became, some boxes, and all maps -> one row a box.
PoolScale = Callable[[ScaledMap, Joined, FloatArray, FeatureMaps], Tensor]


class RegionPooling(nn.Module):
    """Pools regions out of feature maps.

    Attributes:
        dim: the length of a pooled vector.
        pyramid_width: of its first part, the pyramid's bins.
    """

    def __init__(self, config: HeadConfig, features: FeatureExtractor) -> None:
        super().__init__()
        self.config = config
        self.features: FeatureConfig = features.config
        self.geometry = features.geometry
        self.upper = features.upper_stages() if config.upper else None
        self.taps = dict(features.channels)
        self.raw_channels = sum(self.taps.values())
        if self.upper is not None:
            self.taps = {self.upper.output: self.upper.channels, **self.taps}
        channels = sum(self.taps.values())
        self.mean = nn.Buffer(torch.zeros(channels))
        self.std = nn.Buffer(torch.ones(channels))
        self._semantic(features)
        pyramid_channels = config.reduce or channels
        bins = sum(level * level for level in config.levels)
        windows = sum(n * n for n in config.semantic_levels) + len(config.context)
        self.pyramid_width = pyramid_channels * bins
        self.dim = self.pyramid_width + self.semantic_channels * windows
        self.reduce = nn.Linear(channels, config.reduce) if config.reduce else None
        # Layers in 8-bit integers, made when they are first asked for; None until all are frozen.
        self._integers: dict[str, EightBitLinear] | None = None

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Sets the per-channel mean and standard deviation that maps are normalised by."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    def freeze(self) -> Self:
        """These layers with their weights fixed for good, which makes them faster."""
        self.eval().requires_grad_(False)
        self._integers = {} if self._integers is None else self._integers
        if self.upper is not None:
            self.upper.freeze()
        return self

    def in_floats(self) -> bool:
        """Whether layers are computed in floats: while they may be trained, or where wanted so."""
        return self._integers is None or not self.features.eight_bits

    def in_integers(self, name: str, weight: Tensor, bias: Tensor) -> EightBitLinear:
        """A frozen layer of that name in 8-bit integers."""
        assert self._integers is not None
        if name not in self._integers:
            self._integers[name] = EightBitLinear(weight, bias)
        return self._integers[name]

    def reading(self, features: FeatureConfig) -> Self:
        """These layers, weights shared, for maps of other scales, or made in other arithmetic."""
        other = copy.copy(self)
        other.features = features
        return other

    def scene_width(self) -> int:
        """The length of `JoinedMaps.scene`."""
        return self.semantic_channels or self.raw_channels

    def below_fc6(self) -> list[nn.Parameter]:
        """The parameters that the pooled vectors depend on."""
        layers = [layer for layer in (self.upper, self.reduce) if layer is not None]
        return [parameter for layer in layers for parameter in layer.parameters()]

    def _semantic(self, features: FeatureExtractor) -> None:
        """Keeps the backbone's pretrained 1x1 head as (frozen) buffers outside the state dict."""
        head = features.backbone.pointwise_head()
        wanted = bool(self.config.semantic_levels or self.config.context)
        if not wanted or head is None or head.source not in self.taps:
            if wanted:
                taps = ", ".join(self.taps)
                raise ConfigError(
                    f"{self.features.backbone} has no pretrained 1x1 head on {taps}",
                    mend="set head.semantic_levels and head.context to []",
                )
            self.semantic_channels = 0
            return
        start = 0
        for tap, width in self.taps.items():
            if tap == head.source:
                break
            start += width
        self.semantic_slice = slice(start, start + self.taps[head.source])
        self.semantic_channels = head.weight.shape[1]
        self.semantic_weight = nn.Buffer(head.weight.clone(), persistent=False)
        self.semantic_bias = nn.Buffer(head.bias.clone(), persistent=False)
        self.semantic_limit = head.limit

    def scale_of(self, maps: FeatureMaps, boxes: FloatArray) -> IntArray:
        """`int64 (N,)`: the position of the scale that each box is pooled at."""
        rule = self.features
        return best_scale(boxes, maps.width, maps.height, rule.scales, rule.scale_rule)

    def window_groups(self, maps: FeatureMaps, boxes: FloatArray) -> IntArray:
        """`int64 (N,)` numbers; equal for boxes that cover the same cells of the same scale.

        The pyramid cannot tell such boxes apart; the release keeps one of them as a negative.
        """
        chosen = self.scale_of(maps, boxes)
        rows = np.zeros((len(boxes), 5), dtype=np.int64)
        rows[:, 0] = chosen
        for index, scaled in enumerate(maps.scaled):
            mine = np.flatnonzero(chosen == index)
            rows[mine, 1:] = self.project(scaled, boxes[mine])
        groups: IntArray = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
        return groups

    def project(self, scaled: ScaledMap, boxes: FloatArray) -> IntArray:
        height, width = scaled.map.shape[:2]
        return project(
            boxes,
            scaled.factor_x,
            scaled.factor_y,
            self.geometry,
            height,
            width,
            self.features.projection,
        )

    def join(self, maps: FeatureMaps | JoinedMaps) -> JoinedMaps:
        """Maps to pool more than once from: the upper stages see them once."""
        return maps if isinstance(maps, JoinedMaps) else JoinedMaps(maps, self.joined)

    def pool(
        self, maps: FeatureMaps | JoinedMaps, boxes: FloatArray, *, flip: bool = False
    ) -> Tensor:
        """`float32 (N, dim)` pooled vectors of boxes `(N, 4)` in image pixels.

        With `flip` the pyramid's bins are mirrored, as if the map had been. Law: adding a box
        never changes another box's vector.
        """
        pool_scale = partial(self._pool_scale, flip=flip)
        return self.by_scale(self.join(maps), boxes, self.dim, pool_scale)

    def by_scale(
        self, joined: JoinedMaps, boxes: FloatArray, width: int, rows: PoolScale
    ) -> Tensor:
        """`(N, width)`: what `rows` gives for the boxes of each scale, in the boxes' order."""
        maps = joined.maps
        chosen = self.scale_of(maps, boxes)
        found, places = [], []
        for index, scaled in enumerate(maps.scaled):
            mine = np.flatnonzero(chosen == index)
            if len(mine):
                found.append(rows(scaled, joined.at(index), boxes[mine], maps))
                places.append(mine)
        if len(found) == 1:
            return found[0]
        if not found:
            return torch.zeros(0, width)
        order = torch.from_numpy(np.argsort(np.concatenate(places), kind="stable"))
        return torch.cat(found)[order]

    def _pool_scale(
        self,
        scaled: ScaledMap,
        joined: Joined,
        boxes: FloatArray,
        maps: FeatureMaps,
        flip: bool,
    ) -> Tensor:
        parts = []
        if self.config.levels:
            reduced = joined.once("reduced", partial(self.reduced, joined))
            parts.append(
                pooled(reduced, self.project(scaled, boxes), self.config.levels, "max", flip)
            )
        if joined.semantic is not None:
            semantic = self.on_grid(joined.semantic, joined.raw)
            for levels, factors in self.semantic_windows():
                # One call for all windows: it sums the map up once.
                windows = np.concatenate([self.window(scaled, boxes, f, maps) for f in factors])
                averaged = pooled(semantic, windows, levels, "mean", flip)
                parts += torch.split(averaged, len(boxes))
        return torch.cat(parts, dim=1)

    def semantic_levels_are_whole(self) -> bool:
        """Whether the pretrained head's map is averaged over whole windows only."""
        return self.config.semantic_levels in ((), (1,))

    def window(
        self, scaled: ScaledMap, boxes: FloatArray, factor: float, maps: FeatureMaps
    ) -> IntArray:
        return self.project(scaled, grow(boxes, factor, maps.width, maps.height))

    def joined(self, raw: Tensor) -> Joined:
        """What becomes of a map `(h, w, C)` of the extractor's before pooling, on this device."""
        values = raw.to(self.mean.device, torch.float32)
        eight_bits = self.features.eight_bits
        deep = None if self.upper is None else self.upper(values, eight_bits=eight_bits)
        semantic = None
        if self.semantic_channels:
            source = values[..., self.semantic_slice] if deep is None else deep
            semantic = self._semantic_map(source)
        return Joined(values, deep, semantic)

    def on_grid(self, values: Tensor, like: Tensor) -> Tensor:
        """A map of the upper stages' grid interpolated onto that of `like`."""
        return values if self.upper is None else spread(values, *like.shape[:2])

    def _semantic_map(self, source: Tensor) -> Tensor:
        weight, bias, limit = self.semantic_weight, self.semantic_bias, self.semantic_limit
        if self.in_floats():
            return torch.clamp(source @ weight + bias, 0.0, limit)
        cells = self.in_integers("semantic", weight.T, bias)(source.flatten(0, 1), relu=True)
        return cells.clamp_(max=limit).reshape(*source.shape[:2], -1)

    def semantic_windows(self) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
        """Levels, and the factors that the windows averaged at them are grown by."""
        own, context = self.config.semantic_levels, self.config.context
        if own == (1,):
            return [(own, (1.0, *context))]
        return [(own, (1.0,))] * bool(own) + [((1,), context)] * bool(context)

    def reduced(self, joined: Joined) -> Tensor:
        """The normalised map, its channels reduced by the 1x1 convolution, in one product a grid.

        What the upper stages gave is multiplied before it is spread: a mean of products is the
        product of the mean, and there are four times as many cells and more channels after.
        """
        if self.reduce is None:
            return (joined.whole() - self.mean) / self.std
        weight = self.reduce.weight / self.std
        bias = self.reduce.bias - weight @ self.mean
        if joined.deep is None:
            return F.linear(joined.raw, weight, bias)
        deep, raw = torch.tensor_split(weight, [joined.deep.shape[2]], dim=1)
        spread_out = self.on_grid(F.linear(joined.deep, deep), joined.raw)
        return F.linear(joined.raw, raw, bias) + spread_out


def pooled(
    values: Tensor, windows: IntArray, levels: tuple[int, ...], mode: Mode, flip: bool
) -> Tensor:
    """SPP of a map `(h, w, C)`; mirroring map and windows mirrors the bins exactly."""
    if flip:
        width = values.shape[1]
        values = values.flip(1)
        windows = windows.copy()
        windows[:, 0], windows[:, 2] = width - windows[:, 2], width - windows[:, 0]
    return spatial_pyramid_pool(values.permute(2, 0, 1), windows, levels, mode)
