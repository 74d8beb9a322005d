"""Hierarchical grouping (Uijlings et al., IJCV 2013, algorithm 1): join the most similar pair.

The paper's size and fill similarities add up to `2 - |box of the pair| / |image|`: the regions'
own sizes cancel. So size + fill says "smallest joint box first", and with the histogram
intersection added, similarity is a whole number of `1 / (ONE * |image|)`: ties are real ties,
and are broken by the lower region numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sppdet.proposals.compiled import kernel

# A histogram's channels each sum to about this much after normalising.
ONE = 1 << 14

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


@kernel
def _normalise(counts: Int32, size: int, out: Int32) -> None:
    factor = np.float32(ONE) / np.float32(size)
    for i in range(len(counts)):
        out[i] = np.int32(np.float32(counts[i]) * factor)


@kernel
def _similarity(a: int, b: int, boxes: Int32, hist: Int32, weight: int, area: int) -> np.int64:
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


@kernel
def group(
    sizes: Int32, boxes: Int32, counts: Int32, pairs: Int32, weight: int, area: int
) -> tuple[Int32, Int32]:
    """Boxes `int32 (M, 4)` of all regions of the hierarchy, first regions first, then in the
    order of joining; and the joins, `int32 (M - R, 2)`: the two regions that became R, R + 1...

    `counts (R, bins)` are histograms, three channels; `pairs (P, 2)` touch; `weight` is that of
    the colour similarity beside size + fill: 0 (then `counts` are not read) or more.
    """
    n = len(sizes)
    total = 2 * n - 1
    size = np.empty(total, np.int32)
    box = np.empty((total, 4), np.int32)
    size[:n], box[:n] = sizes, boxes
    bins = counts.shape[1] if weight > 0 else 0
    count = np.empty((total, bins), np.int32)
    hist = np.empty((total, bins), np.int32)
    if weight > 0:
        for i in range(n):
            count[i] = counts[i]
            _normalise(counts[i], size[i], hist[i])

    # Neighbour lists lie one after the other in an arena; that of a new region goes to its end.
    first = np.zeros(total + 1, np.int64)
    degree = np.zeros(total, np.int32)
    for p in range(len(pairs)):
        degree[pairs[p, 0]] += 1
        degree[pairs[p, 1]] += 1
    for i in range(n):
        first[i + 1] = first[i] + degree[i]
    capacity = first[n] + (n * (n - 1)) // 2 + 1
    who = np.empty(capacity, np.int32)
    how = np.empty(capacity, np.int64)
    degree[:] = 0
    lowest = np.iinfo(np.int64).min
    best = np.full(total, lowest, np.int64)
    mate = np.full(total, -1, np.int32)
    for p in range(len(pairs)):
        a, b = pairs[p, 0], pairs[p, 1]
        s = _similarity(a, b, box, hist, weight, area)
        for i, j in ((a, b), (b, a)):
            at = first[i] + degree[i]
            who[at], how[at] = j, s
            degree[i] += 1
            if s > best[i] or (s == best[i] and j < mate[i]):
                best[i], mate[i] = s, j

    live = np.arange(n).astype(np.int32)
    alive = n
    mark = np.full(total, -1, np.int32)
    joins = np.empty((max(n - 1, 0), 2), np.int32)
    end = first[n]
    new = n
    while alive > 1:
        top, a = lowest, np.int64(-1)
        for p in range(alive):
            i = live[p]
            if best[i] > top:
                top, a = best[i], np.int64(i)
        if a < 0:
            break
        b = np.int64(mate[a])
        joins[new - n, 0], joins[new - n, 1] = a, b
        size[new] = size[a] + size[b]
        box[new, 0] = min(box[a, 0], box[b, 0])
        box[new, 1] = min(box[a, 1], box[b, 1])
        box[new, 2] = max(box[a, 2], box[b, 2])
        box[new, 3] = max(box[a, 3], box[b, 3])
        if weight > 0:
            for i in range(bins):
                count[new, i] = count[a, i] + count[b, i]
            _normalise(count[new], size[new], hist[new])
        first[new] = end
        for old in (a, b):
            for p in range(first[old], first[old] + degree[old]):
                near = who[p]
                if near == a or near == b or mark[near] == new:  # noqa: SIM109
                    continue
                mark[near] = new
                s = _similarity(near, new, box, hist, weight, area)
                who[end], how[end] = near, s
                end += 1
                _replace(near, a, b, new, s, first, degree, who, how, best, mate)
                if s > best[new] or (s == best[new] and near < mate[new]):
                    best[new], mate[new] = s, near
        degree[new] = end - first[new]
        kept = 0
        for p in range(alive):
            if live[p] != a and live[p] != b:
                live[kept] = live[p]
                kept += 1
        live[kept] = new
        alive = kept + 1
        new += 1
    return box[:new], joins[: new - n]


@kernel
def _replace(
    near: np.integer[Any],
    a: np.integer[Any],
    b: np.integer[Any],
    new: int,
    s: np.int64,
    first: Int64,
    degree: Int32,
    who: Int32,
    how: Int64,
    best: Int64,
    mate: Int32,
) -> None:
    """In the list of `near`, put `new` in the place of `a` and `b`, and mend its best mate."""
    kept = first[near]
    for p in range(first[near], first[near] + degree[near]):
        if who[p] != a and who[p] != b:
            who[kept], how[kept] = who[p], how[p]
            kept += 1
    who[kept], how[kept] = new, s
    degree[near] = kept + 1 - first[near]
    if mate[near] != a and mate[near] != b:
        if s > best[near]:
            best[near], mate[near] = s, new
        return
    best[near], mate[near] = s, new
    for p in range(first[near], kept):
        if how[p] > best[near] or (how[p] == best[near] and who[p] < mate[near]):
            best[near], mate[near] = how[p], who[p]
