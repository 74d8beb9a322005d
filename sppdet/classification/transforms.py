"""Images as networks see them: resized, cropped, flipped and, in training, shifted in color.

Training crops are the paper's (sec. 3.1.1): a square from the center or a corner of the image whose
short side is 256 / 224 of the square's, flipped half of the time, with the color shift of
Krizhevsky et al. (2012, sec. 4.1). A smaller training size sees the same squares resized, so that
sizes differ in resolution and not in content.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sppdet.backbones import Backbone
from sppdet.backbones.base import resized_shape
from sppdet.classification.config import AugmentConfig
from sppdet.core.types import ImageArray

Float64Array = NDArray[np.float64]

# The long side in short ones beyond which an image is shrunk along it: its map would have no bound.
MAX_ASPECT_RATIO = 4
# Center and corners, as shares of the room that a crop has along x and y.
POSITIONS = ((0.5, 0.5), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))


def to_input(backbone: Backbone, image: ImageArray, short_side: int) -> Tensor:
    """Resize an RGB image `uint8 (H, W, 3)` to the input `float32 (1, 3, h, w)` of a backbone.

    The aspect ratio is kept up to `MAX_ASPECT_RATIO`.
    """
    x, _, _ = backbone.preprocess(limit_aspect_ratio(image), short_side)
    return x


def limit_aspect_ratio(image: ImageArray) -> ImageArray:
    """Shrink the long side to `MAX_ASPECT_RATIO` times the short one if it is longer."""
    height, width = image.shape[:2]
    longest = MAX_ASPECT_RATIO * min(height, width)
    if max(height, width) <= longest:
        return image
    size = (min(width, longest), min(height, longest))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def center_crop(x: Tensor, side: int) -> Tensor:
    """Cut the center `(B, C, side, side)` out of `(B, C, h, w)`, which must not be smaller."""
    top, left = (x.shape[2] - side) // 2, (x.shape[3] - side) // 2
    return x[:, :, top : top + side, left : left + side]


def flip_input(x: Tensor) -> Tensor:
    """Exchange left and right of `(B, C, h, w)`."""
    return x.flip(3)


def resize_short(image: ImageArray, short_side: int) -> ImageArray:
    """Resize an image `uint8 (h, w, 3)` to `short_side` pixels along its shorter side.

    Invariant: `backbone.normalize` of it is what `to_input` gives.
    """
    image = limit_aspect_ratio(image)
    height, width = image.shape[:2]
    return _resize(image, *resized_shape(width, height, short_side))


def resize_square(image: ImageArray, side: int) -> ImageArray:
    """Resize a square image to `uint8 (side, side, 3)`."""
    return _resize(image, side, side)


def random_crop(
    image: ImageArray,
    side: int,
    config: AugmentConfig,
    colors: Float64Array,
    rng: np.random.Generator,
) -> ImageArray:
    """Draw a training crop `uint8 (side, side, 3)` of an image of `resize_short`.

    Draws the same numbers from `rng` whatever the image. `colors` are `principal_colors`.
    """
    height, width = image.shape[:2]
    anywhere = rng.random(2)
    position = POSITIONS[int(rng.integers(len(POSITIONS)))]
    flipped = rng.random() < config.flip
    shift = rng.normal(0.0, 1.0, 3) * config.color
    share_x, share_y = position if config.crops == "corners" else anywhere
    left, top = round(share_x * (width - side)), round(share_y * (height - side))
    crop = image[top : top + side, left : left + side]
    if flipped:
        crop = crop[:, ::-1]
    if config.color == 0:
        return np.ascontiguousarray(crop)
    return shift_colors(crop, colors @ shift)


def center_square(image: ImageArray, side: int) -> ImageArray:
    """Cut the central `uint8 (side, side, 3)` square out of an image of `resize_short`."""
    height, width = image.shape[:2]
    left, top = (width - side) // 2, (height - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def shift_colors(image: ImageArray, shift: Float64Array) -> ImageArray:
    """Add `shift` (red, green, blue) to every pixel, rounded and clipped."""
    moved = image.astype(np.int16) + np.round(shift).astype(np.int16)
    return np.clip(moved, 0, 255).astype(np.uint8)


def principal_colors(images: Iterable[ImageArray]) -> Float64Array:
    """Principal components of pixels, `float64 (3, 3)`: columns as long as their deviations.

    Every image has the same weight. Zeros where there are no images.
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
    out: Float64Array = vectors * np.sqrt(np.maximum(values, 0.0))
    return out


def _resize(image: ImageArray, width: int, height: int) -> ImageArray:
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    size = (width, height)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
