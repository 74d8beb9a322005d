"""Input of selective search: the image shrunk to a fixed area, in several color spaces.

All arithmetic is on whole numbers or single IEEE operations, so that these images, and with them
the proposals, are the same on every machine of one architecture.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from sppdet.core.jit import jit
from sppdet.core.types import UInt8Array

# OpenCV's 8-bit conversions to these are the same on every processor (that to HLS is not). Hue
# runs from 0 to 179.
_CONVERSIONS = {
    "hsv": cv2.COLOR_RGB2HSV,
    "lab": cv2.COLOR_RGB2LAB,
    "luv": cv2.COLOR_RGB2LUV,
    "yuv": cv2.COLOR_RGB2YUV,
    "rgb": None,
}
COLOR_SPACES = tuple(_CONVERSIONS)


def resized_shape(width: int, height: int, area: int) -> tuple[int, int]:
    """Width and height after shrinking to about `area` pixels, aspect kept; never enlarged.

    Invariant: at least 1 x 1, never larger than the image, and at most `area` pixels.
    """
    factor = math.sqrt(area / (width * height))
    if factor >= 1.0:
        return width, height
    new_width = max(1, round(width * factor))
    new_height = max(1, round(height * factor))
    # Rounding, most of all a side of one pixel, can make it more than `area`.
    most_wide, most_high = max(1, area // new_height), max(1, area // new_width)
    return min(new_width, width, most_wide), min(new_height, height, most_high)


@jit()
def shrink(image: UInt8Array, width: int, height: int) -> UInt8Array:
    """Shrink to `uint8 (height, width, 3)`: each pixel the mean of the area it covers."""
    tall, wide = image.shape[0], image.shape[1]
    flat = image.reshape(tall, wide * 3)
    out = np.empty((height, width, 3), np.uint8)
    total = np.empty(wide * 3, np.int32)
    scale = 1.0 / (np.float64(tall) * np.float64(wide))
    # Source row j covers [j * height, (j + 1) * height), output row y [y * tall, (y + 1) * tall).
    for y in range(height):
        total[:] = 0
        low, high = y * tall, (y + 1) * tall
        for j in range(low // height, (high + height - 1) // height):
            weight = np.int32(min(high, (j + 1) * height) - max(low, j * height))
            source = flat[j]
            for i in range(wide * 3):
                total[i] += weight * np.int32(source[i])
        for x in range(width):
            left, right = x * wide, (x + 1) * wide
            r, g, b = np.int64(0), np.int64(0), np.int64(0)
            for i in range(left // width, (right + width - 1) // width):
                share = min(right, (i + 1) * width) - max(left, i * width)
                r += share * total[3 * i]
                g += share * total[3 * i + 1]
                b += share * total[3 * i + 2]
            out[y, x, 0] = np.uint8(r * scale + 0.5)
            out[y, x, 1] = np.uint8(g * scale + 0.5)
            out[y, x, 2] = np.uint8(b * scale + 0.5)
    return out


def convert_color(image: UInt8Array, space: str) -> UInt8Array:
    """Convert an RGB image to a color space, `uint8 (H, W, 3)`."""
    code = _CONVERSIONS[space]
    if code is None:
        return image
    return np.asarray(cv2.cvtColor(image, code), dtype=np.uint8)
