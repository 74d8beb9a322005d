"""Box geometry: pure functions of `float32 (N, 4)` arrays, `x1 y1 x2 y2`, half-open pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

# Log-size offsets beyond this would grow a box 50-fold: such a regressor output is nonsense.
MAX_LOG_SCALE = float(np.log(50.0))


def areas(boxes: FloatArray) -> FloatArray:
    """`float32 (N,)` areas in square pixels."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def iou_matrix(a: FloatArray, b: FloatArray) -> FloatArray:
    """`float32 (len(a), len(b))` intersection over union; 0 where both areas are 0.

    Law: symmetric, in [0, 1], and 1 exactly for equal boxes of positive area.
    """
    left_top = np.maximum(a[:, None, :2], b[None, :, :2])
    right_bottom = np.minimum(a[:, None, 2:], b[None, :, 2:])
    side = np.clip(right_bottom - left_top, 0.0, None)
    inter = side[..., 0] * side[..., 1]
    union = areas(a)[:, None] + areas(b)[None, :] - inter
    out: FloatArray = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    return out


def clip(boxes: FloatArray, width: int, height: int) -> FloatArray:
    """Boxes cut to an image of `width` x `height` pixels."""
    limit = np.array([width, height, width, height], dtype=np.float32)
    return np.clip(boxes, np.float32(0), limit)


def grow(boxes: FloatArray, factor: float, width: int, height: int) -> FloatArray:
    """Boxes grown by `factor` about their centres and clipped to the image."""
    if factor == 1.0:
        return boxes
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) * (factor / 2)
    limit = np.array([width, height, width, height], np.float32)
    grown = np.concatenate([centre - half, centre + half], axis=1)
    inside: FloatArray = np.clip(grown, 0, limit).astype(np.float32)
    return inside


def flip_horizontal(boxes: FloatArray, width: int) -> FloatArray:
    """Boxes of the mirrored image. Law: flipping twice gives the boxes back."""
    out = boxes.copy()
    out[:, 0] = width - boxes[:, 2]
    out[:, 2] = width - boxes[:, 0]
    return out


def encode(targets: FloatArray, boxes: FloatArray) -> FloatArray:
    """`float32 (N, 4)` regression targets dx dy dw dh that move `boxes` onto `targets`.

    R-CNN's parametrisation (Girshick et al. 2014, appendix C): centre shifts in units of the
    box's size, log ratios of the sizes. Law: `decode(encode(t, b), b) == t` up to rounding, for
    sides that differ less than 50-fold. Boxes and targets must have positive sides.
    """
    size = boxes[:, 2:] - boxes[:, :2]
    target_size = targets[:, 2:] - targets[:, :2]
    centre = boxes[:, :2] + 0.5 * size
    target_centre = targets[:, :2] + 0.5 * target_size
    out = np.concatenate([(target_centre - centre) / size, np.log(target_size / size)], axis=1)
    return out.astype(np.float32)


def decode(offsets: FloatArray, boxes: FloatArray) -> FloatArray:
    """`float32 (N, 4)` boxes moved by regression offsets; the inverse of `encode`."""
    size = boxes[:, 2:] - boxes[:, :2]
    centre = boxes[:, :2] + 0.5 * size + offsets[:, :2] * size
    new_size = size * np.exp(np.clip(offsets[:, 2:], -MAX_LOG_SCALE, MAX_LOG_SCALE))
    out = np.concatenate([centre - 0.5 * new_size, centre + 0.5 * new_size], axis=1)
    return out.astype(np.float32)
