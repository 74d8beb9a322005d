"""Test-time augmentation: an image at several sizes, and flipped; boxes there and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from sppdet.backbones.feature_maps import FeatureExtractor, FeatureMaps
from sppdet.core.boxes import flip
from sppdet.core.images import flip_image
from sppdet.core.types import FloatArray, ImageArray
from sppdet.detection.config import DetectionConfig


class Augmentation(NamedTuple):
    """One way to show an image to the network.

    Attributes:
        scale_factor: what the extractor's scales are multiplied by.
        flip: whether left and right are exchanged.
    """

    scale_factor: float = 1.0
    flip: bool = False

    def scales(self, scales: Sequence[int]) -> tuple[int, ...]:
        """Multiply scales by the factor, to whole pixels."""
        return tuple(max(1, math.floor(one * self.scale_factor + 0.5)) for one in scales)

    def image(self, image: ImageArray) -> ImageArray:
        """Show an image `uint8 (H, W, 3)` so."""
        return flip_image(image) if self.flip else image

    def boxes(self, boxes: FloatArray, width: int) -> FloatArray:
        """Take boxes `(N, 4)` of an image of `width` pixels to the augmented one, or back.

        Invariant: twice gives the boxes back.
        """
        return flip(boxes, width) if self.flip else boxes


def augmentations(rules: DetectionConfig) -> list[Augmentation]:
    """List the augmentations that the settings ask for: the image as it is, then flipped."""
    plain = [Augmentation(factor) for factor in rules.scale_factors]
    return plain + [Augmentation(factor, True) for factor in rules.flipped_scale_factors]


class MapRequest(NamedTuple):
    """Feature maps that a detector needs of an image.

    Attributes:
        extractor: computes them,
        scales: at these short sides in pixels,
        flip: of the image with left and right exchanged.
    """

    extractor: FeatureExtractor
    scales: tuple[int, ...]
    flip: bool

    @property
    def key(self) -> tuple[str, tuple[int, ...], bool]:
        """Equal for requests that give the same maps."""
        return self.extractor.key, self.scales, self.flip

    def compute(self, image: ImageArray) -> FeatureMaps:
        """Compute the maps of an image `uint8 (H, W, 3)`."""
        return self.extractor(flip_image(image) if self.flip else image, self.scales)
