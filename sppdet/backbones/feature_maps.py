"""One forward pass of the backbone: the feature maps of a whole image (paper sec. 4.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from sppdet.backbones.base import Backbone, without_cudnn
from sppdet.backbones.receptive_field import ReceptiveField
from sppdet.backbones.registry import load_backbone
from sppdet.backbones.trainable_stages import TrainableStages
from sppdet.core.errors import ConfigError, SppdetError
from sppdet.core.files import sha256
from sppdet.core.parallel import memory_errors
from sppdet.core.settings import Settings, Side, digest
from sppdet.core.tensor_files import TensorCache
from sppdet.core.types import ImageArray

# Changes with the meaning of what is stored: files of another version are never read.
CACHE_VERSION = "3"


class FeatureConfig(Settings):
    """Backbone, image scales, and the layers whose maps regions are pooled from."""

    section: ClassVar[str] = "features"

    backbone: str = "efficientnet_lite2"
    """The convolutional network, see `sppdet.backbones.BACKBONES`; or the path of a classifier's
    model file, whose convolutional layers are used."""
    pretrained: bool = True
    """ImageNet weights; without them the network's weights are drawn from the seed."""
    download: bool = False
    """Fetch torchvision's weights from the network where this machine does not have them yet;
    changes no result, so the maps' digest leaves it out."""
    quantize: bool = True
    """Compute layers that nothing trains (any more) in 8-bit integers: in half the time or less,
    and rounded. Fully connected ones always, convolutions where it can be done (EfficientNet-Lite
    with ImageNet weights, on a CPU)."""
    layers: Annotated[tuple[str, ...], Field(min_length=1)] = ("stage5",)
    """The network's maps that regions are pooled from; all must have one stride."""
    scales: Annotated[tuple[Side, ...], Field(min_length=1, max_length=8)] = (320, 640)
    """Short sides in pixels that the image is resized to; one forward pass each. The release uses
    480, 576, 688, 874, 1200 or 688 alone."""
    max_aspect_ratio: Annotated[float, Field(ge=1, le=20)] = 5 / 3
    """An image so long that its long side would exceed this many times the short side's target is
    resized less, which bounds time and memory (Fast R-CNN does the same)."""
    scale_rule: Literal["release", "paper"] = "release"
    """Rule that selects a region's scale among several: the release's or the paper's."""
    projection_rule: Literal["release", "paper"] = "release"
    """Rule that projects a region onto cells: the release's or that of the paper's appendix."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.layers)) != len(self.layers):
            raise ConfigError(
                f"features.layers are {list(self.layers)}",
                hint="name different maps of the backbone",
            )
        return self


@dataclass(frozen=True, slots=True, eq=False)
class FeatureMap:
    """The feature map of an image at one scale.

    Attributes:
        values: `(h, w, C)`, float32 or float16; the channels of all layers, in order.
        scale_x, scale_y: network-input pixels per image pixel.
        short_side: the scale in pixels that it was made for (`FeatureConfig.scales`).
    """

    values: Tensor
    scale_x: float
    scale_y: float
    short_side: int


@dataclass(frozen=True, slots=True, eq=False)
class FeatureMaps:
    """The feature maps of one image, one per scale.

    Attributes:
        maps: in the order of the scales.
        width, height: of the image in pixels.
    """

    maps: tuple[FeatureMap, ...]
    width: int
    height: int

    @property
    def scales(self) -> tuple[int, ...]:
        """Short sides in pixels that the maps were made for."""
        return tuple(one.short_side for one in self.maps)

    def to(self, dtype: torch.dtype) -> FeatureMaps:
        """Convert the values to another type."""
        maps = tuple(replace(one, values=one.values.to(dtype)) for one in self.maps)
        return replace(self, maps=maps)

    def only(self, index: int) -> FeatureMaps:
        """Keep the map of one scale."""
        return replace(self, maps=(self.maps[index],))


class FeatureExtractor:
    """Computes the feature maps of images with a frozen backbone (paper sec. 4.1).

    Args:
        config: the network, and how it is run.
        seed: draws the weights of a network that is not pretrained.
        device: where it is run; maps come back to the CPU.
        backbone: the network, where it is loaded already; it must be the one that `config` names.

    Raises ConfigError for layers that the network lacks or that differ in stride.

    Attributes:
        channels: the number of channels of each layer's map.
        receptive_field: stride and offset of the maps' cells.
        key: digest of all that a map depends on besides the image and its scale.
    """

    def __init__(
        self,
        config: FeatureConfig,
        *,
        seed: int = 0,
        device: str = "cpu",
        backbone: Backbone | None = None,
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        self.backbone = backbone or load_backbone(
            config.backbone, pretrained=config.pretrained, seed=seed, download=config.download
        )
        self.backbone.to(self.device)
        layers = config.layers
        unknown = [layer for layer in layers if layer not in self.backbone.channels]
        if unknown:
            raise ConfigError(
                f"{config.backbone} has no map {unknown[0]!r}",
                hint=f"features.layers may name {', '.join(self.backbone.channels)}",
            )
        self.channels: Mapping[str, int] = {name: self.backbone.channels[name] for name in layers}
        fields = [self.backbone.geometries[layer] for layer in layers]
        if len({field.stride for field in fields}) > 1:
            raise ConfigError(
                f"the maps {', '.join(layers)} have different strides",
                hint="choose features.layers of one stride",
            )
        # Maps of one stride may be centered apart; the first layer's geometry serves all.
        self.receptive_field: ReceptiveField = fields[0]
        self.forward = self.backbone.compile(layers, quantize=config.quantize)
        settings = digest(config, exclude=("scales", "download"))
        self.key = sha256(settings, self.backbone.weights_digest())

    def trainable_stages(self) -> TrainableStages:
        """Copy the backbone's stages above the layer, to be trained.

        Raises ConfigError where there are none, or several layers.
        """
        layers = self.config.layers
        stages = self.backbone.trainable_stages(layers[0])
        if stages is None or len(layers) > 1:
            raise ConfigError(
                f"{self.config.backbone} has no stages to train above {', '.join(layers)}",
                hint="set head.train_top_stages to false, or features.layers to the one below them",
            )
        return stages

    def __call__(self, image: ImageArray, scales: Sequence[int] | None = None) -> FeatureMaps:
        """Compute the maps of an RGB image `uint8 (H, W, 3)`, float32, at every scale.

        `scales` replace the configured ones.
        """
        height, width = image.shape[:2]
        wanted = self.config.scales if scales is None else scales
        return FeatureMaps(tuple(self.at_scale(image, one) for one in wanted), width, height)

    @torch.no_grad()
    def at_scale(self, image: ImageArray, scale: int) -> FeatureMap:
        """Compute the map of an RGB image `uint8 (H, W, 3)`, float32, at one scale."""
        height, width = image.shape[:2]
        side = self.resized_side(width, height, scale)
        work = f"a map of {width}x{height} pixels at a short side of {side}"
        gpu = nullcontext() if self.device.type == "cpu" else without_cudnn()
        with gpu, memory_errors(work, "give smaller features.scales"):
            x, scale_x, scale_y = self.backbone.preprocess(image, side)
            found = self.forward(x.to(self.device))
        maps = [found[layer][0].permute(1, 2, 0) for layer in self.config.layers]
        values = maps[0] if len(maps) == 1 else torch.cat(maps, dim=2)
        return FeatureMap(values.contiguous().cpu(), scale_x, scale_y, scale)

    def resized_side(self, width: int, height: int, scale: int) -> int:
        """The short side in pixels to resize to: `scale`, or less for a very long image."""
        longest = scale * self.config.max_aspect_ratio
        side = min(float(scale), longest * min(width, height) / max(width, height))
        return max(1, int(np.floor(side + 0.5)))


class FeatureMapCache:
    """Feature maps on disk as float16, one file per image.

    A file is named by the image's bytes, the scales, the feature config and the backbone's weights,
    so it can never be stale; one that is truncated or damaged is computed anew.

    Args:
        folder: holds the files; made when the first is saved.
        extractor: computes the maps,
        scales: at these short sides in pixels; None for the configured ones,
        flipped: of the flipped image.
    """

    def __init__(
        self,
        folder: Path,
        extractor: FeatureExtractor,
        scales: Sequence[int] | None = None,
        *,
        flipped: bool = False,
    ) -> None:
        self.extractor = extractor
        wanted = tuple(extractor.config.scales if scales is None else scales)
        key = sha256(CACHE_VERSION, extractor.key, repr(wanted), str(flipped))
        self._cache = TensorCache(folder, key, ".maps")

    def path(self, image_digest: str) -> Path:
        """Return the path of an image's maps by its digest, whether or not the file is there."""
        return self._cache.path(image_digest)

    def has(self, image_digest: str) -> bool:
        """Return whether an undamaged file of maps is there: reads and verifies all of it."""
        return self._cache.load(image_digest) is not None

    def save(self, image_digest: str, maps: FeatureMaps) -> None:
        """Save the maps of an image."""
        tensors = {str(i): one.values.half() for i, one in enumerate(maps.maps)}
        scales = [[one.scale_x, one.scale_y, one.short_side] for one in maps.maps]
        self._cache.save(image_digest, tensors, {"size": [maps.width, maps.height], "maps": scales})

    def load(self, image_digest: str) -> FeatureMaps:
        """Load the saved maps of an image, float16.

        They are not verified again: `has` does so, once before maps are read again and again.

        Raises SppdetError where the file is not there, or no longer whole.
        """
        found = self._cache.load(image_digest, verify=False)
        if found is None:
            raise SppdetError(
                "the feature maps are missing or damaged",
                path=self.path(image_digest),
                hint="start again: they are computed anew",
            )
        maps = tuple(
            FeatureMap(torch.from_numpy(found.tensors[str(i)]), x, y, side)
            for i, (x, y, side) in enumerate(found.metadata["maps"])
        )
        return FeatureMaps(maps, *found.metadata["size"])
