"""Values that stages hand on: frozen, and validated when made.

One box convention holds everywhere: `float32 (N, 4)`, `x1 y1 x2 y2`, 0-based and half-open, in
pixels of the original image. VOC's 1-based inclusive boxes exist only where VOC files are read
and written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from sppdet.core.connectors import exports, imports

FloatArray = NDArray[np.float32]
Float64Array = NDArray[np.float64]
# Of either kind: functions that keep the type of what they are given.
FloatingArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]
Int32Array = NDArray[np.int32]
UInt8Array = NDArray[np.uint8]
UInt32Array = NDArray[np.uint32]
BoolArray = NDArray[np.bool_]
# Pixels `(H, W, 3)`, RGB.
ImageArray = NDArray[np.uint8]


def _frozen(array: NDArray[Any], dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
    """Copy `array` read-only as `dtype`, reshaped when empty; ValueError on a wrong shape."""
    out: NDArray[Any] = np.array(array, dtype=dtype, order="C")
    if out.size == 0:
        out = out.reshape(tuple(0 if n < 0 else n for n in shape))
    if out.ndim != len(shape) or any(
        want not in (-1, got) for want, got in zip(shape, out.shape, strict=True)
    ):
        raise ValueError(f"expected an array of shape {shape}, got {out.shape}")
    out.setflags(write=False)
    return out


def as_boxes(boxes: NDArray[Any]) -> FloatArray:
    """Copy boxes read-only as `float32 (N, 4)`; ValueError if one is not finite or inverted."""
    out = _frozen(boxes, np.float32, (-1, 4))
    if not np.isfinite(out).all():
        raise ValueError("a box has a coordinate that is not finite")
    bad = np.flatnonzero((out[:, 2] < out[:, 0]) | (out[:, 3] < out[:, 1]))
    if bad.size:
        raise ValueError(f"box {bad[0]} is inverted: {out[bad[0]].tolist()}")
    return out


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One annotated image, not yet read.

    Attributes:
        image_id: the data set's name for the image (VOC: the file's stem).
        path: the image file.
        width, height: size in pixels, as the annotation states it.
        boxes: `float32 (N, 4)`, original-image pixels.
        labels: `int64 (N,)`, index into the data set's classes.
        difficult: `bool (N,)`, VOC's flag: ignored by the evaluator, used as ground truth when
            training (as the SPP-net release and R-CNN do).
        areas: `float32 (N,)`, square pixels of the objects' masks, where the data set states them
            (COCO); None elsewhere.
    """

    image_id: str
    path: Path
    width: int
    height: int
    boxes: FloatArray
    labels: IntArray
    difficult: BoolArray
    areas: FloatArray | None = None

    def __post_init__(self) -> None:
        boxes = as_boxes(self.boxes)
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "labels", _frozen(self.labels, np.int64, (len(boxes),)))
        object.__setattr__(self, "difficult", _frozen(self.difficult, np.bool_, (len(boxes),)))
        if self.areas is not None:
            object.__setattr__(self, "areas", _frozen(self.areas, np.float32, (len(boxes),)))


