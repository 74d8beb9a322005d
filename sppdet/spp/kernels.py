"""Compiled loops of region pooling. Maps are `(h, w, C)` contiguous, so channels run innermost.

All kernels release the GIL and write only to their own rows (forward) or channels (backward), so
that threads can share a call and the result does not depend on how many there are.
"""

from __future__ import annotations

import numpy as np

from sppdet.core.jit import jit
from sppdet.core.types import FloatingArray, IntArray

# Scratch rows are this much longer than the channels, or a column of them, a power of two apart,
# would compete for the same few cache sets.
SKEW = 16


@jit()
def maximum(out: FloatingArray, a: FloatingArray, b: FloatingArray) -> None:
    """`out = max(a, b)`."""
    for c in range(out.size):
        out[c] = a[c] if a[c] > b[c] else b[c]


@jit()
def accumulate_max(out: FloatingArray, a: FloatingArray, b: FloatingArray) -> None:
    """`out = max(out, a, b)`."""
    for c in range(out.size):
        m = a[c] if a[c] > b[c] else b[c]
        out[c] = m if m > out[c] else out[c]


@jit()
def fill_tile_maxima(tables: FloatingArray) -> None:
    """From the map in `tables[0, 0]`, `tables[i, j, y, x]`: the maximum of 2^i x 2^j cells.

    The tile's top left cell is (y, x); cells whose tile would leave the map stay unset.
    """
    down, right, height, width, channels = tables.shape
    for i in range(down):
        if i > 0:
            half = 1 << (i - 1)
            for y in range(height - 2 * half + 1):
                below = tables[i - 1, 0, y + half].ravel()
                maximum(tables[i, 0, y].ravel(), tables[i - 1, 0, y].ravel(), below)
        for j in range(1, right):
            half = 1 << (j - 1)
            count = max(0, width - 2 * half + 1) * channels
            shift = half * channels
            for y in range(height - (1 << i) + 1):
                row = tables[i, j - 1, y].ravel()
                maximum(tables[i, j, y].ravel()[:count], row[:count], row[shift : shift + count])


@jit()
def fill_integral(feature_map: FloatingArray, integral: FloatingArray) -> None:
    """`integral[y, x]` (float64): the sum of the cells above `y` and left of `x`."""
    height, width, channels = feature_map.shape
    integral[0] = 0.0
    for y in range(height):
        integral[y + 1, 0] = 0.0
        line = np.zeros(channels)
        for x in range(width):
            cell, above, out = feature_map[y, x], integral[y, x + 1], integral[y + 1, x + 1]
            for c in range(channels):
                line[c] += cell[c]
                out[c] = above[c] + line[c]


@jit()
def max_bins(tables: FloatingArray, window: IntArray, level: int, bins: FloatingArray) -> None:
    """The maxima of one window's `level` x `level` bins, each covered by tiles of `tables`."""
    down, right = tables.shape[0] - 1, tables.shape[1] - 1
    x1, y1, x2, y2 = window
    height, width = y2 - y1, x2 - x1
    for i in range(level):
        top, bottom = y1 + i * height // level, y1 + ((i + 1) * height + level - 1) // level
        tall = 0
        while tall < down and (2 << tall) <= bottom - top:
            tall += 1
        for j in range(level):
            left, end = x1 + j * width // level, x1 + ((j + 1) * width + level - 1) // level
            wide = 0
            while wide < right and (2 << wide) <= end - left:
                wide += 1
            table, out = tables[tall, wide], bins[i * level + j]
            last_y, last_x, step = bottom - (1 << tall), end - (1 << wide), 1 << wide
            first = True
            for y in range(top, bottom, 1 << tall):
                row = table[min(y, last_y)]
                for x in range(left, end, 2 * step):
                    a, b = row[min(x, last_x)], row[min(x + step, last_x)]
                    if first:
                        maximum(out, a, b)
                    else:
                        accumulate_max(out, a, b)
                    first = False


