"""Projection of boxes to windows of feature map cells, and the scale that each is pooled at.

The release's rule and the paper's differ (He et al. 2014, appendix A; the authors' Matlab code).
Both start from the centers of the box's first and last pixel, measured in cells from the center of
cell 0: the release moves both inwards by `SHRINK` cells and rounds to the nearest cell, left half
up and right half down; the paper takes the cells strictly between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sppdet.backbones.receptive_field import ReceptiveField
from sppdet.core.types import FloatArray, IntArray

Rule = Literal["release", "paper"]

# The release shrinks a box by 6.5 pixels per side at stride 16; other strides in proportion.
SHRINK = 6.5 / 16
# A region is pooled at the scale at which its side is nearest to this many pixels: the
# release's 13 cells of 16 pixels, and the paper's input side.
RELEASE_SIDE = 208.0
PAPER_SIDE = 224.0


def project_boxes(
    boxes: FloatArray,
    factor_x: float,
    factor_y: float,
    geometry: ReceptiveField,
    map_height: int,
    map_width: int,
    rule: Rule = "release",
) -> IntArray:
    """`int64 (N, 4)` half-open windows `x1 y1 x2 y2` in cells of the map, one per box.

    Boxes are half-open image pixels; the factors take image to network-input pixels. A window is
    never empty and never leaves the map: an empty one becomes the cell in its middle, and one
    outside the map the nearest cell of its border. Invariant: at factor 1, stride 16 and offset0
    21 this is the release's 1-based formula exactly.
    """
    corners = boxes.astype(np.float64)
    out = np.empty((len(corners), 4), np.int64)
    for axis, (factor, cells) in enumerate(((factor_x, map_width), (factor_y, map_height))):
        first = (corners[:, axis] * factor + 0.5 - geometry.offset) / geometry.stride
        last = (corners[:, axis + 2] * factor - 0.5 - geometry.offset) / geometry.stride
        if rule == "release":
            low, high = np.floor(first + SHRINK + 0.5), np.ceil(last - SHRINK - 0.5)
        else:
            low, high = np.floor(first) + 1, np.ceil(last) - 1
        middle = np.floor((low + high) / 2)
        empty = low > high
        low, high = np.where(empty, middle, low), np.where(empty, middle, high)
        out[:, axis] = np.clip(low, 0, cells - 1)
        out[:, axis + 2] = np.clip(high, 0, cells - 1) + 1
    return out


def select_scale(
    boxes: FloatArray,
    width: int,
    height: int,
    scales: Sequence[int],
    rule: Rule = "release",
    side: float | None = None,
) -> IntArray:
    """`int64 (N,)` index into `scales` (short sides in pixels) of the best one per box.

    The release takes the scale nearest to the one, rounded, that makes the square root of the
    box's area `side` = 208; the paper the one at which the area is nearest to `side` = 224
    squared. The first of equally near scales wins. Boxes are half-open pixels of an image of
    `width` x `height`; one of area 0 counts as one pixel.
    """
    corners = boxes.astype(np.float64)
    sizes = corners[:, 2:] - corners[:, :2]
    area: NDArray[np.float64] = np.maximum(sizes[:, 0] * sizes[:, 1], 1.0)
    short = min(width, height)
    candidates = np.asarray(scales, np.float64)
    if rule == "release":
        wanted = (RELEASE_SIDE if side is None else side) * short / np.sqrt(area)
        distance = np.abs(candidates[None] - np.floor(wanted + 0.5)[:, None])
    else:
        target = (PAPER_SIDE if side is None else side) ** 2
        distance = np.abs(area[:, None] * (candidates[None] / short) ** 2 - target)
    nearest: IntArray = distance.argmin(axis=1)
    return nearest
