"""One forward pass of the backbone: the feature maps of a whole image (paper sec. 4.1)."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sppdet.backbones import Backbone, load_backbone
from sppdet.backbones.base import any_size
from sppdet.backbones.geometry import Geometry
from sppdet.backbones.upper import UpperStages
from sppdet.errors import ConfigError
from sppdet.images import mirrored
from sppdet.types import ImageArray


@dataclass(frozen=True)
class FeatureConfig:
    """Which network sees the image, at which sizes, and what it hands on."""

    # The convolutional network, see `sppdet.backbones.BACKBONES`; or the path of a classifier's
    # model file, whose convolutional layers are used.
    backbone: str = "efficientnet_lite2"
    # ImageNet weights; without them the network's weights are drawn from the seed.
    pretrained: bool = True
    # Fetch torchvision's weights from the network where this machine does not have them yet;
    # changes no result, so the maps' digest leaves it out.
    download: bool = field(default=False, repr=False)
    # Compute layers that nothing trains (any more) in 8-bit integers: in half the time or less, and
    # rounded. Fully connected ones always, convolutions where it can be done (EfficientNet-Lite
    # with ImageNet weights, on a CPU).
    eight_bits: bool = True
    # The network's maps that regions are pooled from; all must have one stride.
    taps: tuple[str, ...] = ("stage5",)
    # Short sides in pixels that the image is resized to; one forward pass each. The release uses
    # 480, 576, 688, 874, 1200 or 688 alone.
    scales: tuple[int, ...] = (320, 640)
    # An image so long that its long side would exceed this many times the short side's target
    # is resized less, which bounds time and memory (Fast R-CNN does the same).
    max_elongation: float = 5 / 3
    # How a region finds its scale among several: the release's rule or the paper's.
    scale_rule: Literal["release", "paper"] = "release"
    # How a region finds its cells: the release's rule or the one of the paper's appendix.
    projection: Literal["release", "paper"] = "release"

    def __post_init__(self) -> None:
        if not self.taps or len(set(self.taps)) != len(self.taps):
            raise ConfigError("features.taps must name different maps", mend="give at least one")
        if not self.scales or min(self.scales) < 1:
            raise ConfigError("features.scales must be positive", mend="give at least one")
        if self.max_elongation < 1:
            raise ConfigError("features.max_elongation is below 1", mend="give 1 or more")


@dataclass(frozen=True, slots=True, eq=False)
class ScaledMap:
    """The maps of an image at one scale.

    Attributes:
        map: `(h, w, C)`, float32 or float16; the channels of all taps, in order.
        factor_x, factor_y: network-input pixels per image pixel.
    """

    map: Tensor
    factor_x: float
    factor_y: float


@dataclass(frozen=True, slots=True, eq=False)
class FeatureMaps:
    """The conv maps of one image, one a scale.

    Attributes:
        scaled: in the order of `FeatureConfig.scales`.
        width, height: of the image in pixels.
    """

    scaled: tuple[ScaledMap, ...]
    width: int
    height: int

    def to(self, dtype: torch.dtype) -> FeatureMaps:
        """The same maps with values of another type."""
        scaled = tuple(replace(one, map=one.map.to(dtype)) for one in self.scaled)
        return replace(self, scaled=scaled)


class FeatureExtractor:
    """Computes the feature maps of images with a frozen backbone.

    Attributes:
        config: what it was made with.
        backbone: the network.
        channels: of each tap, in the order of `config.taps`.
        geometry: the one geometry that all taps share.
        forward: images `(B, 3, h, w)` to the maps of `config.taps`, without gradients.
    """

    def __init__(self, config: FeatureConfig, *, seed: int = 0, device: str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self.backbone: Backbone = load_backbone(
            config.backbone, config.pretrained, seed=seed, download=config.download
        )
        self.backbone.to(self.device)
        unknown = [tap for tap in config.taps if tap not in self.backbone.channels]
        if unknown:
            raise ConfigError(
                f"{config.backbone} has no map {unknown[0]!r}",
                mend=f"features.taps may name {', '.join(self.backbone.channels)}",
            )
        self.channels: Mapping[str, int] = {t: self.backbone.channels[t] for t in config.taps}
        geometries = {self.backbone.geometries[tap] for tap in config.taps}
        if len({geometry.stride for geometry in geometries}) > 1:
            raise ConfigError(
                f"the maps {', '.join(config.taps)} have different strides",
                mend="choose features.taps of one stride",
            )
        # Taps of one stride may be centred apart; the deepest one's geometry serves all.
        self.geometry: Geometry = self.backbone.geometries[config.taps[0]]
        self.forward = self.backbone.for_inference(config.taps, eight_bits=config.eight_bits)
        self._at_scales: dict[tuple[int, ...], FeatureExtractor] = {config.scales: self}

    def at_scales(self, scales: tuple[int, ...]) -> FeatureExtractor:
        """This extractor at other scales, its backbone shared; for the same scales the same."""
        if scales not in self._at_scales:
            other = copy.copy(self)
            other.config = replace(self.config, scales=scales)
            self._at_scales[scales] = other
        return self._at_scales[scales]

    def in_eight_bits(self, eight_bits: bool) -> FeatureExtractor:
        """This extractor with its layers computed so or not, its backbone shared."""
        if eight_bits == self.config.eight_bits:
            return self
        other = copy.copy(self)
        other.config = replace(self.config, eight_bits=eight_bits)
        other.forward = self.backbone.for_inference(self.config.taps, eight_bits=eight_bits)
        other._at_scales = {other.config.scales: other}
        return other

    def zoomed(self, zoom: float) -> FeatureExtractor:
        """This extractor at its scales times `zoom`, to whole pixels."""
        scales = (max(1, math.floor(scale * zoom + 0.5)) for scale in self.config.scales)
        return self.at_scales(tuple(scales))

    def upper_stages(self) -> UpperStages:
        """The backbone's stages above the tap, as layers that can be trained.

        Raises ConfigError where there are none, or several taps.
        """
        taps = self.config.taps
        found = self.backbone.upper_stages(taps[0])
        if found is None or len(taps) > 1:
            raise ConfigError(
                f"{self.config.backbone} has no stages to train above {', '.join(taps)}",
                mend="set head.upper to false, or features.taps to the one tap below them",
            )
        return found

    def digest(self) -> str:
        """What the maps depend on besides the image, as text: the config and the weights."""
        return f"{self.config!r} {self.backbone.weights_digest()}"

    def short_side(self, width: int, height: int, scale: int) -> int:
        """The short side in pixels to resize to: `scale`, or less for a very long image."""
        longest = scale * self.config.max_elongation
        side = min(float(scale), longest * min(width, height) / max(width, height))
        return max(1, int(np.floor(side + 0.5)))

    def __call__(self, image: ImageArray) -> FeatureMaps:
        """The maps of an RGB image `uint8 (H, W, 3)`, float32, at every scale."""
        height, width = image.shape[:2]
        scaled = tuple(self.at_scale(image, scale) for scale in self.config.scales)
        return FeatureMaps(scaled, width, height)

    @torch.no_grad()
    def at_scale(self, image: ImageArray, scale: int) -> ScaledMap:
        """The map of an RGB image `uint8 (H, W, 3)`, float32, at one scale, configured or not."""
        height, width = image.shape[:2]
        side = self.short_side(width, height, scale)
        x, factor_x, factor_y = self.backbone.preprocess(image, side)
        with nullcontext() if self.device.type == "cpu" else any_size():
            found = self.forward(x.to(self.device))
        maps = [found[tap][0].permute(1, 2, 0) for tap in self.config.taps]
        joined = maps[0] if len(maps) == 1 else torch.cat(maps, dim=2)
        return ScaledMap(joined.contiguous().cpu(), factor_x, factor_y)


class ImageView(NamedTuple):
    """One way to look at an image; called with the image, it gives the maps.

    Attributes:
        extractor: computes them, at its scales.
        mirrored: whether it is the mirror image that it is given.
    """

    extractor: FeatureExtractor
    mirrored: bool = False

    def shown(self, image: ImageArray) -> ImageArray:
        """What the extractor is given: the image or its mirror image."""
        return mirrored(image) if self.mirrored else image

    def __call__(self, image: ImageArray) -> FeatureMaps:
        return self.extractor(self.shown(image))
