"""Labeled images in training: decoded once where memory allows, and as batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppdet.backbones import Backbone
from sppdet.classification.config import AugmentConfig
from sppdet.classification.transforms import (
    center_square,
    principal_colors,
    random_crop,
    resize_short,
    resize_square,
)
from sppdet.core.errors import SppdetError, raise_for_images
from sppdet.core.files import array_digest, sha256
from sppdet.core.images import read_image
from sppdet.core.parallel import prefetch
from sppdet.core.progress import Advance
from sppdet.core.types import ImageArray
from sppdet.datasets import LabeledImages

MEGABYTE = 1_000_000
# Images that the principal colors are taken from.
COLOR_IMAGES = 500


class ImageCache:
    """Images by index, resized for cropping and kept in memory while there is room.

    Args:
        images: files and labels.
        short_side: what the shorter side is resized to, in pixels.
        keep_mb: megabytes of images that are kept in memory, first come first kept.
    """

    def __init__(self, images: LabeledImages, short_side: int, keep_mb: int) -> None:
        self.images, self.short_side = images, short_side
        self._room = keep_mb * MEGABYTE
        self._kept: dict[int, ImageArray] = {}

    def __len__(self) -> int:
        return len(self.images)

    def load(self, index: int) -> ImageArray:
        """Load an image as `resize_short` gives it; raises ImageError as `read_image` does."""
        found = self._kept.get(index)
        if found is None:
            found = resize_short(read_image(self.images.paths[index]), self.short_side)
            if found.nbytes <= self._room:
                self._room -= found.nbytes
                self._kept[index] = found
        return found

    def digest(self, advance: Advance) -> str:
        """Digest of classes, labels and every file's bytes; `advance` counts images.

        Every image is decoded once, so that what memory holds is there and what is broken is
        known before training starts. Raises TrainingError naming images that cannot be read.
        """
        errors: list[SppdetError] = []
        parts = [*self.images.classes, array_digest(self.images.labels)]
        for index, path in enumerate(self.images.paths):
            try:
                self.load(index)
                parts.append(sha256(path.read_bytes()))
            except SppdetError as error:
                errors.append(error)
            except OSError as error:
                errors.append(SppdetError(f"cannot be read ({error.strerror})", path=path))
            advance(1)
        raise_for_images(errors, len(self))
        return sha256(*parts)

    def colors(self) -> NDArray[np.float64]:
        """Compute the principal colors of evenly spaced images."""
        count = min(len(self), COLOR_IMAGES)
        chosen = np.unique(np.linspace(0, len(self) - 1, count).astype(int))
        return principal_colors(self.load(int(index)) for index in chosen)


class BatchBuilder:
    """Builds batches of random crops and of center crops, as a backbone takes them.

    Args:
        backbone: gives the pixels' normalization.
        side: side of the crops in pixels.
        config: how random crops are drawn.
        colors: the training images' principal colors.
        seed: with the epoch and an image's index, decides its crop.
    """

    def __init__(
        self,
        backbone: Backbone,
        side: int,
        config: AugmentConfig,
        colors: NDArray[np.float64],
        seed: int,
    ) -> None:
        self.normalize = backbone.normalize
        self.side, self.config, self.colors, self.seed = side, config, colors, seed

    def random_crops(
        self, cache: ImageCache, indices: Sequence[int], epoch: int, size: int
    ) -> Tensor:
        """Draw a random crop per image and resize it: `float32 (B, 3, size, size)`."""
        crops = []
        for index in indices:
            rng = np.random.default_rng([self.seed, 2, epoch, index])
            crop = random_crop(cache.load(index), self.side, self.config, self.colors, rng)
            crops.append(self.normalize(resize_square(crop, size)))
        return _to_batch(crops)

    def center_crops(self, cache: ImageCache, indices: Sequence[int]) -> Tensor:
        """Cut the center crop of each image: `float32 (B, 3, side, side)`."""
        crops = [self.normalize(center_square(cache.load(i), self.side)) for i in indices]
        return _to_batch(crops)


def load_batches(
    order: Sequence[int], size: int, make: Callable[[Sequence[int]], Tensor]
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Yield `size` indices at a time (the last may be fewer) with their batch, made ahead."""
    runs = [order[start : start + size] for start in range(0, len(order), size)]
    return prefetch(runs, make)


def _to_batch(crops: Sequence[NDArray[np.float32]]) -> Tensor:
    """Stack images `(H, W, 3)` to one tensor in channels-last memory, which convolutions prefer."""
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
