"""Images as networks see them when testing: bounded in elongation, resized, cropped, mirrored."""

from __future__ import annotations

import cv2
import numpy as np
from torch import Tensor

from sppdet.backbones import Backbone
from sppdet.types import ImageArray

# An image more elongated than this is squeezed along its long side: its map would have no bound.
MAX_ELONGATION = 4


def resized(backbone: Backbone, image: ImageArray, short_side: int) -> Tensor:
    """`float32 (1, 3, h, w)`: an RGB image `uint8 (H, W, 3)` as the backbone takes it.

    The aspect is kept unless the long side is more than `MAX_ELONGATION` short ones.
    """
    x, _, _ = backbone.preprocess(bounded(image), short_side)
    return x


def bounded(image: ImageArray) -> ImageArray:
    """The image, its long side squeezed to `MAX_ELONGATION` times the short one if it is longer."""
    height, width = image.shape[:2]
    longest = MAX_ELONGATION * min(height, width)
    if max(height, width) <= longest:
        return image
    size = (min(width, longest), min(height, longest))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def centre_crop(x: Tensor, side: int) -> Tensor:
    """`(B, C, side, side)`: the middle of `(B, C, h, w)`, which must not be smaller."""
    top, left = (x.shape[2] - side) // 2, (x.shape[3] - side) // 2
    return x[:, :, top : top + side, left : left + side]


def mirrored(x: Tensor) -> Tensor:
    """`(B, C, h, w)` with left and right exchanged."""
    return x.flip(3)
