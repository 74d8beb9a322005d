"""From feature maps and boxes to fc7: spatial pyramid pooling and the fully connected layers.

The pyramid of the paper ({6,3,2,1}, max) pools a map whose channels a learned 1x1 convolution has
reduced. A pretrained network whose last convolution is 1x1 (EfficientNet's head) offers one thing
more: that layer's channels, averaged over the region and over a larger window around it, keep what
ImageNet training knew and the narrow bottleneck below it hides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sppdet.errors import ConfigError
from sppdet.features import FeatureConfig, FeatureExtractor, FeatureMaps, ScaledMap
from sppdet.projection import best_scale, project
from sppdet.spp import Mode, spatial_pyramid_pool
from sppdet.types import FloatArray, IntArray


@dataclass(frozen=True)
class HeadConfig:
    """Pyramid and fully connected layers."""

    # Pyramid levels of the max pooling: n means n x n bins (paper: 50 bins a channel).
    levels: tuple[int, ...] = (6, 3, 2, 1)
    # Channels that a learned 1x1 convolution leaves for the pyramid; 0 pools the map's own.
    reduce: int = 64
    # Levels of average pooling over the backbone's pretrained 1x1 head, where it has one.
    semantic_levels: tuple[int, ...] = (1,)
    # Windows around the region, grown by these factors, averaged over the same head.
    context: tuple[float, ...] = (2.0,)
    # Widths of the two fully connected layers (paper: 4096 each).
    fc6: int = 1024
    fc7: int = 1024
    # Chance of dropping a unit after fc6 and fc7 while fine-tuning (paper: 0.5, for 40 times the
    # steps).
    dropout: float = 0.2

    def __post_init__(self) -> None:
        if not self.levels and not self.semantic_levels:
            raise ConfigError("head.levels and head.semantic_levels are both empty")
        if any(level < 1 for level in (*self.levels, *self.semantic_levels)):
            raise ConfigError("a pyramid level is below 1", mend="levels count bins along a side")
        for levels in (self.levels, self.semantic_levels):
            if len(set(levels)) != len(levels):
                raise ConfigError(f"the pyramid {list(levels)} has a level twice")
        if any(factor <= 0 for factor in self.context):
            raise ConfigError("head.context has a factor of 0 or less", mend="give factors above 1")
        if min(self.fc6, self.fc7) < 1 or self.reduce < 0:
            raise ConfigError("head widths must be positive", mend="see head.fc6, fc7 and reduce")
        if not 0 <= self.dropout < 1:
            raise ConfigError("head.dropout is outside [0, 1)")


class HeadOutput(NamedTuple):
    """What the head says of N regions.

    Attributes:
        logits: `(N, K + 1)`, background first.
        offsets: `(N, K, 4)` class-wise box offsets, in units of `finetune.OFFSET_SCALE`.
    """

    logits: Tensor
    offsets: Tensor


class RegionHead(nn.Module):
    """Pools regions out of feature maps and runs the fully connected layers on them.

    Args:
        config: widths and levels.
        features: gives channels, geometry and, where the backbone has it, the pretrained head.
        n_classes: K, background not counted.
        seed: draws the initial weights.
    """

    def __init__(
        self, config: HeadConfig, features: FeatureExtractor, n_classes: int, *, seed: int = 0
    ) -> None:
        super().__init__()
        self.config = config
        self.features: FeatureConfig = features.config
        self.geometry = features.geometry
        self.taps = dict(features.channels)
        channels = sum(self.taps.values())
        self.mean = nn.Buffer(torch.zeros(channels))
        self.std = nn.Buffer(torch.ones(channels))
        self._semantic(features)
        pyramid_channels = config.reduce or channels
        bins = sum(level * level for level in config.levels)
        windows = sum(n * n for n in config.semantic_levels) + len(config.context)
        self.dim = pyramid_channels * bins + self.semantic_channels * windows
        self.reduce = nn.Linear(channels, config.reduce) if config.reduce else None
        self.fc6 = nn.Linear(self.dim, config.fc6)
        self.fc7 = nn.Linear(config.fc6, config.fc7)
        self.classify = nn.Linear(config.fc7, n_classes + 1)
        self.offset = nn.Linear(config.fc7, n_classes * 4)
        self._initialise(seed)

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

    def _initialise(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for layer, std in (
            (self.reduce, None),
            (self.fc6, None),
            (self.fc7, None),
            (self.classify, 0.01),
            (self.offset, 0.001),
        ):
            if layer is None:
                continue
            # He et al. 2015 for what a ReLU follows; the linear reduction keeps unit variance.
            gain = 1.0 if layer is self.reduce else 2.0
            spread = std if std is not None else (gain / layer.in_features) ** 0.5
            nn.init.normal_(layer.weight, 0.0, spread, generator=generator)
            nn.init.zeros_(layer.bias)

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Sets the per-channel mean and standard deviation that maps are normalised by."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    def layer_width(self, layer: str) -> int:
        """The length of the features of `pool`, `fc6` or `fc7`."""
        widths = {"pool": self.dim, "fc6": self.config.fc6, "fc7": self.config.fc7}
        return widths[layer]

    def window_groups(self, maps: FeatureMaps, boxes: FloatArray) -> IntArray:
        """`int64 (N,)` numbers; equal for boxes that cover the same cells of the same scale.

        The pyramid cannot tell such boxes apart; the release keeps one of them as a negative.
        """
        rule = self.features
        chosen = best_scale(boxes, maps.width, maps.height, rule.scales, rule.scale_rule)
        rows = np.zeros((len(boxes), 5), dtype=np.int64)
        rows[:, 0] = chosen
        for index, scaled in enumerate(maps.scaled):
            mine = np.flatnonzero(chosen == index)
            rows[mine, 1:] = self._project(scaled, boxes[mine])
        groups: IntArray = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
        return groups

    def _project(self, scaled: ScaledMap, boxes: FloatArray) -> IntArray:
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

    def pool(self, maps: FeatureMaps, boxes: FloatArray, *, flip: bool = False) -> Tensor:
        """`float32 (N, dim)` pooled vectors of boxes `(N, 4)` in image pixels.

        With `flip` the pyramid's bins are mirrored, as if the map had been. Law: adding a box
        never changes another box's vector.
        """
        rule = self.features
        chosen = best_scale(boxes, maps.width, maps.height, rule.scales, rule.scale_rule)
        pooled, places = [], []
        for index, scaled in enumerate(maps.scaled):
            mine = np.flatnonzero(chosen == index)
            if len(mine):
                pooled.append(self._pool_scale(scaled, boxes[mine], maps, flip))
                places.append(mine)
        if len(pooled) == 1:
            return pooled[0]
        if not pooled:
            return torch.zeros(0, self.dim)
        order = torch.from_numpy(np.argsort(np.concatenate(places), kind="stable"))
        return torch.cat(pooled)[order]

    def _pool_scale(
        self, scaled: ScaledMap, boxes: FloatArray, maps: FeatureMaps, flip: bool
    ) -> Tensor:
        values = scaled.map.float()
        parts = []
        if self.config.levels:
            reduced = self._reduced(values)
            parts.append(
                _pooled(reduced, self._project(scaled, boxes), self.config.levels, "max", flip)
            )
        if self.semantic_channels:
            source = values[..., self.semantic_slice]
            semantic = torch.clamp(
                source @ self.semantic_weight + self.semantic_bias, 0.0, self.semantic_limit
            )
            for levels, factors in self._semantic_windows():
                # One call for all windows: it sums the map up once.
                windows = np.concatenate(
                    [
                        self._project(scaled, grow(boxes, factor, maps.width, maps.height))
                        for factor in factors
                    ]
                )
                averaged = _pooled(semantic, windows, levels, "mean", flip)
                parts += torch.split(averaged, len(boxes))
        return torch.cat(parts, dim=1)

    def _semantic_windows(self) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
        """Levels, and the factors that the windows averaged at them are grown by."""
        own, context = self.config.semantic_levels, self.config.context
        if own == (1,):
            return [(own, (1.0, *context))]
        return [(own, (1.0,))] * bool(own) + [((1,), context)] * bool(context)

    def _reduced(self, values: Tensor) -> Tensor:
        """The normalised map, its channels reduced by the 1x1 convolution, in one product."""
        if self.reduce is None:
            return (values - self.mean) / self.std
        weight = self.reduce.weight / self.std
        return F.linear(values, weight, self.reduce.bias - weight @ self.mean)

    def run_fc6(self, pooled: Tensor) -> Tensor:
        """`(N, fc6)` after ReLU."""
        return F.relu(self.fc6(pooled))

    def run_fc7(self, fc6: Tensor) -> Tensor:
        """`(N, fc7)` after ReLU."""
        return F.relu(self.fc7(fc6))

    def forward(self, pooled: Tensor) -> HeadOutput:
        """What fine-tuning trains: pooled vectors `(N, dim)` to class logits and box offsets."""
        fc6 = F.dropout(self.run_fc6(pooled), self.config.dropout, self.training)
        fc7 = F.dropout(self.run_fc7(fc6), self.config.dropout, self.training)
        return HeadOutput(self.classify(fc7), self.offset(fc7).unflatten(1, (-1, 4)))


def grow(boxes: FloatArray, factor: float, width: int, height: int) -> FloatArray:
    """Boxes grown by `factor` about their centres and clipped to the image."""
    if factor == 1.0:
        return boxes
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) * (factor / 2)
    limit = np.array([width, height, width, height], np.float32)
    grown = np.concatenate([centre - half, centre + half], axis=1)
    inside: FloatArray = np.clip(grown, 0, limit).astype(np.float32)
    return inside


def _pooled(
    values: Tensor, windows: IntArray, levels: tuple[int, ...], mode: Mode, flip: bool
) -> Tensor:
    """SPP of a map `(h, w, C)`; mirroring map and windows mirrors the bins exactly."""
    if flip:
        width = values.shape[1]
        values = values.flip(1)
        windows = windows.copy()
        windows[:, 0], windows[:, 2] = width - windows[:, 2], width - windows[:, 0]
    return spatial_pyramid_pool(values.permute(2, 0, 1), windows, levels, mode)
