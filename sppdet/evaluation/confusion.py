"""Which class is taken for which: the confusion matrix of detections above a threshold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sppdet.core.boxes import paired_iou
from sppdet.core.types import Dataset, Detections, IntArray
from sppdet.evaluation.matching import flatten_detections, flatten_ground_truth
from sppdet.evaluation.voc_ap import MIN_IOU


def confusion_matrix(
    dataset: Dataset,
    detections: Mapping[str, Detections],
    threshold: float,
    *,
    min_iou: float = MIN_IOU,
) -> IntArray:
    """Count `int64 (K + 1, K + 1)`: objects of class i that are detected as class j.

    Row K has detections of the background, column K objects that are missed. Detections of a
    score of at least `threshold` are taken best first; each takes the free object, of whatever
    class, that it overlaps most, by `min_iou` or more. A difficult object that is missed does not
    count, nor what takes it.

    Raises EvaluationError for detections that do not fit the data set.
    """
    truth, flat = flatten_ground_truth(dataset), flatten_detections(dataset, detections)
    kept = np.flatnonzero(flat.scores >= threshold)
    ranked = flat.take(kept[np.lexsort((-flat.margins[kept], -flat.scores[kept]))])
    free = np.ones(len(truth), np.bool_)
    n_classes = len(dataset.classes)
    out = np.zeros((n_classes + 1, n_classes + 1), np.int64)
    starts = np.searchsorted(truth.images, np.arange(len(dataset) + 1))
    for image, box, label in zip(ranked.images, ranked.boxes, ranked.labels, strict=True):
        own = np.arange(starts[image], starts[image + 1])
        own = own[free[own]]
        overlaps = paired_iou(np.broadcast_to(box, (len(own), 4)), truth.boxes[own])
        if not overlaps.size or overlaps.max() < min_iou:
            out[n_classes, label] += 1
            continue
        taken = own[int(overlaps.argmax())]
        free[taken] = False
        if not truth.difficult[taken]:
            out[truth.labels[taken], label] += 1
    missed = truth.labels[free & ~truth.difficult]
    out[:n_classes, n_classes] = np.bincount(missed, minlength=n_classes)
    return out
