"""What training sees of an image: a random crop, mirrored or not, its colours shifted.

The paper's views (sec. 3.1.1): a square from the centre or a corner of the image whose short side
is 256 / 224 of the square's, a mirror image half of the time, and the colour altering of
Krizhevsky et al. (2012, sec. 4.1). A smaller training size sees the same squares resized, so that
sizes differ in resolution and not in content.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from sppdet.backbones.base import resized_shape
from sppdet.classification.inputs import bounded
from sppdet.errors import ConfigError
from sppdet.types import ImageArray

# Centre and corners, as shares of the room that a crop has along x and y.
CORNERS = ((0.5, 0.5), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))


@dataclass(frozen=True)
class AugmentConfig:
    """How the training views of an image are drawn."""

    # Short side that an image is resized to, as a multiple of the crop's side.
    enlarge: float = 256 / 224
    # Where crops lie: at the centre and the corners, as in the paper, or anywhere.
    crops: Literal["corners", "anywhere"] = "corners"
    # Chance that a crop is mirrored.
    flip: float = 0.5
    # Deviation of the colour shift, as a share of the training pixels' own deviation along each
    # of their principal colours; 0 leaves colours alone.
    colour: float = 0.1

    def __post_init__(self) -> None:
        if self.enlarge < 1:
            raise ConfigError("augment.enlarge is below 1", mend="a crop must fit into its image")
        if not 0 <= self.flip <= 1:
            raise ConfigError("augment.flip is a chance", mend="give 0 to 1")
        if self.colour < 0:
            raise ConfigError("augment.colour is negative", mend="give 0 or more")


def resize_short(image: ImageArray, short_side: int) -> ImageArray:
    """The image `uint8 (h, w, 3)` with its short side at `short_side` pixels, as tests resize it.

    Law: `backbone.normalise` of it is what `inputs.resized` gives.
    """
    image = bounded(image)
    height, width = image.shape[:2]
    return _resized(image, *resized_shape(width, height, short_side))


def crop_side(view: ImageArray, side: int) -> ImageArray:
    """A square view as `uint8 (side, side, 3)`, resized where it has another side."""
    return _resized(view, side, side)


def random_view(
    image: ImageArray,
    side: int,
    config: AugmentConfig,
    colours: NDArray[np.float64],
    rng: np.random.Generator,
) -> ImageArray:
    """A random `uint8 (side, side, 3)` view of an image of `resize_short`.

    Draws the same numbers from `rng` whatever the image. `colours` is what `principal_colours`
    gives.
    """
    height, width = image.shape[:2]
    place = rng.random(2)
    corner = CORNERS[int(rng.integers(len(CORNERS)))]
    mirrored = rng.random() < config.flip
    shift = rng.normal(0.0, 1.0, 3) * config.colour
    share_x, share_y = corner if config.crops == "corners" else place
    left, top = round(share_x * (width - side)), round(share_y * (height - side))
    view = image[top : top + side, left : left + side]
    if mirrored:
        view = view[:, ::-1]
    if config.colour == 0:
        return np.ascontiguousarray(view)
    return shift_colours(view, colours @ shift)


def centre_view(image: ImageArray, side: int) -> ImageArray:
    """The central `uint8 (side, side, 3)` square of an image of `resize_short`."""
    height, width = image.shape[:2]
    left, top = (width - side) // 2, (height - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def shift_colours(image: ImageArray, shift: NDArray[np.float64]) -> ImageArray:
    """The image with `shift` (red, green, blue) added to every pixel, rounded and clipped."""
    moved = image.astype(np.int16) + np.round(shift).astype(np.int16)
    return np.clip(moved, 0, 255).astype(np.uint8)


def principal_colours(images: Iterable[ImageArray]) -> NDArray[np.float64]:
    """`float64 (3, 3)`: a column for each principal colour of the pixels, as long as its deviation.

    Every image counts alike. Zeros where there are no images.
    """
    mean, square, count = np.zeros(3), np.zeros((3, 3)), 0
    for image in images:
        pixels = image.reshape(-1, 3).astype(np.float64)
        mean += pixels.mean(axis=0)
        square += pixels.T @ pixels / len(pixels)
        count += 1
    if count == 0:
        return np.zeros((3, 3))
    covariance = square / count - np.outer(mean / count, mean / count)
    values, vectors = np.linalg.eigh(covariance)
    out: NDArray[np.float64] = vectors * np.sqrt(np.maximum(values, 0.0))
    return out


def _resized(image: ImageArray, width: int, height: int) -> ImageArray:
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    size = (width, height)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