@jit()
def merge_bins(fine: FloatingArray, level: int, bins: FloatingArray) -> None:
    """The maxima of `level` x `level` bins from those of a finer level that `level` divides."""
    side = round(np.sqrt(len(fine)))
    times = side // level
    for i in range(level):
        for j in range(level):
            out, corner = bins[i * level + j], i * times * side + j * times
            for k in range(0, times * times, 2):
                last = min(k + 1, times * times - 1)
                a = fine[corner + k // times * side + k % times]
                b = fine[corner + last // times * side + last % times]
                if k == 0:
                    maximum(out, a, b)
                else:
                    accumulate_max(out, a, b)


@jit()
def mean_bins(integral: FloatingArray, window: IntArray, level: int, bins: FloatingArray) -> None:
    """The means of one window's bins, from the map's float64 integral `(h + 1, w + 1, C)`."""
    x1, y1, x2, y2 = window
    height, width = y2 - y1, x2 - x1
    for i in range(level):
        top, bottom = y1 + i * height // level, y1 + ((i + 1) * height + level - 1) // level
        for j in range(level):
            left, end = x1 + j * width // level, x1 + ((j + 1) * width + level - 1) // level
            share = 1.0 / ((bottom - top) * (end - left))
            a, b = integral[top, left], integral[top, end]
            c, d = integral[bottom, left], integral[bottom, end]
            out = bins[i * level + j]
            for k in range(out.size):
                out[k] = ((d[k] - c[k]) - (b[k] - a[k])) * share


@jit()
def write_channel_major(bins: FloatingArray, out: FloatingArray) -> None:
    """`out[c * len(bins) + bin] = bins[bin, c]`; it is the writes that go in order of memory."""
    count, channels = bins.shape
    for c in range(channels):
        column = out[c * count : (c + 1) * count]
        for index in range(count):
            column[index] = bins[index, c]


@jit()
def pool_max(
    tables: FloatingArray,
    windows: IntArray,
    levels: IntArray,
    sources: IntArray,
    out: FloatingArray,
) -> None:
    """Max-pool `windows` into the rows of `out`.

    `levels` run from fine to coarse; `sources[k]` is the position of the level that level `k` is
    merged from, or -1 where it is pooled from the map; row `k` of `levels` holds the level and
    the number of bins of all levels before it in the output's order.
    """
    channels = tables.shape[4]
    finest = levels[0, 0]
    scratch = np.empty((len(levels), finest * finest, channels + SKEW), tables.dtype)
    for r in range(len(windows)):
        for k in range(len(levels)):
            level, before = levels[k]
            bins = scratch[k, : level * level, :channels]
            if sources[k] < 0:
                max_bins(tables, windows[r], level, bins)
            else:
                source = sources[k]
                side = levels[source, 0]
                merge_bins(scratch[source, : side * side, :channels], level, bins)
            begin = before * channels
            write_channel_major(bins, out[r, begin : begin + level * level * channels])


@jit()
def pool_mean(
    integral: FloatingArray, windows: IntArray, levels: IntArray, out: FloatingArray
) -> None:
    """Average-pool `windows` into the rows of `out`; `levels` as in `pool_max`."""
    channels = integral.shape[2]
    finest = levels[0, 0]
    scratch = np.empty((finest * finest, channels + SKEW), out.dtype)
    for r in range(len(windows)):
        for k in range(len(levels)):
            level, before = levels[k]
            bins = scratch[: level * level, :channels]
            mean_bins(integral, windows[r], level, bins)
            begin = before * channels
            write_channel_major(bins, out[r, begin : begin + level * level * channels])


@jit()
def scatter_max(
    grad: FloatingArray,
    feature_map: FloatingArray,
    windows: IntArray,
    levels: IntArray,
    out: FloatingArray,
) -> None:
    """Add each bin's gradient to `out (h, w, C)` at the bin's first maximum in reading order.

    `grad` is `(N, bins, C)`. `feature_map`, `grad` and `out` may be a range of channels.
    """
    channels = feature_map.shape[2]
    best = np.empty(channels, feature_map.dtype)
    where_y, where_x = np.empty(channels, np.int32), np.empty(channels, np.int32)
    for r in range(len(windows)):
        x1, y1, x2, y2 = windows[r]
        height, width = y2 - y1, x2 - x1
        for k in range(len(levels)):
            level, before = levels[k]
            for index in range(level * level):
                i, j = index // level, index % level
                top, bottom = y1 + i * height // level, y1 + ((i + 1) * height + level - 1) // level
                left, end = x1 + j * width // level, x1 + ((j + 1) * width + level - 1) // level
                corner = feature_map[top, left]
                for c in range(channels):
                    best[c], where_y[c], where_x[c] = corner[c], top, left
                for y in range(top, bottom):
                    for x in range(left, end):
                        cell = feature_map[y, x]
                        for c in range(channels):
                            if cell[c] > best[c]:
                                best[c], where_y[c], where_x[c] = cell[c], y, x
                for c in range(channels):
                    out[where_y[c], where_x[c], c] += grad[r, before + index, c]


@jit()
def scatter_mean(
    grad: FloatingArray, windows: IntArray, levels: IntArray, out: FloatingArray
) -> None:
    """Add each bin's gradient, shared among its cells, to `out (h, w, C)`; as `scatter_max`.

    Each bin is four numbers in a table whose running sums along both axes are the gradient.
    """
    rows, columns, channels = out.shape
    table = np.zeros((rows + 1, columns + 1, channels), np.float64)
    for r in range(len(windows)):
        x1, y1, x2, y2 = windows[r]
        height, width = y2 - y1, x2 - x1
        for k in range(len(levels)):
            level, before = levels[k]
            for index in range(level * level):
                i, j = index // level, index % level
                top, bottom = y1 + i * height // level, y1 + ((i + 1) * height + level - 1) // level
                left, end = x1 + j * width // level, x1 + ((j + 1) * width + level - 1) // level
                share = 1.0 / ((bottom - top) * (end - left))
                for c in range(channels):
                    value = share * grad[r, before + index, c]
                    table[top, left, c] += value
                    table[top, end, c] -= value
                    table[bottom, left, c] -= value
                    table[bottom, end, c] += value
    above = np.zeros((columns, channels), np.float64)
    line = np.empty(channels, np.float64)
    for y in range(rows):
        line[:] = 0.0
        for x in range(columns):
            for c in range(channels):
                line[c] += table[y, x, c]
                above[x, c] += line[c]
                out[y, x, c] += above[x, c]
