"""The order of proposals (Uijlings et al. 2013, section 4): position in the hierarchy x random."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sppdet.compiled import kernel

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


@kernel
def _mix(state: np.uint64) -> np.uint64:
    """SplitMix64's output function (Steele, Lea and Flood 2014): 64 well-mixed bits."""
    z = np.uint64(state) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@kernel
def draws(count: int, seed: int, stream: int) -> Int64:
    """`int64 (count,)`: random numbers in [0, 2^32), a function of `seed` and `stream` alone."""
    out = np.empty(count, np.int64)
    base = _mix(np.uint64(seed) ^ (np.uint64(stream + 1) << np.uint64(32)))
    for i in range(count):
        out[i] = np.int64(_mix(base + np.uint64(i)) >> np.uint64(32))
    return out


@kernel
def priorities(count: int, seed: int, stream: int) -> Int64:
    """`int64 (count,)` of a hierarchy's regions, lower is better: position x random number.

    Regions are in the order they were made, so the last one, the whole image, has position 1,
    the one before it 2, and so on.
    """
    out = draws(count, seed, stream)
    for i in range(count):
        out[i] *= count - i
    return out


@kernel
def unique_best(boxes: Int32, priority: Int64) -> Int64:
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
