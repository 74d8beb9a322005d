"""The order of proposals (Uijlings et al. 2013, section 4): position in the hierarchy x random.

Two changes to the paper's order make a shortened list reach more objects (docs/proposals.md): the
random number is the larger of two, and boxes that lie almost where an earlier one does go last.
"""

from __future__ import annotations

import numpy as np

from sppdet.core.jit import jit
from sppdet.core.types import Int32Array, IntArray

# Boxes are alike when their edges fall into the same cells of 1/8 to 1/4 of their sides.
ALIKE = 4


@jit()
def _mix(state: np.uint64) -> np.uint64:
    """SplitMix64's output function (Steele, Lea and Flood 2014): 64 well-mixed bits."""
    z = np.uint64(state) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@jit()
def random_integers(count: int, seed: int, stream: int) -> IntArray:
    """`int64 (count,)`: random numbers in [0, 2^32), a function of `seed` and `stream` alone."""
    out = np.empty(count, np.int64)
    base = _mix(np.uint64(seed) ^ (np.uint64(stream + 1) << np.uint64(32)))
    for i in range(count):
        out[i] = np.int64(_mix(base + np.uint64(i)) >> np.uint64(32))
    return out


@jit()
def priorities(count: int, seed: int, stream: int) -> IntArray:
    """`int64 (count,)` of a hierarchy's regions, lower is better: position x random number.

    Regions are in the order they were made, so the last one, the whole image, has position 1,
    the one before it 2, and so on. The random number is the larger of two draws: less of a
    lottery than the paper's single one.
    """
    both = random_integers(2 * count, seed, stream)
    out = np.empty(count, np.int64)
    for i in range(count):
        out[i] = max(both[i], both[count + i]) * (count - i)
    return out


def rank_boxes(boxes: Int32Array, priority: IntArray) -> IntArray:
    """`int64 (U,)`: the numbers of the distinct boxes, best first.

    Of equal boxes the one of lowest priority stays. Of boxes that are much alike (see
    `quantize_boxes`) the first keeps its place, and the others follow when all groups have had
    their turn.
    """
    best = unique_best(boxes, priority)
    best = best[np.argsort(priority[best], kind="stable")]
    leaders = np.zeros(len(best), np.bool_)
    leaders[unique_best(quantize_boxes(boxes[best]), np.arange(len(best)))] = True
    return np.concatenate([best[leaders], best[~leaders]])


@jit()
def quantize_boxes(boxes: Int32Array) -> Int32Array:
    """`int32 (N, 4)`: equal rows for boxes whose edges share cells of their sides' scale.

    Cells are the largest power of two that is at most a quarter of the box's side, at least 1.
    """
    out = np.empty_like(boxes)
    for i in range(len(boxes)):
        for axis in range(2):
            low, high = boxes[i, axis], boxes[i, axis + 2]
            step = 0
            while (2 << step) * ALIKE <= high - low:
                step += 1
            # Sides of different steps are never alike: the step is a part of the number.
            out[i, axis] = (step << 20) | (low >> step)
            out[i, axis + 2] = high >> step
    return out


@jit()
def unique_best(boxes: Int32Array, priority: IntArray) -> IntArray:
    """`int64 (U,)`: for each distinct box, the number of its occurrence of lowest priority."""
    n = len(boxes)
    bits = 4
    while (1 << bits) < 2 * n:
        bits += 1
    table = np.full(1 << bits, -1, np.int64)
    mask = (1 << bits) - 1
    out = np.empty(n, np.int64)
    count = 0
    for i in range(n):
        key = np.uint64(boxes[i, 0])
        for c in range(1, 4):
            key = (key << np.uint64(16)) ^ np.uint64(boxes[i, c])
        at = np.int64(_mix(key) >> np.uint64(40)) & mask
        while True:
            slot = table[at]
            if slot < 0:
                table[at] = count
                out[count] = i
                count += 1
                break
            j = out[slot]
            if (
                boxes[i, 0] == boxes[j, 0]
                and boxes[i, 1] == boxes[j, 1]
                and boxes[i, 2] == boxes[j, 2]
                and boxes[i, 3] == boxes[j, 3]
            ):
                if priority[i] < priority[j]:
                    out[slot] = i
                break
            at = (at + 1) & mask
    return out[:count]