@dataclass(frozen=True, slots=True)
class Dataset:
    """An ordered collection of samples with its class names.

    Attributes:
        name: what reports call it, for example `VOC2007 val`.
        classes: class names; a label indexes this tuple.
        samples: the images, in the order of the split file.
    """

    name: str
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """One detected object: class name, score, box `x1 y1 x2 y2` in image pixels, and margin."""

    name: str
    score: float
    box: tuple[float, float, float, float]
    margin: float


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The detections of one image, best score first: a sequence of `Detection` values.

    A slice gives `Detections` again.

    Attributes:
        boxes: `float32 (N, 4)`, original-image pixels.
        scores: `float32 (N,)`. A detector's are probabilities in [0, 1]: that the box overlaps an
            object of its class by an IoU of 0.5 or more (`detection.probabilities.calibration`).
        labels: `int64 (N,)`, index into `classes`.
        classes: class names.
        margins: `float32 (N,)`, what the scores follow from, as `DetectionConfig` makes them: not
            bounded, and in the same order within a class, also where probabilities near 1 are
            equal. The scores themselves where none are given.
    """

    boxes: FloatArray
    scores: FloatArray
    labels: IntArray
    classes: tuple[str, ...]
    margins: FloatArray = None  # type: ignore[assignment]  # __post_init__ makes it an array

    def __post_init__(self) -> None:
        boxes = as_boxes(self.boxes)
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "scores", _frozen(self.scores, np.float32, (len(boxes),)))
        margins = self.scores if self.margins is None else self.margins
        object.__setattr__(self, "margins", _frozen(margins, np.float32, (len(boxes),)))
        labels = _frozen(self.labels, np.int64, (len(boxes),))
        object.__setattr__(self, "labels", labels)
        if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.classes):
            raise ValueError(f"a label lies outside the {len(self.classes)} classes")

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[Detection]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Detection: ...

    @overload
    def __getitem__(self, index: slice) -> Detections: ...

    def __getitem__(self, index: int | slice) -> Detection | Detections:
        if isinstance(index, slice):
            return self._some(index)
        x1, y1, x2, y2 = (float(v) for v in self.boxes[index])
        name = self.classes[int(self.labels[index])]
        score, margin = float(self.scores[index]), float(self.margins[index])
        return Detection(name, score, (x1, y1, x2, y2), margin)

    def above(self, threshold: float) -> Detections:
        """Select the detections whose score is at least `threshold`."""
        return self._some(self.scores >= threshold)

    def _some(self, keep: slice | BoolArray) -> Detections:
        arrays = (self.boxes[keep], self.scores[keep], self.labels[keep])
        return Detections(*arrays, self.classes, self.margins[keep])

    def to_supervision(self) -> Any:
        """`supervision.Detections`, as `core.connectors.exports` says, like all `to_*`."""
        return exports.to_supervision(self)

    def to_fiftyone(self, width: int, height: int) -> Any:
        """`fiftyone.Detections` of an image of such a size."""
        return exports.to_fiftyone(self, width, height)

    def to_torchvision(self) -> dict[str, Any]:
        """Tensors `boxes`, `labels` and `scores`."""
        return exports.to_torchvision(self)

    def to_transformers(self) -> list[dict[str, Any]]:
        """A list of `score`, `label` and `box`, as a pipeline gives it."""
        return exports.to_transformers(self)

    def to_pandas(self) -> Any:
        """`pandas.DataFrame`, one row per detection."""
        return exports.to_pandas(self)

    @classmethod
    def from_supervision(cls, found: Any, classes: Sequence[str] | None = None) -> Detections:
        """From `supervision.Detections`, as `core.connectors.imports` says, like all `from_*`."""
        return cls(*imports.from_supervision(found, classes))

    @classmethod
    def from_torchvision(cls, found: Mapping[str, Any], classes: Sequence[str]) -> Detections:
        """From tensors `boxes`, `labels` and `scores`."""
        return cls(*imports.from_torchvision(found, classes))

    @classmethod
    def from_transformers(
        cls, found: Iterable[Mapping[str, Any]], classes: Sequence[str] | None = None
    ) -> Detections:
        """From a list of `score`, `label` and `box`."""
        return cls(*imports.from_transformers(found, classes))

    @classmethod
    def from_ultralytics(cls, found: Any, classes: Sequence[str] | None = None) -> Detections:
        """From one of its `Results`."""
        return cls(*imports.from_ultralytics(found, classes))

    @classmethod
    def from_pandas(cls, table: Any, classes: Sequence[str] | None = None) -> Detections:
        """From a data frame with the columns that `to_pandas` writes; `margin` may be left out."""
        return cls(*imports.from_pandas(table, classes))
