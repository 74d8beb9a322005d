"""Which regions of an image a fine-tuning batch holds, with their labels and box targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sppdet.core.boxes import areas, box_iou, encode_deltas
from sppdet.core.types import BoolArray, FloatArray, IntArray, Sample

BACKGROUND = 0


@dataclass(frozen=True, slots=True, eq=False)
class RegionTargets:
    """An image's regions as training sees them: ground truth first, then proposals (release).

    Attributes:
        boxes: `float32 (N, 4)`, image pixels.
        max_iou: `float32 (N,)`, the highest IoU with any object.
        matched_object: `int64 (N,)`, the object of that IoU; 0 where there is none.
        gt_boxes: `float32 (G, 4)`, the objects' boxes.
        gt_labels: `int64 (G,)`, the objects' classes, 0-based.
    """

    boxes: FloatArray
    max_iou: FloatArray
    matched_object: IntArray
    gt_boxes: FloatArray
    gt_labels: IntArray

    def first(self, proposals: int) -> RegionTargets:
        """The objects and the first so many proposals; 0 keeps all."""
        if not proposals:
            return self
        return self.take(slice(len(self.gt_boxes) + proposals))

    def take(self, regions: slice | BoolArray) -> RegionTargets:
        """Some of the regions; the objects that they may match stay all."""
        chosen = self.boxes[regions], self.max_iou[regions], self.matched_object[regions]
        return RegionTargets(*chosen, self.gt_boxes, self.gt_labels)

    def scales_with_objects(self, scale_of: IntArray, foreground_iou: float) -> IntArray:
        """List the scales at which there are objects' regions; without objects, any regions.

        `scale_of (N,)` is the scale that each region is pooled at.
        """
        objects = scale_of[self.max_iou >= foreground_iou]
        return np.unique(objects if len(objects) else scale_of)


def match_regions(sample: Sample, proposals: FloatArray) -> RegionTargets:
    """Match the regions of a sample to its objects; those without area are left out."""
    real = areas(sample.boxes) > 0
    objects, labels = sample.boxes[real], sample.labels[real]
    boxes = np.concatenate([objects, proposals]).astype(np.float32)
    boxes = boxes[areas(boxes) > 0]
    if not len(objects):
        empty = np.zeros(len(boxes), np.float32)
        return RegionTargets(boxes, empty, np.zeros(len(boxes), np.int64), objects, labels)
    overlaps = box_iou(boxes, objects)
    return RegionTargets(boxes, overlaps.max(axis=1), overlaps.argmax(axis=1), objects, labels)


@dataclass(frozen=True, slots=True, eq=False)
class RegionSample:
    """Sampled regions of one image.

    Attributes:
        boxes: `float32 (R, 4)`, image pixels.
        labels: `int64 (R,)`: 0 is background, class k of the data set is k + 1.
        targets: `float32 (R, 4)` offsets onto the matched object; 0 for background.
    """

    boxes: FloatArray
    labels: IntArray
    targets: FloatArray


def sample_regions(
    found: RegionTargets,
    count: int,
    rng: np.random.Generator,
    *,
    foreground_fraction: float,
    foreground_iou: float,
    background_iou: tuple[float, float],
) -> RegionSample:
    """At most `count` regions of one image, about `foreground_fraction` of them objects (sec. 4.1).

    Foreground: IoU at least `foreground_iou`; background: less than that, and in the half-open
    interval `background_iou`. Where an image has too few of one kind, the other fills the batch,
    and where no region lies in the background interval, any region below its end serves.
    """
    positive = np.flatnonzero(found.max_iou >= foreground_iou) if len(found.gt_boxes) else _NONE
    low, high = background_iou
    below = found.max_iou < min(high, foreground_iou)
    negative = np.flatnonzero(below & (found.max_iou >= low))
    if not len(negative):
        negative = np.flatnonzero(below)
    wanted = max(round(count * foreground_fraction), count - len(negative))
    n_positive = min(len(positive), wanted)
    n_negative = min(len(negative), count - n_positive)
    chosen_positive = rng.permutation(positive)[:n_positive]
    chosen = np.concatenate([chosen_positive, rng.permutation(negative)[:n_negative]])
    boxes = found.boxes[chosen]
    labels = np.zeros(len(chosen), dtype=np.int64)
    targets = np.zeros((len(chosen), 4), dtype=np.float32)
    if n_positive:
        match = found.matched_object[chosen_positive]
        labels[:n_positive] = found.gt_labels[match] + 1
        targets[:n_positive] = encode_deltas(found.gt_boxes[match], boxes[:n_positive])
    return RegionSample(boxes, labels, targets)


_NONE: IntArray = np.zeros(0, dtype=np.int64)
