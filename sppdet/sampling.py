"""Which regions of an image a fine-tuning batch holds, with their labels and box targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sppdet.boxes import areas, encode, iou_matrix
from sppdet.types import BoolArray, FloatArray, IntArray, Sample

BACKGROUND = 0


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """An image's regions as training sees them: ground truth first, then proposals (release).

    Attributes:
        boxes: `float32 (N, 4)`, image pixels.
        overlap: `float32 (N,)`, the highest IoU with any object.
        match: `int64 (N,)`, the object of that IoU; 0 where there is none.
        objects: `float32 (G, 4)`, the objects' boxes.
        labels: `int64 (G,)`, the objects' classes, 0-based.
    """

    boxes: FloatArray
    overlap: FloatArray
    match: IntArray
    objects: FloatArray
    labels: IntArray

    def first(self, proposals: int) -> Candidates:
        """The objects and the first so many proposals; 0 keeps all."""
        if not proposals:
            return self
        return self.take(slice(len(self.objects) + proposals))

    def take(self, regions: slice | BoolArray) -> Candidates:
        """Some of the regions; the objects that they may match stay all."""
        chosen = self.boxes[regions], self.overlap[regions], self.match[regions]
        return Candidates(*chosen, self.objects, self.labels)


def candidates(sample: Sample, proposals: FloatArray) -> Candidates:
    """The regions of a sample; objects without area cannot be regressed to and are left out."""
    real = areas(sample.boxes) > 0
    objects, labels = sample.boxes[real], sample.labels[real]
    boxes = np.concatenate([objects, proposals]).astype(np.float32)
    boxes = boxes[areas(boxes) > 0]
    if not len(objects):
        empty = np.zeros(len(boxes), np.float32)
        return Candidates(boxes, empty, np.zeros(len(boxes), np.int64), objects, labels)
    overlaps = iou_matrix(boxes, objects)
    return Candidates(boxes, overlaps.max(axis=1), overlaps.argmax(axis=1), objects, labels)


@dataclass(frozen=True, slots=True, eq=False)
class RegionBatch:
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
    found: Candidates,
    count: int,
    rng: np.random.Generator,
    *,
    foreground: float,
    foreground_iou: float,
    background_iou: tuple[float, float],
) -> RegionBatch:
    """At most `count` regions of one image, about `foreground` of them objects (paper sec. 4.1).

    Foreground: IoU at least `foreground_iou`; background: less than that, and in the half-open
    interval `background_iou`. Where an image has too few of one kind, the other fills the batch,
    and where no region lies in the background interval, any region below its end serves.
    """
    positive = np.flatnonzero(found.overlap >= foreground_iou) if len(found.objects) else _NONE
    low, high = background_iou
    below = found.overlap < min(high, foreground_iou)
    negative = np.flatnonzero(below & (found.overlap >= low))
    if not len(negative):
        negative = np.flatnonzero(below)
    wanted = max(round(count * foreground), count - len(negative))
    n_positive = min(len(positive), wanted)
    n_negative = min(len(negative), count - n_positive)
    chosen_positive = rng.permutation(positive)[:n_positive]
    chosen = np.concatenate([chosen_positive, rng.permutation(negative)[:n_negative]])
    boxes = found.boxes[chosen]
    labels = np.zeros(len(chosen), dtype=np.int64)
    targets = np.zeros((len(chosen), 4), dtype=np.float32)
    if n_positive:
        match = found.match[chosen_positive]
        labels[:n_positive] = found.labels[match] + 1
        targets[:n_positive] = encode(found.objects[match], boxes[:n_positive])
    return RegionBatch(boxes, labels, targets)


_NONE: IntArray = np.zeros(0, dtype=np.int64)
