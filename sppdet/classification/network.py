"""The paper's classification networks: conv layers, SPP or a fixed pooling, fc6, fc7, softmax.

An SPP network takes images of any size. A plain one, the paper's baseline, pools the last map as
its original does (3x3 windows; stride 2, Overfeat 3) and takes one input size only: at 224 pixels
that pooling gives 6 x 6 bins, the pyramid's finest level.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sppdet.backbones import Backbone, load_backbone
from sppdet.backbones.receptive_field import ReceptiveField
from sppdet.classification.config import NetworkConfig
from sppdet.core.errors import ConfigError, SppdetError
from sppdet.core.model_file import check_shapes
from sppdet.core.types import IntArray
from sppdet.spp import SpatialPyramidPooling, spatial_pyramid_pool

Layer = Literal["pool", "fc6", "fc7"]

# The plain networks' last pooling (table 1): 13 cells at stride 2 and 18 at stride 3 both give 6.
POOL_KERNEL = 3
POOL_STRIDE = 2
OVERFEAT_POOL_STRIDE = 3
# Standard deviation of the last layer's initial weights (release: 0.01 for every layer).
CLASSIFY_STD = 0.01


def build_backbone(config: NetworkConfig, seed: int = 0) -> Backbone:
    """Build the convolutional layers, with gradients unless `frozen`.

    Raises SppdetError where pretrained weights are missing.
    """
    network = load_backbone(
        config.backbone,
        config.pretrained,
        seed=seed,
        download=config.download,
        width=config.width,
        pixel_scale=config.pixel_scale,
    )
    return network if config.frozen else network.unfreeze()


class ClassificationNetwork(nn.Module):
    """A backbone, its pooling, fc6, fc7 and one logit per class.

    Args:
        config: its layers.
        classes: class names; a logit's index is an index into them.
        seed: draws the initial weights.
        arrays: stored weights that will be loaded; ValueError where they are of other shapes than
            the fully connected layers, which have no memory before.

    Attributes:
        input_side: side in pixels of the square input that it trains on.
        map_side: cells along the side of that input's map.
        pooled_width: the length of a pooled vector.
    """

    def __init__(
        self,
        config: NetworkConfig,
        classes: tuple[str, ...],
        *,
        seed: int = 0,
        arrays: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.classes, self.input_side = config, tuple(classes), config.input_side
        self.backbone = build_backbone(config, seed)
        if config.input_side < self.backbone.min_side:
            raise ConfigError(
                f"network.input_side is {config.input_side}, too small for {config.backbone}",
                hint=f"give {self.backbone.min_side} or more",
            )
        self.is_plain = config.variant == "plain"
        side = torch.zeros(1, 3, config.input_side, config.input_side)
        with torch.no_grad():
            maps = self.conv_map(side)
        self.map_side = maps.shape[-1]
        self.pooling = self._pooling()
        with torch.no_grad():
            self.pooled_width = self.pool(maps).shape[1]
        widths = (self.pooled_width, config.fc6, config.fc7, len(self.classes))
        if arrays is not None:
            names = ("fc6.weight", "fc7.weight", "classify.weight")
            shapes = [(end, start) for start, end in pairwise(widths)]
            check_shapes(arrays, dict(zip(names, shapes, strict=True)))
        self.fc6 = nn.Linear(self.pooled_width, config.fc6)
        self.fc7 = nn.Linear(config.fc6, config.fc7)
        self.classify = nn.Linear(config.fc7, len(self.classes))
        self._initialize(seed)

    def _pooling(self) -> nn.Module:
        if not self.is_plain:
            return SpatialPyramidPooling(self.config.levels)
        if self.map_side < POOL_KERNEL:
            raise ConfigError(
                f"a plain {self.config.backbone} has {self.map_side} cells a side at "
                f"network.input_side {self.input_side}, fewer than its pooling needs",
                hint="raise network.input_side",
            )
        overfeat = self.config.backbone.startswith("overfeat")
        stride = OVERFEAT_POOL_STRIDE if overfeat else POOL_STRIDE
        return nn.Sequential(nn.MaxPool2d(POOL_KERNEL, stride, ceil_mode=True), nn.Flatten())

    def _initialize(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for layer in (self.fc6, self.fc7):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.classify.weight, 0.0, CLASSIFY_STD, generator=generator)
        nn.init.zeros_(self.classify.bias)

    @property
    def geometry(self) -> ReceptiveField:
        """Stride and first receptive-field center of the cells of `conv_map`."""
        return self.backbone.geometry

    def conv_map(self, x: Tensor) -> Tensor:
        """Compute the last maps `(B, C, h, w)` of images as `backbone.normalize` gives them."""
        maps: Tensor = self.backbone(x)[self.backbone.default_layer]
        return maps

    def pool(self, maps: Tensor) -> Tensor:
        """Pool whole maps `(B, C, h, w)` to `(B, pooled_width)`.

        Raises SppdetError when a plain network is given a map of another size than its own.
        """
        if self.is_plain:
            self._check_side(maps.shape[3], maps.shape[2])
        pooled: Tensor = self.pooling(maps)
        return pooled

    def pool_windows(self, feature_map: Tensor, windows: IntArray) -> Tensor:
        """Pool windows of one map `(C, h, w)` to `(N, pooled_width)`.

        `windows` is `int64 (N, 4)`, half-open cells `x1 y1 x2 y2`. Invariant: a row equals `pool`
        of the map cut to its window. Raises ValueError for a window that is empty or leaves the
        map, SppdetError where a plain network is given one of another size than its own map.
        """
        if not self.is_plain:
            return spatial_pyramid_pool(feature_map, windows, self.config.levels)
        height, width = feature_map.shape[1:]
        cut = []
        for x1, y1, x2, y2 in windows.tolist():
            if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
                raise ValueError(f"window {[x1, y1, x2, y2]} is empty or leaves the map")
            self._check_side(x2 - x1, y2 - y1)
            cut.append(feature_map[:, y1:y2, x1:x2])
        if not cut:
            return feature_map.new_zeros((0, self.pooled_width))
        return self.pool(torch.stack(cut))

    def _check_side(self, width: int, height: int) -> None:
        side = self.map_side
        if (width, height) != (side, side):
            raise SppdetError(
                f"a plain network pools maps of {side} x {side} cells, not {width} x {height}",
                hint=f"give it {self.input_side} x {self.input_side} pixels, or use variant spp",
            )

    def layer(self, pooled: Tensor, name: Layer) -> Tensor:
        """Compute `(N, width)` features of a layer from pooled vectors; fc6 and fc7 after ReLU."""
        if name == "pool":
            return pooled
        fc6 = F.dropout(F.relu(self.fc6(pooled)), self.config.dropout, self.training)
        if name == "fc6":
            return fc6
        return F.dropout(F.relu(self.fc7(fc6)), self.config.dropout, self.training)

    def head(self, pooled: Tensor) -> Tensor:
        """Compute `(N, K)` logits from pooled vectors `(N, pooled_width)`."""
        logits: Tensor = self.classify(self.layer(pooled, "fc7"))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Compute `(B, K)` logits of images `(B, 3, H, W)` as `backbone.normalize` gives them."""
        return self.head(self.pool(self.conv_map(x)))
