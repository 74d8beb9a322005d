"""Graph-based segmentation (Felzenszwalb and Huttenlocher, IJCV 2004), several scales in a row.

Weights are whole numbers, `round(64 * color distance)`, so every comparison is exact and sorting
the edges is one counting sort. The paper's predicate `w <= Int(C) + k / |C|` then reads
`w <= Int(C) + floor(64 k / |C|)`.

Scales share work. An edge that joined two components at one `k` is settled; a larger `k` goes
once more, from the lightest, through the edges that failed (about one in seven), starting from
the components reached so far. `Int(C)` is the weight of the edge that joined C last: in one pass
that is the paper's largest weight inside C, and in a later pass, where a light edge can join
components that heavier edges made, it keeps such a join from opening the door to all the rest.
"""

from __future__ import annotations

import numpy as np

from sppdet.core.jit import jit
from sppdet.core.types import Int32Array, UInt8Array, UInt32Array

# Weights are in units of 1/64 of a gray level: the sum of the smoothing kernel's weights.
WEIGHT_SCALE = 64
# Above the largest weight, sqrt(3) * 255 * 64.
WEIGHTS = 28270


@jit()
def smooth(image: UInt8Array) -> Int32Array:
    """`int32 (3, H, W)`: 64 times `image (H, W, 3)` blurred by [1 6 1] / 8 both ways (sigma 0.5).

    Pixels outside the image are those at its border.
    """
    height, width = image.shape[0], image.shape[1]
    out = np.empty((3, height, width), np.int32)
    row = np.empty((3, width + 2), np.int32)
    for y in range(height):
        up, down = image[max(y - 1, 0)], image[min(y + 1, height - 1)]
        here = image[y]
        for x in range(width):
            for c in range(3):
                row[c, x + 1] = np.int32(up[x, c]) + 6 * np.int32(here[x, c]) + np.int32(down[x, c])
        for c in range(3):
            row[c, 0], row[c, width + 1] = row[c, 1], row[c, width]
            for x in range(width):
                out[c, y, x] = row[c, x] + 6 * row[c, x + 1] + row[c, x + 2]
    return out


@jit()
def _weights(planes: Int32Array, dy: int, dx: int) -> Int32Array:
    height, width = planes.shape[1], planes.shape[2]
    out = np.empty((height, width), np.int32)
    for y in range(height - dy):
        for x in range(width - dx):
            a = planes[0, y, x] - planes[0, y + dy, x + dx]
            b = planes[1, y, x] - planes[1, y + dy, x + dx]
            c = planes[2, y, x] - planes[2, y + dy, x + dx]
            square = np.float32(np.int32(a * a + b * b + c * c))
            out[y, x] = np.int32(np.sqrt(square) + np.float32(0.5))
    return out


@jit()
def grid_edges(planes: Int32Array) -> tuple[UInt32Array, UInt32Array, Int32Array]:
    """Edges of the 4-connected pixel grid of `planes (3, H, W)`: start, end, weight, `(E,)` each.

    Ascending in weight; equal weights pixel by pixel, the edge to the right before the one down.
    """
    height, width = planes.shape[1], planes.shape[2]
    right, down = _weights(planes, 0, 1), _weights(planes, 1, 0)
    offsets = np.zeros(WEIGHTS + 1, np.int32)
    for y in range(height):
        for x in range(width):
            if x + 1 < width:
                offsets[np.uint32(right[y, x] + 1)] += 1
            if y + 1 < height:
                offsets[np.uint32(down[y, x] + 1)] += 1
    for i in range(WEIGHTS):
        offsets[i + 1] += offsets[i]
    count = height * (width - 1) + (height - 1) * width
    start = np.empty(count, np.uint32)
    end = np.empty(count, np.uint32)
    weight = np.empty(count, np.int32)
    for y in range(height):
        for x in range(width):
            pixel = y * width + x
            if x + 1 < width:
                w = right[y, x]
                at = np.uint32(offsets[np.uint32(w)])
                offsets[np.uint32(w)] += 1
                start[at], end[at], weight[at] = pixel, pixel + 1, w
            if y + 1 < height:
                w = down[y, x]
                at = np.uint32(offsets[np.uint32(w)])
                offsets[np.uint32(w)] += 1
                start[at], end[at], weight[at] = pixel, pixel + width, w
    return start, end, weight


