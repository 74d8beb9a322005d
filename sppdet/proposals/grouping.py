"""Hierarchical grouping (Uijlings et al., IJCV 2013, algorithm 1): join the most similar pair.

The paper's size and fill similarities add up to `2 - |box of the pair| / |image|`: the regions'
own sizes cancel. So size + fill says "smallest joint box first", and with the histogram
intersection added, similarity is a whole number of `1 / (ONE * |image|)`: ties are real ties,
and are broken by the lower region numbers.
"""

from __future__ import annotations

import numpy as np

from sppdet.core.jit import jit
from sppdet.core.types import Int32Array, IntArray

# A histogram's channels each sum to about this much after normalizing.
ONE = 1 << 14
# Below every similarity.
LOWEST = np.iinfo(np.int64).min


@jit()
def _normalize(counts: Int32Array, size: int, out: Int32Array) -> None:
    factor = np.float32(ONE) / np.float32(size)
    for i in range(len(counts)):
        out[i] = np.int32(np.float32(counts[i]) * factor)


@jit()
def _similarity(
    a: int, b: int, boxes: Int32Array, hist: Int32Array, weight: int, area: int
) -> np.int64:
    """`weight * intersection * area - ONE * channels * joint box area`; larger is more alike."""
    width = max(boxes[a, 2], boxes[b, 2]) - min(boxes[a, 0], boxes[b, 0])
    height = max(boxes[a, 3], boxes[b, 3]) - min(boxes[a, 1], boxes[b, 1])
    value = -np.int64(3 * ONE) * np.int64(width) * np.int64(height)
    if weight > 0:
        common = np.int32(0)
        p, q = hist[a], hist[b]
        for i in range(len(p)):
            common += min(p[i], q[i])
        value += np.int64(weight) * np.int64(common) * np.int64(area)
    return value


@jit()
def group(
    sizes: Int32Array,
    boxes: Int32Array,
    counts: Int32Array,
    pairs: Int32Array,
    weight: int,
    area: int,
) -> Int32Array:
    """Group regions bottom-up; boxes `int32 (M, 4)` of all regions of the hierarchy.

    The first regions come first, then those that joins made, in their order. `counts (R, bins)`
    are histograms of three channels; `pairs (P, 2)` touch; `weight` is that of the histograms
    beside size + fill: 0 (then `counts` are not read) or more; `area` is the image's.
    """
    n, total = len(sizes), 2 * len(sizes) - 1
    box = np.empty((total, 4), np.int32)
    box[:n] = boxes
    size, count, hist = _statistics(sizes, counts, weight, total)
    # Neighbor lists lie one after the other in an arena, with the similarities; the list of a
    # new region goes to the end. Beside each region, its best neighbor is kept.
    first, degree, who, how = _neighbors(pairs, n, total)
    best = np.full(total, LOWEST, np.int64)
    mate = np.full(total, -1, np.int32)
    for i in range(n):
        for p in range(first[i], first[i] + degree[i]):
            how[p] = _similarity(i, who[p], box, hist, weight, area)
        _choose(i, first, degree, who, how, best, mate)
    live = np.arange(n).astype(np.int32)
    mark = np.full(total, -1, np.int32)
    end, new = first[n], n
    for alive in range(n, 1, -1):
        a = _most_alike(live, alive, best)
        b = int(mate[a])
        if b < 0:
            break
        for i in range(2):
            box[new, i] = min(box[a, i], box[b, i])
            box[new, i + 2] = max(box[a, i + 2], box[b, i + 2])
        size[new] = size[a] + size[b]
        if weight > 0:
            for i in range(count.shape[1]):
                count[new, i] = count[a, i] + count[b, i]
            _normalize(count[new], size[new], hist[new])
        first[new] = end
        for old in (a, b):
            for p in range(first[old], first[old] + degree[old]):
                near = who[p]
                if near in (a, b) or mark[near] == new:
                    continue
                mark[near] = new
                s = _similarity(near, new, box, hist, weight, area)
                who[end], how[end] = near, s
                end += 1
                _replace(near, a, b, new, s, first, degree, who, how, best, mate)
        degree[new] = end - first[new]
        _choose(new, first, degree, who, how, best, mate)
        _retire(live, alive, a, b, new)
        new += 1
    return box[:new]


