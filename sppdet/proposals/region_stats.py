"""Statistics of the regions of a segmentation: sizes, boxes, histograms, adjacency."""

from __future__ import annotations

import numpy as np

from sppdet.core.jit import jit
from sppdet.core.types import Int32Array, UInt8Array, UInt32Array

# Bins of a color channel (Uijlings et al. 2013, section 3.2).
COLOR_BINS = 25

_FAR = np.iinfo(np.int32).max


@jit()
def pixel_extents(labels: UInt32Array, width: int, count: int) -> Int32Array:
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


@jit()
def merge_extents(numbers: UInt32Array, boxes: Int32Array, count: int) -> Int32Array:
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


@jit()
def sum_sizes(numbers: UInt32Array, sizes: Int32Array, count: int) -> Int32Array:
    """`int32 (count,)`: the summed `sizes (N,)` of those that share a number."""
    out = np.zeros(count, np.int32)
    for i in range(len(numbers)):
        out[numbers[i]] += sizes[i]
    return out


@jit()
def compose_labels(first: UInt32Array, then: UInt32Array) -> UInt32Array:
    """`uint32 (len(first),)`: `then[first]`, the numbers after two renumberings in a row."""
    out = np.empty(len(first), np.uint32)
    for i in range(len(first)):
        out[i] = then[first[i]]
    return out


@jit()
def color_bins(image: UInt8Array) -> UInt8Array:
    """`uint8 (H * W, 3)`: the histogram bin of each pixel's channels; channel c's from 25 c on."""
    height, width = image.shape[0], image.shape[1]
    flat = image.reshape(height * width, 3)
    out = np.empty((height * width, 3), np.uint8)
    for i in range(height * width):
        for c in range(3):
            out[i, c] = ((np.int32(flat[i, c]) * COLOR_BINS) >> 8) + COLOR_BINS * c
    return out


@jit()
def histograms(
    labels: UInt32Array, region: UInt32Array, bins: UInt8Array, n_bins: int, count: int
) -> Int32Array:
    """`int32 (count, n_bins)` counts of `bins (P, 3)`; pixel i lies in `region[labels[i]]`."""
    out = np.zeros((count, n_bins), np.int32)
    for i in range(len(labels)):
        row = out[region[labels[i]]]
        row[bins[i, 0]] += 1
        row[bins[i, 1]] += 1
        row[bins[i, 2]] += 1
    return out


@jit()
def adjacency(region: UInt32Array, start: UInt32Array, end: UInt32Array, count: int) -> Int32Array:
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