# Arrays of node numbers are unsigned: numba then skips the test for negative indices, which
# nearly doubles the speed of the union-find.
@jit()
def _find(parent: UInt32Array, node: np.uint32) -> np.uint32:
    """Find the root of `node`'s tree, halving the path to it."""
    above = parent[node]
    while above != node:
        over = parent[above]
        parent[node] = over
        node = over
        above = parent[node]
    return node


@jit()
def _number(parent: UInt32Array) -> tuple[UInt32Array, int]:
    """Number each node's tree, by first appearance, and how many trees there are."""
    labels = np.empty(len(parent), np.uint32)
    number = np.full(len(parent), len(parent), np.uint32)
    count = np.uint32(0)
    for i in range(len(parent)):
        root = _find(parent, np.uint32(i))
        if number[root] == len(parent):
            number[root] = count
            count += np.uint32(1)
        labels[i] = number[root]
    return labels, int(count)


@jit()
def join(
    start: UInt32Array,
    end: UInt32Array,
    weight: Int32Array,
    sizes: Int32Array,
    inner: Int32Array,
    scale: int,
) -> tuple[UInt32Array, Int32Array, Int32Array, UInt32Array, UInt32Array, Int32Array]:
    """One pass of the paper's algorithm 1 over sorted edges between nodes; `scale` is `64 k`.

    A node is a component reached so far, of `sizes (N,)` pixels and with Int(C) `inner (N,)`.
    Returns the component of each node, numbered by first appearance, the components' sizes and
    inner weights, and the edges that still lie between two of them, in the same order.
    """
    nodes = len(sizes)
    parent = np.arange(nodes).astype(np.uint32)
    size = sizes.copy()
    last = inner.copy()
    limit = np.empty(nodes, np.int32)
    for i in range(nodes):
        limit[i] = last[i] + np.int32(scale) // size[i]
    failed = np.empty(len(start), np.uint32)
    n_failed = 0
    for e in range(len(start)):
        a, b = _find(parent, start[e]), _find(parent, end[e])
        if a == b:
            continue
        w = weight[e]
        if w <= min(limit[a], limit[b]):
            if size[a] < size[b]:
                a, b = b, a
            parent[b] = a
            size[a] += size[b]
            last[a] = w
            limit[a] = w + np.int32(scale) // size[a]
        else:
            failed[n_failed] = e
            n_failed += 1
    numbers, count = _number(parent)
    new_sizes = np.empty(count, np.int32)
    new_inner = np.empty(count, np.int32)
    for i in range(nodes):
        if parent[i] == i:
            new_sizes[numbers[i]] = size[i]
            new_inner[numbers[i]] = last[i]
    edges = _between(numbers, failed[:n_failed], start, end, weight)
    return numbers, new_sizes, new_inner, edges[0], edges[1], edges[2]


@jit()
def _between(
    numbers: UInt32Array,
    which: UInt32Array,
    start: UInt32Array,
    end: UInt32Array,
    weight: Int32Array,
) -> tuple[UInt32Array, UInt32Array, Int32Array]:
    """Select those of the edges `which` whose ends have different numbers, given as numbers."""
    new_start = np.empty(len(which), np.uint32)
    new_end = np.empty(len(which), np.uint32)
    new_weight = np.empty(len(which), np.int32)
    kept = 0
    for e in which:
        a, b = numbers[start[e]], numbers[end[e]]
        if a != b:
            new_start[kept], new_end[kept], new_weight[kept] = a, b, weight[e]
            kept += 1
    return new_start[:kept].copy(), new_end[:kept].copy(), new_weight[:kept].copy()


@jit()
def absorb_small(
    start: UInt32Array, end: UInt32Array, sizes: Int32Array, min_size: int
) -> tuple[UInt32Array, int]:
    """The region of each node, by first appearance, and their number, after every edge, lightest
    first, of which one end lies in a region of fewer than `min_size` pixels has joined its ends.
    """
    parent = np.arange(len(sizes)).astype(np.uint32)
    size = sizes.copy()
    for e in range(len(start)):
        a, b = _find(parent, start[e]), _find(parent, end[e])
        if a != b and min(size[a], size[b]) < min_size:
            if size[a] < size[b]:
                a, b = b, a
            parent[b] = a
            size[a] += size[b]
    return _number(parent)
