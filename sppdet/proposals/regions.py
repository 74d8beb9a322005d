"""Statistics of the regions of a segmentation: sizes, boxes, histograms, and who touches whom."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sppdet.compiled import kernel

# Bins of a colour channel (Uijlings et al. 2013, section 3.2).
COLOUR_BINS = 25
# Texture bins of a channel: 8 directions of the gradient x 4 classes of its size.
TEXTURE_BINS = 32

Int32 = NDArray[np.int32]
UInt8 = NDArray[np.uint8]
UInt32 = NDArray[np.uint32]
_FAR = np.iinfo(np.int32).max


@kernel
def pixel_extents(labels: UInt32, width: int, count: int) -> Int32:
    """`int32 (count, 4)`: the half-open box x1 y1 x2 y2 around the pixels of each label.

    `labels (H * width,)` are 0 .. count - 1, row by row.
    """
    boxes = np.empty((count, 4), np.int32)
    boxes[:, :2] = _FAR
    boxes[:, 2:] = 0
    for y in range(len(labels) // width):
        for x in range(width):
            box = boxes[labels[y * width + x]]
            box[0] = min(box[0], x)
            box[1] = min(box[1], y)
            box[2] = max(box[2], x + 1)
            box[3] = y + 1
    return boxes


@kernel
def merge_extents(numbers: UInt32, boxes: Int32, count: int) -> Int32:
    """`int32 (count, 4)`: the box around the `boxes (N, 4)` that share a number."""
    out = np.empty((count, 4), np.int32)
    out[:, :2] = _FAR
    out[:, 2:] = 0
    for i in range(len(numbers)):
        box = out[numbers[i]]
        box[0] = min(box[0], boxes[i, 0])
        box[1] = min(box[1], boxes[i, 1])
        box[2] = max(box[2], boxes[i, 2])
        box[3] = max(box[3], boxes[i, 3])
    return out


@kernel
def sum_sizes(numbers: UInt32, sizes: Int32, count: int) -> Int32:
    """`int32 (count,)`: the summed `sizes (N,)` of those that share a number."""
    out = np.zeros(count, np.int32)
    for i in range(len(numbers)):
        out[numbers[i]] += sizes[i]
    return out


@kernel
def compose(first: UInt32, then: UInt32) -> UInt32:
    """`uint32 (len(first),)`: `then[first]`, the numbers after two renumberings in a row."""
    out = np.empty(len(first), np.uint32)
    for i in range(len(first)):
        out[i] = then[first[i]]
    return out


@kernel
def colour_bins(image: UInt8) -> UInt8:
    """`uint8 (H * W, 3)`: the histogram bin of each pixel's channels; channel c's from 25 c on."""
    height, width = image.shape[0], image.shape[1]
    flat = image.reshape(height * width, 3)
    out = np.empty((height * width, 3), np.uint8)
    for i in range(height * width):
        for c in range(3):
            out[i, c] = ((np.int32(flat[i, c]) * COLOUR_BINS) >> 8) + COLOUR_BINS * c
    return out


@kernel
def texture_bins(planes: Int32) -> UInt8:
    """`uint8 (H * W, 3)`: the texture bin of each pixel's channels; channel c's from 32 c on.

    A bin is one of 8 directions of the gradient (central differences of the smoothed channel)
    and one of 4 classes of its larger component: under 1, 4, 16 grey levels, or more.
    """
    height, width = planes.shape[1], planes.shape[2]
    out = np.empty((height * width, 3), np.uint8)
    for y in range(height):
        up, down = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            left, right = max(x - 1, 0), min(x + 1, width - 1)
            for c in range(3):
                dx = planes[c, y, right] - planes[c, y, left]
                dy = planes[c, down, x] - planes[c, up, x]
                octant = (dx < 0) * 4 + (dy < 0) * 2 + (abs(dx) < abs(dy))
                size = max(abs(dx), abs(dy)) // 128
                level = (size >= 1) + (size >= 4) + (size >= 16)
                out[y * width + x, c] = TEXTURE_BINS * c + 4 * octant + level
    return out


@kernel
def histograms(labels: UInt32, region: UInt32, bins: UInt8, n_bins: int, count: int) -> Int32:
    """`int32 (count, n_bins)` counts of `bins (P, 3)`; pixel i lies in `region[labels[i]]`."""
    out = np.zeros((count, n_bins), np.int32)
    for i in range(len(labels)):
        row = out[region[labels[i]]]
        row[bins[i, 0]] += 1
        row[bins[i, 1]] += 1
        row[bins[i, 2]] += 1
    return out


@kernel
def adjacency(region: UInt32, start: UInt32, end: UInt32, count: int) -> Int32:
    """`int32 (P, 2)`: pairs a < b of regions that an edge joins, each once, in ascending order."""
    touches = np.zeros((count, count), np.bool_)
    pairs = 0
    for e in range(len(start)):
        p, q = region[start[e]], region[end[e]]
        low, high = min(p, q), max(p, q)
        if low != high and not touches[low, high]:
            touches[low, high] = True
            pairs += 1
    out = np.empty((pairs, 2), np.int32)
    at = 0
    for a in range(count):
        for b in range(a + 1, count):
            if touches[a, b]:
                out[at, 0], out[at, 1] = a, b
                at += 1
    return out
