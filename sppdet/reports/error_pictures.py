"""What a report shows of images: the worst ones, and annotations that may be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from sppdet.core.types import Dataset, IntArray
from sppdet.evaluation.error_analysis import CAUSES, Causes
from sppdet.reports.image_errors import (
    ImageErrors,
    count_image_errors,
    swapped_classes,
    unannotated_objects,
    unfitted_objects,
    worst_images,
)
from sppdet.reports.pictures import Mark, Picture, draw_picture

WORST_IMAGES = 50
# Of each kind of doubtful annotation.
SUSPECTS = 20
# Boxes drawn in one picture, and lines below it; errors go first.
MAX_MARKS, MAX_LINES = 60, 10


class Item(NamedTuple):
    """A picture, the image's name, and lines below it, each with the kind of mark it tells of."""

    name: str
    picture: Picture
    lines: Sequence[tuple[str, str]]


class Group(NamedTuple):
    """Doubtful annotations of one kind: those shown, and how many there are."""

    title: str
    items: Sequence[Item]
    total: int

    @property
    def shown(self) -> int:
        """Number of those shown."""
        return len(self.items)


@dataclass(frozen=True, slots=True, eq=False)
class ErrorPictures:
    """The worst images, the doubtful annotations, and how many of all have no picture."""

    worst: Sequence[Item]
    suspects: Sequence[Group]

    @property
    def left_out(self) -> int:
        """Number of pictures without an image: it cannot be read, or has no room."""
        items = [*self.worst, *(item for group in self.suspects for item in group.items)]
        return sum(item.picture.image is None for item in items)

    @classmethod
    def draw(
        cls, dataset: Dataset, causes: Causes, threshold: float, max_bytes: int
    ) -> ErrorPictures:
        """Draw them, with detections that score `threshold` or more, in so many bytes of JPEG."""
        errors = count_image_errors(causes, len(dataset), threshold)
        worst = worst_images(causes, errors, WORST_IMAGES)
        missing, swapped = unannotated_objects(causes, errors), swapped_classes(causes, errors)
        unfitted, overlaps = unfitted_objects(causes)
        groups = [missing[:SUSPECTS], swapped[:SUSPECTS], unfitted[:SUSPECTS]]
        # A picture of a part is smaller: two of them have the room of one of an image.
        room = max_bytes // max(1, 2 * len(worst) + sum(len(rows) for rows in groups))
        drawer = _Drawer(dataset, causes, errors, threshold)
        detection = partial(drawer.detection, max_bytes=room)
        return cls(
            [drawer.image(int(index), 2 * room) for index in worst],
            [
                Group(
                    "Not annotated: confident detections of nothing",
                    [detection(int(row)) for row in groups[0]],
                    len(missing),
                ),
                Group(
                    "Another class: confident detections of one that nothing else finds",
                    [detection(int(row)) for row in groups[1]],
                    len(swapped),
                ),
                Group(
                    "Annotated, but no detection of any class and score fits",
                    [
                        drawer.object(int(row), float(best), room)
                        for row, best in zip(groups[2], overlaps, strict=False)
                    ],
                    len(unfitted),
                ),
            ],
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Drawer:
    dataset: Dataset
    causes: Causes
    errors: ImageErrors
    threshold: float

    def image(self, index: int, max_bytes: int) -> Item:
        """An image with all annotations and the detections that are kept."""
        flat = self.causes.detections
        objects = np.flatnonzero(self.causes.truth.images == index)
        kept = np.flatnonzero((flat.images == index) & (flat.scores >= self.threshold))
        sample = self.dataset.samples[index]
        marks = [*map(self._object_mark, objects), *map(self._detection_mark, kept)]
        # What is drawn last lies on top; sorting keeps the order otherwise.
        marks = sorted(marks, key=lambda mark: mark.kind in ("missed", "wrong"))[-MAX_MARKS:]
        lines = []
        missed = objects[self.errors.missed[objects]]
        if len(missed):
            lines.append(("missed", f"missed: {self._names(missed)}"))
        wrong = [self._tell(int(row)) for row in kept if self.errors.wrong[row]]
        lines += [("wrong", text) for text in wrong[:MAX_LINES]]
        if len(wrong) > MAX_LINES:
            lines.append(("wrong", f"and {len(wrong) - MAX_LINES} more that are wrong"))
        return Item(sample.image_id, draw_picture(sample, marks, max_bytes), lines)

    def detection(self, row: int, max_bytes: int) -> Item:
        """A detection and, if there is one, the object that it should be."""
        target = int(self.causes.targets[row])
        marks = [] if target < 0 else [self._object_mark(target)]
        marks.append(self._detection_mark(row))
        return self._part(
            int(self.causes.detections.images[row]), marks, self._tell(row), max_bytes
        )

    def object(self, row: int, best: float, max_bytes: int) -> Item:
        """An object, and how well the detection that overlaps it most does."""
        truth = self.causes.truth
        text = f"{self._names([row])}: an IoU of {best:.2f} at most"
        return self._part(int(truth.images[row]), [self._object_mark(row)], text, max_bytes)

    def _part(self, index: int, marks: list[Mark], text: str, max_bytes: int) -> Item:
        sample = self.dataset.samples[index]
        picture = draw_picture(sample, marks, max_bytes, np.stack([one.box for one in marks]))
        return Item(sample.image_id, picture, [(marks[-1].kind, text)])

    def _object_mark(self, row: int | np.int64) -> Mark:
        kind = "missed" if self.errors.missed[row] else "found"
        return Mark(kind, self.causes.truth.boxes[row], self._names([int(row)]))

    def _detection_mark(self, row: int | np.int64) -> Mark:
        flat = self.causes.detections
        name = self.dataset.classes[flat.labels[row]]
        kind = "wrong" if self.errors.wrong[row] else "right"
        return Mark(kind, flat.boxes[row], f"{name} {flat.scores[row]:.2f}")

    def _tell(self, row: int) -> str:
        flat, target = self.causes.detections, int(self.causes.targets[row])
        text = f"{self.dataset.classes[flat.labels[row]]} {flat.scores[row]:.2f}"
        text += f": {CAUSES[self.causes.causes[row]]}"
        is_other = target >= 0 and self.causes.truth.labels[target] != flat.labels[row]
        return f"{text}, annotated as {self._names([target])}" if is_other else text

    def _names(self, objects: Sequence[int] | IntArray) -> str:
        labels = self.causes.truth.labels[np.asarray(objects)]
        return ", ".join(self.dataset.classes[label] for label in labels)
