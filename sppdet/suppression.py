"""Non-maximum suppression that lowers scores instead of dropping boxes, compiled.

Two objects of a class may well overlap by more than the threshold of the greedy kind, which drops
one of them; lowering its score keeps it, below what is surer (Bodla et al. 2017, "Soft-NMS").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sppdet.compiled import all_ready, kernel
from sppdet.types import FloatArray, IntArray

# Boxes that overlap by no more than this do not lower each other's scores.
APART = 0.2


def soft_nms(
    boxes: FloatArray, scores: FloatArray, strength: float, floor: float, most: int
) -> tuple[IntArray, FloatArray]:
    """Which boxes are kept, best first, `int64 (M,)`, and their new scores `float32 (M,)`.

    Again and again the best of the boxes left is taken, and each other's score falls by
    `IoU^2 / strength` if their IoU is above `APART`. That is the paper's Gaussian rule for scores
    that are logarithms. It ends with the score `floor`, or after `most` boxes. Boxes
    `float32 (N, 4)`; of equal scores the first counts as better.
    """
    kept = np.zeros(min(most, len(boxes)), np.int64)
    lowered = np.asarray(scores, np.float64).copy()
    corners = np.ascontiguousarray(boxes, np.float64)
    count = _lower(corners, lowered, strength, APART, floor, kept)
    kept = kept[:count]
    return kept, lowered[kept].astype(np.float32)


@kernel
def _lower(
    boxes: NDArray[np.floating[Any]],
    scores: NDArray[np.floating[Any]],
    strength: float,
    apart: float,
    floor: float,
    kept: IntArray,
) -> int:
    """Fills `kept`, lowers `scores` in place, and returns how many were kept."""
    number = len(boxes)
    left = np.ones(number, np.bool_)
    count = 0
    while count < len(kept):
        best = -1
        for i in range(number):
            if left[i] and (best < 0 or scores[i] > scores[best]):
                best = i
        if best < 0 or not scores[best] > floor:
            break
        kept[count] = best
        count += 1
        left[best] = False
        x1, y1, x2, y2 = boxes[best]
        area = (x2 - x1) * (y2 - y1)
        for i in range(number):
            if not left[i]:
                continue
            width = min(x2, boxes[i, 2]) - max(x1, boxes[i, 0])
            height = min(y2, boxes[i, 3]) - max(y1, boxes[i, 1])
            if width <= 0 or height <= 0:
                continue
            own = (boxes[i, 2] - boxes[i, 0]) * (boxes[i, 3] - boxes[i, 1])
            iou = width * height / (area + own - width * height)
            if iou > apart:
                scores[i] -= iou * iou / strength
    return count


def is_compiled() -> bool:
    """Whether it can start at once, rather than compile first (a second)."""
    return all_ready("sppdet.suppression")


def warm_up(announce: Callable[[str], object] | None = None) -> None:
    """Load the machine code, making it first where there is none yet."""
    if announce is not None and not is_compiled():
        announce("compiling non-maximum suppression, once after installing (about a second)")
    soft_nms(np.zeros((1, 4), np.float32), np.zeros(1, np.float32), 1.0, -1.0, 1)
