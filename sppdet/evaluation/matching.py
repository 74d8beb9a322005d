"""The VOC devkit's matching of detections with objects, one class at a time.

The devkit measures IoU on 1-based boxes whose last pixel is included, with `+ 1` in every side.
A half-open 0-based box `x1 x2` is `x1+1 x2` there, so that its side `x2 - (x1+1) + 1` is
`x2 - x1`, and the same holds for an intersection: the devkit's IoU of the converted boxes is the
plain IoU of ours. It is taken in double precision, as the devkit does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sppdet.core.boxes import paired_iou
from sppdet.core.errors import EvaluationError
from sppdet.core.types import BoolArray, Dataset, Detections, Float64Array, FloatArray, IntArray

# Outcomes of a detection.
TRUE_POSITIVE, DUPLICATE, FALSE_POSITIVE, IGNORED = 0, 1, 2, 3

# Detection-object pairs measured at once: bounds the memory at about 150 MB.
PAIRS_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class FlatGroundTruth:
    """Objects of many images in flat arrays, in data set order.

    Attributes:
        images: `int64 (N,)` position of the object's image in the data set, ascending.
        boxes: `float32 (N, 4)`. labels: `int64 (N,)`. difficult: `bool (N,)`.
    """

    images: IntArray
    boxes: FloatArray
    labels: IntArray
    difficult: BoolArray

    def __len__(self) -> int:
        return len(self.images)

    def where(self, keep: BoolArray) -> FlatGroundTruth:
        """Select objects by a boolean mask."""
        return FlatGroundTruth(
            self.images[keep], self.boxes[keep], self.labels[keep], self.difficult[keep]
        )


@dataclass(frozen=True, slots=True, eq=False)
class FlatDetections:
    """Detections of many images in flat arrays, in data set order.

    Attributes:
        images: `int64 (N,)` position of the image in the data set.
        boxes: `float32 (N, 4)`. scores: `float32 (N,)`. labels: `int64 (N,)`, the data set's.
        margins: `float32 (N,)`; they rank, since the probabilities of two may be equal near 1.
    """

    images: IntArray
    boxes: FloatArray
    scores: FloatArray
    labels: IntArray
    margins: FloatArray

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: IntArray) -> FlatDetections:
        """Select detections by index, in its order."""
        images, boxes, scores = self.images[index], self.boxes[index], self.scores[index]
        return FlatDetections(images, boxes, scores, self.labels[index], self.margins[index])


@dataclass(frozen=True, slots=True, eq=False)
class ClassMatches:
    """One class's detections, best margin first, and the outcome of each.

    Attributes:
        truth: the class's objects. objects: `int64`, their indices among all objects.
        detections: the class's detections, best margin first; ties in data set order.
        rows: `int64 (N,)`, their indices among all detections.
        overlaps: `float64 (N,)` highest IoU with an object of the class in the same image.
        nearest: `int64 (N,)` that object's index in `truth`, the first of equals; -1 if none.
        outcomes: `int8 (N,)` TRUE_POSITIVE, DUPLICATE, FALSE_POSITIVE or IGNORED.
    """

    truth: FlatGroundTruth
    objects: IntArray
    detections: FlatDetections
    rows: IntArray
    overlaps: Float64Array
    nearest: IntArray
    outcomes: NDArray[np.int8]

    @property
    def found(self) -> BoolArray:
        """`bool (len(truth),)`: True where a true positive claims the object."""
        out = np.zeros(len(self.truth), np.bool_)
        out[self.nearest[self.outcomes == TRUE_POSITIVE]] = True
        return out


def flatten_ground_truth(dataset: Dataset) -> FlatGroundTruth:
    """Concatenate the objects of a data set.

    Raises:
        EvaluationError: an image id occurs twice, or a label is not one of the classes.
    """
    samples = dataset.samples
    if len({sample.image_id for sample in samples}) < len(samples):
        raise EvaluationError(
            "an image id occurs twice", path=dataset.name, hint="list each image once"
        )
    labels = np.concatenate([np.zeros(0, np.int64), *(s.labels for s in samples)])
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < len(dataset.classes):
        raise EvaluationError("an object's label is not one of the classes", path=dataset.name)
    return FlatGroundTruth(
        images=np.repeat(np.arange(len(samples)), [len(s.boxes) for s in samples]),
        boxes=np.concatenate([np.zeros((0, 4), np.float32), *(s.boxes for s in samples)]),
        labels=labels,
        difficult=np.concatenate([np.zeros(0, np.bool_), *(s.difficult for s in samples)]),
    )


def flatten_detections(dataset: Dataset, detections: Mapping[str, Detections]) -> FlatDetections:
    """Concatenate the detections (by image id) of a data set, with the data set's labels.

    An image without an entry has no detections. Classes are matched by name; a detector may know
    more classes than the data set, whose detections are then left out, or fewer.

    Raises:
        EvaluationError: an image id that the data set lacks, class names that do not fit, or a
            score or margin that is not finite.
    """
    check_image_ids(dataset, detections)
    found = [(i, detections[s.image_id]) for i, s in enumerate(dataset) if s.image_id in detections]
    to_label: dict[tuple[str, ...], IntArray] = {}
    labels = [np.zeros(0, np.int64)]
    for _, each in found:
        if each.classes not in to_label:
            to_label[each.classes] = _label_map(dataset, each.classes)
        labels.append(to_label[each.classes][each.labels])
    flat = FlatDetections(
        images=np.repeat(
            np.array([i for i, _ in found], dtype=np.int64), [len(d) for _, d in found]
        ),
        boxes=np.concatenate([np.zeros((0, 4), np.float32), *(d.boxes for _, d in found)]),
        scores=np.concatenate([np.zeros(0, np.float32), *(d.scores for _, d in found)]),
        labels=np.concatenate(labels),
        margins=np.concatenate([np.zeros(0, np.float32), *(d.margins for _, d in found)]),
    )
    bad = np.flatnonzero(~np.isfinite(flat.scores) | ~np.isfinite(flat.margins))
    if bad.size:
        image_id = dataset.samples[int(flat.images[bad[0]])].image_id
        raise EvaluationError(f"a score of image {image_id} is not finite", path=dataset.name)
    known = flat.labels >= 0
    return flat if known.all() else flat.take(np.flatnonzero(known))


def check_image_ids(dataset: Dataset, detections: Mapping[str, object]) -> None:
    """Raise EvaluationError if there are detections for an image that the data set lacks."""
    unknown = detections.keys() - {sample.image_id for sample in dataset}
    if unknown:
        raise EvaluationError(
            f"detections for image {min(unknown)}, which is not in the data set"
            f" ({len(unknown)} such images)",
            path=dataset.name,
            hint="evaluate on the split that the detections were made on",
        )


def _label_map(dataset: Dataset, classes: tuple[str, ...]) -> IntArray:
    """`int64 (len(classes),)`: the data set's label of each class, -1 where it has none.

    Names that only one side has are a choice of classes; such names on both sides are taken for
    a misspelling, which would otherwise pass as an AP of 0.
    """
    ours = {name: label for label, name in enumerate(dataset.classes)}
    foreign = [name for name in classes if name not in ours]
    missing = [name for name in dataset.classes if name not in classes]
    if foreign and missing:
        raise EvaluationError(
            f"the detector's class '{foreign[0]}' is not in the data set, whose class"
            f" '{missing[0]}' the detector does not know",
            path=dataset.name,
            hint="give both the same class names",
        )
    return np.array([ours.get(name, -1) for name in classes], dtype=np.int64)


def match_class(
    truth: FlatGroundTruth, detections: FlatDetections, label: int, min_iou: float
) -> ClassMatches:
    """Match every detection of one class as the devkit does (VOCevaldet).

    Detections are taken best margin first. Each goes to the object of its class and image with
    the highest IoU, difficult or not, claimed or not. Where that IoU is at least `min_iou`, the
    detection is ignored if the object is difficult, a true positive if it is the first there,
    and a duplicate otherwise: it never falls back on the second-best object. Else it is a false
    positive.

    Raises:
        EvaluationError: `min_iou` is not in (0, 1].
    """
    if not 0 < min_iou <= 1:
        raise EvaluationError(f"a least IoU of {min_iou}", hint="give one above 0, at most 1")
    objects = np.flatnonzero(truth.labels == label)
    truth = truth.where(truth.labels == label)
    of_class = np.flatnonzero(detections.labels == label)
    rows = of_class[np.argsort(-detections.margins[of_class], kind="stable")]
    ranked = detections.take(rows)
    overlaps, nearest = best_matches(ranked.images, ranked.boxes, truth.images, truth.boxes)
    outcomes = np.full(len(ranked), FALSE_POSITIVE, np.int8)
    hits = np.flatnonzero(overlaps >= min_iou)
    on_difficult = truth.difficult[nearest[hits]]
    outcomes[hits[on_difficult]] = IGNORED
    claims = hits[~on_difficult]
    outcomes[claims] = DUPLICATE
    _, first = np.unique(nearest[claims], return_index=True)
    outcomes[claims[first]] = TRUE_POSITIVE
    return ClassMatches(truth, objects, ranked, rows, overlaps, nearest, outcomes)


def best_matches(
    images: IntArray, boxes: FloatArray, object_images: IntArray, object_boxes: FloatArray
) -> tuple[Float64Array, IntArray]:
    """Find each box's highest IoU with an object of its image, and that object's index.

    Returns `float64 (N,)` overlaps and `int64 (N,)` indices into the objects, the first of
    equals; 0 and -1 for an image without objects. `object_images` must ascend.
    """
    n_images = 1 + max(int(images.max(initial=-1)), int(object_images.max(initial=-1)))
    in_image = np.bincount(object_images, minlength=n_images)
    count, start = in_image[images], (np.cumsum(in_image) - in_image)[images]
    overlaps = np.zeros(len(images), np.float64)
    nearest = np.full(len(images), -1, np.int64)
    paired = np.flatnonzero(count)
    block = np.cumsum(count[paired]) // PAIRS_AT_ONCE
    for rows in np.split(paired, np.flatnonzero(np.diff(block)) + 1):
        if not rows.size:
            continue
        n = count[rows]
        first = np.cumsum(n) - n
        pair = np.arange(int(n.sum()))
        other = pair + np.repeat(start[rows] - first, n)
        iou = paired_iou(boxes[np.repeat(rows, n)], object_boxes[other])
        best = np.maximum.reduceat(iou, first)
        at_best = np.where(iou == np.repeat(best, n), pair, len(pair))
        overlaps[rows] = best
        nearest[rows] = other[np.minimum.reduceat(at_best, first)]
    return overlaps, nearest
