"""Box geometry: pure functions of `float32 (N, 4)` arrays, `x1 y1 x2 y2`, half-open pixels."""

from __future__ import annotations

import numpy as np

from sppdet.core.types import Float64Array, FloatArray

# Log-size deltas beyond this would expand a box 50-fold: such a regressor output is nonsense.
MAX_LOG_SCALE = float(np.log(50.0))
# Rough standard deviations of box deltas: learned deltas are in units of these (Fast R-CNN).
DELTA_STDS = (0.1, 0.1, 0.2, 0.2)


def areas(boxes: FloatArray) -> FloatArray:
    """`float32 (N,)` areas in square pixels."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def box_iou(a: FloatArray, b: FloatArray) -> FloatArray:
    """`float32 (len(a), len(b))` intersection over union; 0 where both areas are 0.

    Invariant: symmetric, in [0, 1], and 1 exactly for equal boxes of positive area.
    """
    left_top = np.maximum(a[:, None, :2], b[None, :, :2])
    right_bottom = np.minimum(a[:, None, 2:], b[None, :, 2:])
    side = np.clip(right_bottom - left_top, 0.0, None)
    inter = side[..., 0] * side[..., 1]
    union = areas(a)[:, None] + areas(b)[None, :] - inter
    out: FloatArray = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    return out


def paired_iou(a: FloatArray, b: FloatArray) -> Float64Array:
    """`float64 (N,)` intersection over union of `a[i]` with `b[i]`; 0 where both areas are 0."""
    a64, b64 = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    side = np.minimum(a64[:, 2:], b64[:, 2:]) - np.maximum(a64[:, :2], b64[:, :2])
    inter = np.prod(np.clip(side, 0.0, None), axis=1)
    area = np.prod(a64[:, 2:] - a64[:, :2], axis=1) + np.prod(b64[:, 2:] - b64[:, :2], axis=1)
    union = area - inter
    out: Float64Array = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    return out


def clip(boxes: FloatArray, width: int, height: int) -> FloatArray:
    """Clip boxes to an image of `width` x `height` pixels."""
    limit = np.array([width, height, width, height], dtype=np.float32)
    return np.clip(boxes, np.float32(0), limit)


def expand(boxes: FloatArray, factor: float, width: int, height: int) -> FloatArray:
    """Scale boxes by `factor` about their centers and clip them to the image."""
    if factor == 1.0:
        return boxes
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) * (factor / 2)
    limit = np.array([width, height, width, height], np.float32)
    expanded = np.concatenate([center - half, center + half], axis=1)
    inside: FloatArray = np.clip(expanded, 0, limit).astype(np.float32)
    return inside


def flip(boxes: FloatArray, width: int) -> FloatArray:
    """Flip boxes with their image. Invariant: flipping twice gives the boxes back."""
    out = boxes.copy()
    out[:, 0] = width - boxes[:, 2]
    out[:, 2] = width - boxes[:, 0]
    return out


def encode_deltas(targets: FloatArray, boxes: FloatArray) -> FloatArray:
    """Compute regression targets dx dy dw dh, `float32 (N, 4)`, that move `boxes` onto `targets`.

    R-CNN's parametrization (Girshick et al. 2014, appendix C): center shifts in units of the
    box's size, log ratios of the sizes. Boxes and targets must have positive sides. Invariant:
    `decode_deltas(encode_deltas(t, b), b) == t` up to rounding, for sides that differ less than
    50-fold.
    """
    size = boxes[:, 2:] - boxes[:, :2]
    target_size = targets[:, 2:] - targets[:, :2]
    center = boxes[:, :2] + 0.5 * size
    target_center = targets[:, :2] + 0.5 * target_size
    out = np.concatenate([(target_center - center) / size, np.log(target_size / size)], axis=1)
    return out.astype(np.float32)


def decode_deltas(deltas: FloatArray, boxes: FloatArray) -> FloatArray:
    """Move boxes by regression deltas, `float32 (N, 4)`; the inverse of `encode_deltas`."""
    size = boxes[:, 2:] - boxes[:, :2]
    center = boxes[:, :2] + 0.5 * size + deltas[:, :2] * size
    new_size = size * np.exp(np.clip(deltas[:, 2:], -MAX_LOG_SCALE, MAX_LOG_SCALE))
    out = np.concatenate([center - 0.5 * new_size, center + 0.5 * new_size], axis=1)
    return out.astype(np.float32)
