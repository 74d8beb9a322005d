"""Non-maximum suppression of both kinds, and box voting, compiled: all act on one class's boxes.

The greedy kind drops boxes. But two objects of a class may well overlap by more than its threshold;
lowering a score instead keeps it, below what is surer (Bodla et al. 2017, "Soft-NMS"). An image
has few boxes of a class and many classes: what costs is each call, not the arithmetic.
"""

from __future__ import annotations

import numpy as np

from sppdet.core.jit import jit
from sppdet.core.types import BoolArray, FloatArray, FloatingArray, IntArray

# Boxes that overlap by no more than this do not lower each other's scores.
APART = 0.2


def nms(boxes: FloatArray, scores: FloatArray, iou: float) -> IntArray:
    """`int64 (M,)` indices of the boxes that greedy NMS keeps, best score first.

    Boxes `float32 (N, 4)`, scores `float32 (N,)`; of equal scores the first counts as better.
    Invariant: no two kept boxes overlap by more than `iou`, and every dropped one overlaps a kept
    box of at least its score by more than `iou`.
    """
    order = np.argsort(-scores, kind="stable").astype(np.int64)
    kept: IntArray = order[_keep(np.ascontiguousarray(boxes, np.float64), order, float(iou))]
    return kept


def box_voting(kept: FloatArray, boxes: FloatArray, scores: FloatArray, iou: float) -> FloatArray:
    """`float32 (M, 4)`: each of `kept (M, 4)` as the mean of the `boxes (N, 4)` that overlap it.

    Only boxes of IoU at least `iou` count, weighted by `exp(score)`; a kept box that none
    overlaps so stays. Source: Gidaris and Komodakis 2015, sec. 3.3.
    """
    # Only ratios of weights matter: with the best score at 0 nothing overflows.
    weights = np.exp((scores - scores.max(initial=-np.inf)).astype(np.float64))
    moved = np.array(kept, np.float64)
    _move(moved, np.ascontiguousarray(boxes, np.float64), weights, float(iou))
    return moved.astype(np.float32)


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


def _warm_up() -> None:
    boxes, scores = np.zeros((1, 4), np.float32), np.zeros(1, np.float32)
    soft_nms(boxes, scores, 1.0, -1.0, 1)
    nms(boxes, scores, 0.5)
    box_voting(boxes, boxes, scores, 0.5)


@jit(warm_up=_warm_up)
def _iou(a: FloatingArray, b: FloatingArray) -> float:
    """Intersection over union of two boxes; 0 where both areas are 0."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inter: float = width * height
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    union: float = both - inter
    return inter / union


@jit()
def _keep(boxes: FloatingArray, order: IntArray, iou: float) -> BoolArray:
    """Which places of `order`, from the best box to the worst, greedy NMS keeps."""
    kept = np.ones(len(order), np.bool_)
    for i in range(len(order)):
        if not kept[i]:
            continue
        for j in range(i + 1, len(order)):
            if kept[j] and _iou(boxes[order[i]], boxes[order[j]]) > iou:
                kept[j] = False
    return kept


@jit()
def _move(
    kept: FloatingArray,
    boxes: FloatingArray,
    weights: FloatingArray,
    iou: float,
) -> None:
    """Puts into each row of `kept` the weighted mean of the boxes that overlap it enough."""
    sums = np.empty(4)
    for i in range(len(kept)):
        total = 0.0
        sums[:] = 0.0
        for j in range(len(boxes)):
            if _iou(kept[i], boxes[j]) >= iou:
                total += weights[j]
                for k in range(4):
                    sums[k] += weights[j] * boxes[j, k]
        if total > 0:
            for k in range(4):
                kept[i, k] = sums[k] / total


@jit()
def _lower(
    boxes: FloatingArray,
    scores: FloatingArray,
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
        for i in range(number):
            if left[i]:
                iou = _iou(boxes[best], boxes[i])
                if iou > apart:
                    scores[i] -= iou * iou / strength
    return count