@jit()
def _statistics(
    sizes: Int32Array, counts: Int32Array, weight: int, total: int
) -> tuple[Int32Array, Int32Array, Int32Array]:
    """Room for `total` regions' sizes, counts and histograms, filled for the first ones."""
    size = np.empty(total, np.int32)
    size[: len(sizes)] = sizes
    bins = counts.shape[1] if weight > 0 else 0
    count = np.empty((total, bins), np.int32)
    hist = np.empty((total, bins), np.int32)
    if weight > 0:
        for i in range(len(sizes)):
            count[i] = counts[i]
            _normalize(counts[i], sizes[i], hist[i])
    return size, count, hist


@jit()
def _neighbors(
    pairs: Int32Array, n: int, total: int
) -> tuple[IntArray, Int32Array, Int32Array, IntArray]:
    """Starts and lengths of the regions' lists, the arena, and room for similarities.

    The arena has room for all lists to come: a new region has at most all others for neighbors.
    """
    first = np.zeros(total + 1, np.int64)
    degree = np.zeros(total, np.int32)
    for p in range(len(pairs)):
        degree[pairs[p, 0]] += 1
        degree[pairs[p, 1]] += 1
    for i in range(n):
        first[i + 1] = first[i] + degree[i]
    who = np.empty(first[n] + (n * (n - 1)) // 2, np.int32)
    how = np.empty(len(who), np.int64)
    degree[:] = 0
    for p in range(len(pairs)):
        a, b = pairs[p, 0], pairs[p, 1]
        who[first[a] + degree[a]] = b
        who[first[b] + degree[b]] = a
        degree[a] += 1
        degree[b] += 1
    return first, degree, who, how


@jit()
def _most_alike(live: Int32Array, alive: int, best: IntArray) -> int:
    """Find the lowest of the regions `live[:alive]` (ascending) of highest best similarity."""
    top, found = best[live[0]], int(live[0])
    for p in range(1, alive):
        i = live[p]
        if best[i] > top:
            top, found = best[i], int(i)
    return found


@jit()
def _retire(live: Int32Array, alive: int, a: int, b: int, new: int) -> None:
    """Take `a` and `b` from the ascending list `live[:alive]` and put `new` at its end."""
    kept = 0
    for p in range(alive):
        if live[p] != a and live[p] != b:
            live[kept] = live[p]
            kept += 1
    live[kept] = new


@jit()
def _choose(
    i: int,
    first: IntArray,
    degree: Int32Array,
    who: Int32Array,
    how: IntArray,
    best: IntArray,
    mate: Int32Array,
) -> None:
    """Set the best neighbor of region `i`: of equal ones the lowest."""
    best[i], mate[i] = LOWEST, -1
    for p in range(first[i], first[i] + degree[i]):
        if how[p] > best[i] or (how[p] == best[i] and who[p] < mate[i]):
            best[i], mate[i] = how[p], who[p]


@jit()
def _replace(
    near: int,
    a: int,
    b: int,
    new: int,
    s: np.int64,
    first: IntArray,
    degree: Int32Array,
    who: Int32Array,
    how: IntArray,
    best: IntArray,
    mate: Int32Array,
) -> None:
    """In the list of `near`, put `new` in the place of `a` and `b`, and correct its best mate."""
    kept = first[near]
    for p in range(first[near], first[near] + degree[near]):
        if who[p] != a and who[p] != b:
            who[kept], how[kept] = who[p], how[p]
            kept += 1
    who[kept], how[kept] = new, s
    degree[near] = kept + 1 - first[near]
    if mate[near] == a or mate[near] == b:
        _choose(near, first, degree, who, how, best, mate)
    elif s > best[near]:
        best[near], mate[near] = s, new
