"""Labelled images as training sees them: decoded once where memory allows, and as batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppdet.backbones import Backbone
from sppdet.classification.augment import (
    AugmentConfig,
    centre_view,
    crop_side,
    principal_colours,
    random_view,
    resize_short,
)
from sppdet.datasets import LabelledImages
from sppdet.errors import SppdetError, TrainingError
from sppdet.files import array_digest, sha256
from sppdet.images import read_image
from sppdet.prefetch import ahead
from sppdet.progress import Advance
from sppdet.types import ImageArray

MEGABYTE = 1_000_000
# Images that the principal colours are taken from.
COLOUR_IMAGES = 500
# How many broken images an error names.
NAMED = 5


class ImageStore:
    """The images of a set, resized for cropping, by index.

    Args:
        images: files and labels.
        short_side: what the shorter side is resized to, in pixels.
        keep_mb: megabytes of images that are kept in memory, first come first kept.
    """

    def __init__(self, images: LabelledImages, short_side: int, keep_mb: int) -> None:
        self.images, self.short_side = images, short_side
        self._room = keep_mb * MEGABYTE
        self._kept: dict[int, ImageArray] = {}

    def __len__(self) -> int:
        return len(self.images)

    def load(self, index: int) -> ImageArray:
        """An image as `resize_short` gives it; raises ImageError as `read_image` does."""
        found = self._kept.get(index)
        if found is None:
            found = resize_short(read_image(self.images.paths[index]), self.short_side)
            if found.nbytes <= self._room:
                self._room -= found.nbytes
                self._kept[index] = found
        return found

    def digest(self, advance: Advance) -> str:
        """Digest of classes, labels and every file's bytes; `advance` is told of each image.

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
                errors.append(SppdetError(f"cannot be read ({error.strerror})", where=path))
            advance(1)
        refuse(errors)
        return sha256(*parts)

    def colours(self) -> NDArray[np.float64]:
        """The principal colours of evenly spaced images."""
        count = min(len(self), COLOUR_IMAGES)
        chosen = np.unique(np.linspace(0, len(self) - 1, count).astype(int))
        return principal_colours(self.load(int(index)) for index in chosen)


class BatchMaker:
    """Batches of training views and of central views, as a backbone takes them.

    Args:
        backbone: gives the pixels' normalisation.
        side: side of the crops in pixels.
        config: how random views are drawn.
        colours: the training images' principal colours.
        seed: with the epoch and an image's index, decides its view.
    """

    def __init__(
        self,
        backbone: Backbone,
        side: int,
        config: AugmentConfig,
        colours: NDArray[np.float64],
        seed: int,
    ) -> None:
        self.normalise = backbone.normalise
        self.side, self.config, self.colours, self.seed = side, config, colours, seed

    def training_views(
        self, store: ImageStore, indices: Sequence[int], epoch: int, size: int
    ) -> Tensor:
        """`float32 (B, 3, size, size)`: a random view each, resized where `size` asks for it."""
        views = []
        for index in indices:
            rng = np.random.default_rng([self.seed, 2, epoch, index])
            view = random_view(store.load(index), self.side, self.config, self.colours, rng)
            views.append(self.normalise(crop_side(view, size)))
        return _as_batch(views)

    def centre_views(self, store: ImageStore, indices: Sequence[int]) -> Tensor:
        """`float32 (B, 3, side, side)`: the central crop of each."""
        views = [self.normalise(centre_view(store.load(i), self.side)) for i in indices]
        return _as_batch(views)


def batches(
    order: Sequence[int], size: int, make: Callable[[Sequence[int]], Tensor]
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Runs of `size` indices (the last may be shorter) with their batches, made ahead."""
    runs = [order[start : start + size] for start in range(0, len(order), size)]
    return ahead(runs, make)


def refuse(errors: Sequence[SppdetError]) -> None:
    """Raises one TrainingError that names the images that cannot be used, if there are any."""
    if errors:
        named = "; ".join(str(error) for error in errors[:NAMED])
        more = f"; and {len(errors) - NAMED} more" if len(errors) > NAMED else ""
        raise TrainingError(
            f"{len(errors)} images cannot be used: {named}{more}",
            mend="mend them or take them out of their folders",
        )


def _as_batch(views: Sequence[NDArray[np.float32]]) -> Tensor:
    """Images `(H, W, 3)` as one tensor in channels-last memory, which convolutions prefer."""
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)
