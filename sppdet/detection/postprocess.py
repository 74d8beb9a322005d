"""From scored regions to detections: threshold, (soft-)NMS, box voting, caps, probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sppdet.core.types import Detections, FloatArray, IntArray
from sppdet.detection.config import DetectionConfig
from sppdet.detection.nms import box_voting, nms, soft_nms
from sppdet.detection.probabilities.calibration import Calibration, as_probabilities


class Candidates(NamedTuple):
    """Boxes that may be objects, each of one class.

    Attributes:
        boxes: `float32 (M, 4)`, moved by the regressors and clipped to the image.
        scores: `float32 (M,)`, margins.
        labels: `int64 (M,)`.
    """

    boxes: FloatArray
    scores: FloatArray
    labels: IntArray

    def top(self, count: int) -> Candidates:
        """Keep the best `count`, best first."""
        best = np.argsort(-self.scores, kind="stable")[:count]
        return Candidates(self.boxes[best], self.scores[best], self.labels[best])

    @classmethod
    def concat(cls, parts: Sequence[Candidates]) -> Candidates:
        """Join candidates of one image."""
        return cls(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def select_candidates(
    scores: FloatArray, rules: DetectionConfig, labels: IntArray | None = None
) -> tuple[IntArray, IntArray]:
    """Select the regions that pass the threshold; of each class the best `max_candidates`.

    Args:
        scores: `float32 (N, K)`; a class without an SVM scores -inf.
        rules: threshold and cap.
        labels: `int64 (N,)`, the one class that each region may be of; None for any.

    Returns:
        Rows and labels, both `int64 (M,)`; a region that may be of two classes is there twice.
    """
    rows = [np.zeros(0, np.int64)]
    found = [np.zeros(0, np.int64)]
    for label in range(scores.shape[1]):
        passes = scores[:, label] > rules.margin_threshold
        if labels is not None:
            passes &= labels == label
        above = np.flatnonzero(passes)
        best = np.argsort(-scores[above, label], kind="stable")[: rules.max_candidates]
        above = above[np.sort(best)]
        rows.append(above)
        found.append(np.full(len(above), label, dtype=np.int64))
    return np.concatenate(rows), np.concatenate(found)


def postprocess(
    candidates: Candidates,
    classes: tuple[str, ...],
    rules: DetectionConfig,
    calibration: Calibration,
) -> Detections:
    """Reduce candidates to the detections of one image, best score first.

    (Soft-)NMS, voting and the cap, each class by itself. Soft-NMS lowers margins. What is left
    becomes a probability.
    """
    boxes, scores, labels = candidates
    parts = [
        _postprocess_class(boxes[own], scores[own], int(label), rules)
        for label in np.unique(labels)
        for own in [np.flatnonzero(labels == label)]
    ]
    empty = Candidates(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    kept = Candidates.concat([empty, *parts])
    boxes, margins, labels = kept
    logits = calibration.logits(margins, labels)
    # Also in the order of margins where float32 makes two probabilities one.
    order = np.argsort(-logits, kind="stable")
    scores = as_probabilities(logits)
    return Detections(boxes[order], scores[order], labels[order], classes, margins[order])


def _postprocess_class(
    boxes: FloatArray, scores: FloatArray, label: int, rules: DetectionConfig
) -> Candidates:
    most = rules.max_per_class
    if rules.soft_nms_sigma:
        floor = rules.margin_threshold
        best, kept_scores = soft_nms(boxes, scores, rules.soft_nms_sigma, floor, most)
    else:
        best = nms(boxes, scores, rules.nms_iou)[:most]
        kept_scores = scores[best]
    kept = boxes[best]
    if rules.vote_iou:
        kept = box_voting(kept, boxes, scores, rules.vote_iou)
    if rules.vote_iou or rules.soft_nms_sigma:
        # Voting may bring two boxes together, and soft-NMS has dropped none.
        apart = nms(kept, kept_scores, rules.nms_iou)
        kept, kept_scores = kept[apart], kept_scores[apart]
    return Candidates(kept, kept_scores, np.full(len(kept), label, dtype=np.int64))
