"""The fully connected layers over pooled regions: class scores and box offsets."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sppdet.compression import Responses
from sppdet.features import FeatureExtractor, FeatureMaps, ScaledMap
from sppdet.region_pool import HeadConfig, Joined, JoinedMaps, RegionPooling, pooled
from sppdet.types import FloatArray

__all__ = ["HeadConfig", "HeadOutput", "RegionHead"]

# Below this many boxes, multiplying a whole map by fc6 costs more than it saves.
FEW_BOXES = 200


class HeadOutput(NamedTuple):
    """What the head says of N regions.

    Attributes:
        logits: `(N, K + 1)`, background first.
        offsets: `(N, K, 4)` class-wise box offsets, in units of `finetune.OFFSET_SCALE`.
    """

    logits: Tensor
    offsets: Tensor


class RegionHead(RegionPooling):
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
        super().__init__(config, features)
        # Set by `squeeze_pyramid` once training is over.
        self.squeeze: nn.Linear | None = None
        self.fc6 = nn.Linear(self.dim, config.fc6)
        self.fc7 = nn.Linear(config.fc6, config.fc7)
        self.classify = nn.Linear(config.fc7, n_classes + 1)
        self.offset = nn.Linear(config.fc7, n_classes * 4)
        self._initialise(seed)

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

    def layer_width(self, layer: str) -> int:
        """The length of the features of `pool`, `fc6` or `fc7`."""
        widths = {"pool": self.dim, "fc6": self.config.fc6, "fc7": self.config.fc7}
        return widths[layer]

    def pool_fc6(self, maps: FeatureMaps | JoinedMaps, boxes: FloatArray) -> Tensor:
        """`(N, fc6)` after ReLU: `run_fc6(pool(maps, boxes))` up to rounding, in half the time.

        What is averaged over windows can be multiplied by its share of fc6 before: a map has far
        fewer cells than an image has regions. Few boxes go the ordinary way.
        """
        if len(boxes) >= FEW_BOXES and self.semantic_levels_are_whole():
            width = self.config.fc6
            fc6 = self.by_scale(self.join(maps), boxes, width, self._pool_fc6_scale)
            return F.relu(fc6)
        return self.run_fc6(self.pool(maps, boxes))

    def _pool_fc6_scale(
        self, scaled: ScaledMap, joined: Joined, boxes: FloatArray, maps: FeatureMaps
    ) -> Tensor:
        """fc6 before its ReLU, for one scale."""
        values, semantic = joined
        out = self.fc6.bias.expand(len(boxes), -1)
        start = 0
        if self.config.levels:
            windows = self.project(scaled, boxes)
            pyramid = pooled(self.reduced(values), windows, self.config.levels, "max", False)
            if self.squeeze is not None:
                pyramid = self.squeeze(pyramid)
            start = pyramid.shape[1]
            out = F.linear(pyramid, self.fc6.weight[:, :start], self.fc6.bias)
        if semantic is None:
            return out
        for levels, factors in self.semantic_windows():
            for factor in factors:
                share = self.fc6.weight[:, start : start + self.semantic_channels]
                product = self.on_grid(F.linear(semantic, share), values)
                window = self.window(scaled, boxes, factor, maps)
                out = out + pooled(product, window, levels, "mean", False)
                start += self.semantic_channels
        return out

    def run_fc6(self, pooled: Tensor) -> Tensor:
        """`(N, fc6)` after ReLU."""
        if self.squeeze is not None:
            pyramid, others = pooled[:, : self.pyramid_dim], pooled[:, self.pyramid_dim :]
            pooled = torch.cat([self.squeeze(pyramid), others], dim=1)
        return F.relu(self.fc6(pooled))

    def pyramid_response(self, maps: FeatureMaps, boxes: FloatArray) -> Tensor:
        """`(N, fc6)`: the pyramid's share of fc6 before bias and ReLU; not once squeezed."""
        pyramid = self.pool(maps, boxes)[:, : self.pyramid_dim]
        return F.linear(pyramid, self.fc6.weight[:, : self.pyramid_dim])

    def squeeze_saves(self, rank: int) -> bool:
        """Whether `squeeze_pyramid` would make fc6 less work; never for a rank of 0."""
        wide, out = self.pyramid_dim, self.config.fc6
        return 0 < rank * (wide + out) < wide * out

    @torch.no_grad()
    def squeeze_pyramid(self, rank: int, responses: Responses | None = None) -> None:
        """Makes fc6's share of the pyramid two factors, `rank` numbers between them.

        The truncated SVD of Fast R-CNN (sec. 3.1), but of what fc6 answers to regions that occur
        and not of its weights: `responses` has seen `pyramid_response` of many. Without them the
        layers get the shapes alone, for weights to be loaded into.
        """
        weight, wide = self.fc6.weight, self.pyramid_dim
        squeeze = nn.Linear(wide, rank, bias=False)
        fc6 = nn.Linear(rank + self.dim - wide, self.config.fc6)
        if responses is not None:
            directions, mean = responses.principal(rank)
            squeeze.weight.copy_(directions.T @ weight[:, :wide])
            fc6.weight.copy_(torch.cat([directions, weight[:, wide:]], dim=1))
            fc6.bias.copy_(self.fc6.bias + mean - directions @ (directions.T @ mean))
        self.squeeze, self.fc6 = squeeze, fc6

    def run_fc7(self, fc6: Tensor) -> Tensor:
        """`(N, fc7)` after ReLU."""
        return F.relu(self.fc7(fc6))

    def forward(self, pooled: Tensor) -> HeadOutput:
        """What fine-tuning trains: pooled vectors `(N, dim)` to class logits and box offsets."""
        fc6 = F.dropout(self.run_fc6(pooled), self.config.dropout, self.training)
        fc7 = F.dropout(self.run_fc7(fc6), self.config.dropout, self.training)
        return HeadOutput(self.classify(fc7), self.offset(fc7).unflatten(1, (-1, 4)))
