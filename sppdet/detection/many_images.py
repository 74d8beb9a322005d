"""Detection in many images: what needs no network is done ahead, on threads of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from sppdet.backbones.feature_maps import FeatureMaps
from sppdet.core.errors import SppdetError
from sppdet.core.parallel import prefetch
from sppdet.core.types import Detections, FloatArray, ImageArray
from sppdet.media.image_inputs import ImageInput, as_image
from sppdet.proposals import Proposer

# The pixels and proposals of an image, or what is wrong with it.
Prepared = tuple[ImageArray, FloatArray] | SppdetError


class RegionDetector(Protocol):
    """What detects the objects of an image step by step: a `Detector` or an `Ensemble`."""

    propose: Proposer

    def extract(self, image: ImageArray) -> tuple[FeatureMaps, ...]:
        """Compute the feature maps of an image `uint8 (H, W, 3)`."""
        ...

    def detect_regions(self, maps: Sequence[FeatureMaps], boxes: FloatArray) -> Detections:
        """Detect the objects among regions `(N, 4)`."""
        ...


def detect_many(
    detector: RegionDetector, images: Iterable[ImageInput], workers: int
) -> Iterator[Detections | SppdetError]:
    """Yield what `detect` gives for each image, in order; the error in place of one that fails."""

    def prepare(image: ImageInput) -> Prepared:
        try:
            pixels = as_image(image)
            return pixels, detector.propose(pixels)
        except SppdetError as error:
            return error

    for _, prepared in prefetch(images, prepare, workers=workers):
        if isinstance(prepared, SppdetError):
            yield prepared
        else:
            pixels, boxes = prepared
            yield detector.detect_regions(detector.extract(pixels), boxes)


def detect_all(detector: RegionDetector, images: Iterable[ImageInput]) -> list[Detections]:
    """Detect in every image; raises the error of the first that fails, with its place."""
    found = []
    for place, one in enumerate(detect_many(detector, images, workers=1)):
        if isinstance(one, SppdetError):
            name = f"image {place}" if one.path is None else f"image {place} ({one.path})"
            raise type(one)(one.message, path=name, hint=one.hint) from one
        found.append(one)
    return found
