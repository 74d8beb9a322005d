"""Checks that all annotation readers share: class names, boxes, file names, samples."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

import numpy as np

from sppdet.core.errors import AnnotationError, DatasetError
from sppdet.core.types import Sample

Box = tuple[float, float, float, float]

# Annotation tools round outwards or count from 0: a box this far outside its image is clipped.
OUTSIDE_TOLERANCE = 1.0

# No image format holds longer sides.
MAX_SIDE = 2**31 - 1


class LabeledBox(NamedTuple):
    """One checked object: label, half-open box in pixels, and the VOC flag difficult."""

    label: int
    box: Box
    difficult: bool


@dataclass(frozen=True, slots=True)
class ClassList:
    """Class names, and the labels that names in annotations map to.

    Attributes:
        names: the classes; a label indexes this tuple.
        ignore_unknown: leave out objects of other classes, rather than refuse their file.
    """

    names: tuple[str, ...]
    ignore_unknown: bool = False

    def __post_init__(self) -> None:
        if not self.names or not all(isinstance(n, str) and n.strip() for n in self.names):
            raise DatasetError(
                "the class list is empty or has an empty name", hint="name at least one class"
            )
        repeated = sorted({n for n in self.names if self.names.count(n) > 1})
        if repeated:
            raise DatasetError(
                f"the class list repeats {', '.join(repeated)}", hint="name each class once"
            )

    def label(self, name: str, *, path: Path, what: str) -> int | None:
        """Return the label of `name`; None if it is to be left out.

        Raises:
            AnnotationError: an unknown class; names the nearest known one.
        """
        if name in self.names:
            return self.names.index(name)
        if self.ignore_unknown:
            return None
        lowered = {n.lower(): n for n in self.names}
        near = difflib.get_close_matches(name.lower(), lowered, n=1)
        advice = (
            f"did you mean {lowered[near[0]]!r}? Correct it, add it to the classes"
            if near
            else f"add it to the classes ({', '.join(self.names)})"
        )
        raise AnnotationError(
            f"{what} has the unknown class {name!r}",
            path=path,
            hint=f"{advice} (classes.txt); in Python, ignore_unknown=True leaves such objects out",
        )


def make_class_list(classes: Sequence[str], *, ignore_unknown: bool = False) -> ClassList:
    """Validate class names; a bare string, an easy slip, is refused."""
    if isinstance(classes, str):
        raise DatasetError(f"classes is the string {classes!r}", hint=f"give a list: [{classes!r}]")
    return ClassList(tuple(classes), ignore_unknown)


def check_box(box: Box, width: int, height: int, *, path: Path, what: str) -> Box:
    """Return the half-open box, clipped if it leaves its image by `OUTSIDE_TOLERANCE` at most.

    Raises:
        AnnotationError: a coordinate that is not finite, an inverted or empty box, or one outside
            its image; names the file and the object.
    """
    x1, y1, x2, y2 = box
    clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    outside = max(abs(a - b) for a, b in zip(box, clipped, strict=True))
    if not all(math.isfinite(v) for v in box):
        problem, hint = "a coordinate that is not finite", "correct the box"
    elif x2 <= x1 or y2 <= y1:
        problem, hint = "an inverted or empty box", "swap its corners"
    elif outside > OUTSIDE_TOLERANCE or clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        problem = f"a box outside its {width}x{height} image"
        hint = "correct the box or the image size"
    else:
        return clipped
    shown = ", ".join(f"{v:g}" for v in box)
    raise AnnotationError(
        f"{what} has {problem} (x1, y1, x2, y2 = {shown})",
        path=path,
        hint=f"{hint}, or remove the object",
    )


def confine_path(folder: Path, name: str, *, path: Path) -> Path:
    """Return `folder / name`, for a relative name that does not climb out of `folder`.

    Links that a user placed inside the folder are followed: only the name is distrusted.

    Raises:
        AnnotationError: an empty or absolute name, or one with `..`; names the file `path`.
    """
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    absolute = posix.is_absolute() or bool(windows.drive or windows.root)
    if not name.strip() or absolute or ".." in windows.parts or "\0" in name:
        raise AnnotationError(
            f"the file name {name!r} leads out of {folder.name}",
            path=path,
            hint="use a plain file name",
        )
    return folder / posix


def make_sample(
    image_id: str, path: Path, size: tuple[int, int], objects: Sequence[LabeledBox]
) -> Sample:
    """Make a sample of an image of `size` (width, height) and its checked objects."""
    return Sample(
        image_id=image_id,
        path=path,
        width=size[0],
        height=size[1],
        boxes=np.array([item.box for item in objects], dtype=np.float32).reshape(-1, 4),
        labels=np.array([item.label for item in objects], dtype=np.int64),
        difficult=np.array([item.difficult for item in objects], dtype=np.bool_),
    )
