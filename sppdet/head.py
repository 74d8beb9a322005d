"""The fully connected layers over pooled regions: class scores and box offsets."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sppdet.compression import Responses
from sppdet.features import FeatureExtractor, FeatureMaps, ScaledMap
from sppdet.head_config import HeadConfig
from sppdet.joined_maps import Joined, JoinedMaps
from sppdet.region_pool import RegionPooling, pooled
from sppdet.types import FloatArray

# Below this many boxes, multiplying a whole map by fc6, in floats, costs more than it saves.
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
        # Set by `squeeze_fc6` once fine-tuning is over.
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
        """`(N, fc6)` after ReLU: `run_fc6(pool(maps, boxes))` up to rounding, in half the time."""
        return F.relu(self.fc6_response(maps, boxes))

    def fc6_response(self, maps: FeatureMaps | JoinedMaps, boxes: FloatArray) -> Tensor:
        """`(N, fc6)` before ReLU.

        What is averaged over windows can be multiplied by its share of the layer before: a map has
        far fewer cells than an image has regions. In floats few boxes go the ordinary way; what is
        rounded goes one way alone, so that no box changes what is rounded of another.
        """
        few = len(boxes) < FEW_BOXES and self.in_floats()
        if few or not self.semantic_levels_are_whole():
            return self._respond(self.pool(maps, boxes))
        first = self.fc6 if self.squeeze is None else self.squeeze
        rows = partial(self._multiplied, first)
        found = self.by_scale(self.join(maps), boxes, first.out_features, rows)
        return found if self.squeeze is None else self._linear("fc6", self.fc6, found)

    def _multiplied(
        self,
        layer: nn.Linear,
        scaled: ScaledMap,
        joined: Joined,
        boxes: FloatArray,
        maps: FeatureMaps,
    ) -> Tensor:
        """What `layer` makes of the pooled vectors of one scale."""
        out = layer.bias.expand(len(boxes), -1)
        start = 0
        if self.config.levels:
            windows = self.project(scaled, boxes)
            reduced = joined.once("reduced", partial(self.reduced, joined))
            pyramid = pooled(reduced, windows, self.config.levels, "max", False)
            start = pyramid.shape[1]
            out = self._pyramid_share(layer, pyramid)
        if joined.semantic is None:
            return out
        for levels, factors in self.semantic_windows():
            for factor in factors:
                multiplied = partial(self._share, layer, start, joined.semantic, joined.raw)
                product = joined.once((layer, start), multiplied)
                window = self.window(scaled, boxes, factor, maps)
                out = out + pooled(product, window, levels, "mean", False)
                start += self.semantic_channels
        return out

    def _share(self, layer: nn.Linear, start: int, semantic: Tensor, raw: Tensor) -> Tensor:
        """What a layer makes of the averaged channels that it reads from `start` on, by cells."""
        share = layer.weight[:, start : start + self.semantic_channels]
        if self.in_floats():
            return self.on_grid(F.linear(semantic, share), raw)
        multiply = self.in_integers(f"share {start}", share, torch.zeros(len(share)))
        cells = multiply(semantic.flatten(0, 1)).reshape(*semantic.shape[:2], -1)
        return self.on_grid(cells, raw)

    def _pyramid_share(self, layer: nn.Linear, pyramid: Tensor) -> Tensor:
        """What a layer makes of its inputs' first part, with its bias."""
        width = pyramid.shape[1]
        if self.in_floats():
            return F.linear(pyramid, layer.weight[:, :width], layer.bias)
        return self.in_integers("pyramid", layer.weight[:, :width], layer.bias)(pyramid)

    def _linear(self, name: str, layer: nn.Linear, rows: Tensor, *, relu: bool = False) -> Tensor:
        """What a layer makes of all of its inputs."""
        if self.in_floats():
            out: Tensor = layer(rows)
            return F.relu(out) if relu else out
        return self.in_integers(name, layer.weight, layer.bias)(rows, relu=relu)

    def run_fc6(self, pooled: Tensor) -> Tensor:
        """`(N, fc6)` after ReLU."""
        return F.relu(self._respond(pooled))

    def _respond(self, pooled: Tensor) -> Tensor:
        first = self.fc6 if self.squeeze is None else self.squeeze
        out: Tensor
        if self.in_floats() or not self.pyramid_width:
            out = first(pooled)
        else:
            # What is averaged is a hundred times as large as the bins: apart from them, in floats.
            own, rest = torch.tensor_split(pooled, [self.pyramid_width], dim=1)
            share = first.weight[:, self.pyramid_width :]
            out = self._pyramid_share(first, own) + F.linear(rest, share)
        return out if self.squeeze is None else self._linear("fc6", self.fc6, out)

    def squeeze_saves(self, rank: int) -> bool:
        """Whether `squeeze_fc6` would leave less work; never for a rank of 0."""
        return 0 < rank * (self.dim + self.config.fc6) < self.dim * self.config.fc6

    @torch.no_grad()
    def squeeze_fc6(self, rank: int, responses: Responses | None = None) -> None:
        """Makes two factors of fc6, `rank` numbers between them.

        The truncated SVD of Fast R-CNN (sec. 3.1), but of what fc6 answers to regions that occur
        and not of its weights: `responses` has seen `fc6_response` of many. Without them the
        layers get the shapes alone, for weights to be loaded into.
        """
        squeeze, fc6 = nn.Linear(self.dim, rank), nn.Linear(rank, self.config.fc6)
        if responses is not None:
            directions, mean = responses.principal(rank)
            squeeze.weight.copy_(directions.T @ self.fc6.weight)
            squeeze.bias.copy_(directions.T @ (self.fc6.bias - mean))
            fc6.weight.copy_(directions)
            fc6.bias.copy_(mean)
        self.squeeze, self.fc6 = squeeze, fc6

    def run_fc7(self, fc6: Tensor) -> Tensor:
        """`(N, fc7)` after ReLU."""
        return self._linear("fc7", self.fc7, fc6, relu=True)

    def forward(self, pooled: Tensor) -> HeadOutput:
        """What fine-tuning trains: pooled vectors `(N, dim)` to class logits and box offsets."""
        fc6 = F.dropout(self.run_fc6(pooled), self.config.dropout, self.training)
        fc7 = F.dropout(self.run_fc7(fc6), self.config.dropout, self.training)
        return HeadOutput(self.classify(fc7), self.offset(fc7).unflatten(1, (-1, 4)))
