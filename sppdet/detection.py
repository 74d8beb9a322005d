"""From scored regions to detections: threshold, NMS, box regression, NMS, cap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import nms as torchvision_nms

from sppdet import boxes as geometry
from sppdet.types import Detections, FloatArray, IntArray

# (region index, class) pairs -> boxes moved by each class's regressor.
Refine = Callable[[IntArray, IntArray], FloatArray]


@dataclass(frozen=True)
class DetectionConfig:
    """What is kept of an image's scored regions."""

    # A region is kept for a class when its SVM margin is above this (release: -1.5).
    score_threshold: float = -1.5
    # Of two boxes of a class whose IoU exceeds this, the lower-scored one is dropped.
    nms_iou: float = 0.3
    # At most this many boxes of a class are kept in an image.
    max_per_class: int = 100
    # Move the kept boxes with the box regressors, then apply NMS once more.
    box_regression: bool = True
    # Boxes scored below this are not drawn or printed unless the user asks (release demo: -0.5).
    display_threshold: float = -0.5


def nms(boxes: FloatArray, scores: FloatArray, iou: float) -> IntArray:
    """`int64 (M,)` indices of the boxes that greedy NMS keeps, best score first.

    Law: no two kept boxes overlap by more than `iou`, and every dropped one overlaps a kept box
    of at least its score by more than `iou`.
    """
    kept = torchvision_nms(torch.tensor(boxes), torch.tensor(scores), iou)
    return np.asarray(kept.numpy(), dtype=np.int64)


def _survivors(
    boxes: FloatArray, scores: FloatArray, config: DetectionConfig
) -> tuple[IntArray, IntArray]:
    """Region indices and class labels that pass the threshold, NMS and the cap."""
    regions: list[IntArray] = []
    labels: list[IntArray] = []
    for label in range(scores.shape[1]):
        above = np.flatnonzero(scores[:, label] > config.score_threshold)
        kept = nms(boxes[above], scores[above, label], config.nms_iou)[: config.max_per_class]
        regions.append(above[kept])
        labels.append(np.full(len(kept), label, dtype=np.int64))
    return np.concatenate(regions), np.concatenate(labels)


def select(
    boxes: FloatArray,
    scores: FloatArray,
    classes: tuple[str, ...],
    size: tuple[int, int],
    config: DetectionConfig,
    refine: Refine | None = None,
) -> Detections:
    """The detections of one image, best score first, boxes clipped to the image.

    Args:
        boxes: `float32 (N, 4)` proposals, original-image pixels.
        scores: `float32 (N, K)` SVM margins; a class without an SVM scores -inf.
        classes: the K class names.
        size: the image's width and height in pixels.
        config: thresholds and caps.
        refine: the box regressors; None keeps the proposals' own boxes.

    Scores stay those of the proposal, as in the release: the regressor moves a box, it does not
    judge it.
    """
    if not len(boxes) or not classes:
        empty = np.zeros((0, 4), np.float32)
        return Detections(empty, np.zeros(0, np.float32), np.zeros(0, np.int64), classes)
    regions, labels = _survivors(boxes, scores, config)
    moved = boxes[regions] if refine is None or not len(regions) else refine(regions, labels)
    out_boxes, out_scores = geometry.clip(moved, *size), scores[regions, labels]
    inside = (geometry.areas(out_boxes) > 0).nonzero()[0]
    out_boxes, out_scores, labels = out_boxes[inside], out_scores[inside], labels[inside]
    if refine is not None:
        kept = _nms_per_class(out_boxes, out_scores, labels, config.nms_iou)
        out_boxes, out_scores, labels = out_boxes[kept], out_scores[kept], labels[kept]
    order = np.argsort(-out_scores, kind="stable")
    return Detections(out_boxes[order], out_scores[order], labels[order], classes)


def _nms_per_class(boxes: FloatArray, scores: FloatArray, labels: IntArray, iou: float) -> IntArray:
    kept = [np.zeros(0, np.int64)]
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        kept.append(mine[nms(boxes[mine], scores[mine], iou)])
    return np.concatenate(kept)
