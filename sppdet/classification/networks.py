"""The paper's classification networks: conv layers, SPP or a fixed pooling, fc6, fc7, softmax.

An SPP network takes images of any size. A plain one, the paper's baseline, pools the last map as
its original does (3x3 windows; stride 2, Overfeat 3) and takes one input size only: at 224 pixels
that pooling gives 6 x 6 bins, the pyramid's finest level.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sppdet.backbones import BACKBONES, Backbone, Geometry, load_backbone
from sppdet.backbones.allocator import keep_freed_memory
from sppdet.backbones.paper import PAPER_NETWORKS, paper_network
from sppdet.errors import ConfigError, SppdetError
from sppdet.spp import SpatialPyramidPooling, spatial_pyramid_pool
from sppdet.types import IntArray

Layer = Literal["pool", "fc6", "fc7"]

# The plain networks' last pooling (table 1): 13 cells at stride 2 and 18 at stride 3 both give 6.
POOL_KERNEL = 3
POOL_STRIDE = 2
OVERFEAT_POOL_STRIDE = 3
# Spread of the last layer's initial weights (release: 0.01 for every layer).
CLASSIFY_STD = 0.01


@dataclass(frozen=True)
class NetworkConfig:
    """What the network is made of."""

    # The convolutional layers; see `sppdet.backbones.BACKBONES`. The paper's: zf5, convnet5,
    # overfeat5 and overfeat7.
    backbone: str = "zf5"
    # Start from ImageNet weights; the paper's networks have none.
    pretrained: bool = False
    # Fetch torchvision's weights from the network where this machine does not have them yet.
    download: bool = field(default=False, repr=False)
    # Leave the convolutional layers as they are and train the fully connected ones alone.
    frozen: bool = False
    # Multiplies the channels of a paper network's convolutional layers.
    width: float = 1.0
    # Multiplies a paper network's pixels after 128 is taken off. The paper leaves them at 1 and
    # starts from smaller weights, which needs a schedule of ImageNet's length to get going.
    pixel_scale: float = 1 / 64
    # "spp" pools the last map by the pyramid, "plain" by the original network's fixed windows.
    variant: Literal["spp", "plain"] = "spp"
    # Pyramid levels: n means n x n bins (paper: 6 3 2 1, 50 bins; also 4 3 2 1, 30 bins).
    levels: tuple[int, ...] = (6, 3, 2, 1)
    # Side in pixels of the crops that it trains on, and the only size that a plain network takes.
    input_side: int = 224
    # Widths of the two fully connected layers.
    fc6: int = 4096
    fc7: int = 4096
    # Chance of dropping a unit after fc6 and fc7 in training.
    dropout: float = 0.5

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise ConfigError(
                f"network.backbone is {self.backbone!r}", mend=f"use one of {', '.join(BACKBONES)}"
            )
        if self.width <= 0 or self.pixel_scale <= 0:
            raise ConfigError("network.width and network.pixel_scale must be positive")
        if self.width != 1 and self.backbone not in PAPER_NETWORKS:
            raise ConfigError(
                f"network.width cannot narrow {self.backbone}",
                mend=f"leave it at 1, or use one of {', '.join(PAPER_NETWORKS)}",
            )
        levels = self.levels
        if not levels or min(levels) < 1 or len(set(levels)) != len(levels):
            raise ConfigError(
                f"network.levels are {list(levels)}", mend="give different whole numbers from 1 on"
            )
        if min(self.fc6, self.fc7, self.input_side) < 1:
            raise ConfigError("network.fc6, fc7 and input_side must be positive")
        if not 0 <= self.dropout < 1:
            raise ConfigError("network.dropout is outside [0, 1)")


def build_backbone(config: NetworkConfig, seed: int = 0) -> Backbone:
    """The convolutional layers that the settings ask for, gradients on unless `frozen`.

    Raises SppdetError where pretrained weights are missing.
    """
    if config.backbone in PAPER_NETWORKS and not config.pretrained:
        keep_freed_memory()
        network: Backbone = paper_network(
            config.backbone, seed, width=config.width, pixel_scale=config.pixel_scale
        )
    else:
        network = load_backbone(
            config.backbone, config.pretrained, seed=seed, download=config.download
        )
    return network.freeze() if config.frozen else network.unfreeze()


class ClassificationNetwork(nn.Module):
    """A backbone, its pooling, fc6, fc7 and one logit a class.

    Args:
        config: what it is made of.
        classes: class names; a logit's index is an index into them.
        seed: draws the initial weights.

    Attributes:
        input_side: side in pixels of the square input that it trains on.
        map_side: cells along the side of that input's map.
        pooled_width: the length of a pooled vector.
    """

    def __init__(self, config: NetworkConfig, classes: tuple[str, ...], *, seed: int = 0) -> None:
        super().__init__()
        self.config, self.classes, self.input_side = config, tuple(classes), config.input_side
        self.backbone = build_backbone(config, seed)
        if config.input_side < self.backbone.min_side:
            raise ConfigError(
                f"network.input_side is {config.input_side}, too small for {config.backbone}",
                mend=f"give {self.backbone.min_side} or more",
            )
        self.is_plain = config.variant == "plain"
        side = torch.zeros(1, 3, config.input_side, config.input_side)
        with torch.no_grad():
            maps = self.conv_map(side)
        self.map_side = maps.shape[-1]
        self.pooling = self._pooling()
        with torch.no_grad():
            self.pooled_width = self.pool(maps).shape[1]
        self.fc6 = nn.Linear(self.pooled_width, config.fc6)
        self.fc7 = nn.Linear(config.fc6, config.fc7)
        self.classify = nn.Linear(config.fc7, len(self.classes))
        self._initialise(seed)

    def _pooling(self) -> nn.Module:
        if not self.is_plain:
            return SpatialPyramidPooling(self.config.levels)
        if self.map_side < POOL_KERNEL:
            raise ConfigError(
                f"a plain {self.config.backbone} has {self.map_side} cells a side at "
                f"network.input_side {self.input_side}, fewer than its pooling needs",
                mend="raise network.input_side",
            )
        overfeat = self.config.backbone.startswith("overfeat")
        stride = OVERFEAT_POOL_STRIDE if overfeat else POOL_STRIDE
        return nn.Sequential(nn.MaxPool2d(POOL_KERNEL, stride, ceil_mode=True), nn.Flatten())

    def _initialise(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for layer in (self.fc6, self.fc7):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.classify.weight, 0.0, CLASSIFY_STD, generator=generator)
        nn.init.zeros_(self.classify.bias)

    @property
    def geometry(self) -> Geometry:
        """Where the cells of `conv_map` lie in its input."""
        return self.backbone.geometry

    def conv_map(self, x: Tensor) -> Tensor:
        """`float32 (B, C, h, w)`: the last map of images as `backbone.normalise` gives them."""
        maps: Tensor = self.backbone(x)[self.backbone.default_tap]
        return maps

    def pool(self, maps: Tensor) -> Tensor:
        """`(B, pooled_width)` from whole maps `(B, C, h, w)`.

        Raises SppdetError when a plain network is given a map of another size than its own.
        """
        if self.is_plain:
            self._check_side(maps.shape[3], maps.shape[2])
        pooled: Tensor = self.pooling(maps)
        return pooled

    def pool_windows(self, feature_map: Tensor, windows: IntArray) -> Tensor:
        """`(N, pooled_width)` from windows of one map `(C, h, w)`.

        `windows` is `int64 (N, 4)`, half-open cells `x1 y1 x2 y2`. Law: a row equals `pool` of
        the map cut to its window. Raises ValueError for a window that is empty or leaves the map,
        SppdetError where a plain network is given one of another size than its own map.
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
                mend=f"give it {self.input_side} x {self.input_side} pixels, or use variant spp",
            )

    def layer(self, pooled: Tensor, name: Layer) -> Tensor:
        """`(N, width)` features of a layer from pooled vectors; fc6 and fc7 after ReLU."""
        if name == "pool":
            return pooled
        fc6 = F.dropout(F.relu(self.fc6(pooled)), self.config.dropout, self.training)
        if name == "fc6":
            return fc6
        return F.dropout(F.relu(self.fc7(fc6)), self.config.dropout, self.training)

    def head(self, pooled: Tensor) -> Tensor:
        """`(N, K)` logits from pooled vectors `(N, pooled_width)`."""
        logits: Tensor = self.classify(self.layer(pooled, "fc7"))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """`(B, K)` logits of images `(B, 3, H, W)` as `backbone.normalise` gives them."""
        return self.head(self.pool(self.conv_map(x)))
