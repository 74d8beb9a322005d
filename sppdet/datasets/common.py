"""What the readers share: classes to labels, boxes checked against their image, confined paths."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from sppdet.errors import AnnotationError, DatasetError

Box = tuple[float, float, float, float]

# Annotation tools round outwards or count from 0: a box this far outside its image is clipped.
OUTSIDE_TOLERANCE = 1.0

# No image format holds longer sides.
MAX_SIDE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ClassList:
    """Class names, and what an annotation's name maps to.

    Attributes:
        names: the classes; a label indexes this tuple.
        ignore_unknown: leave out objects of other classes, rather than refuse their file.
    """

    names: tuple[str, ...]
    ignore_unknown: bool = False

    def __post_init__(self) -> None:
        if not self.names or not all(isinstance(n, str) and n.strip() for n in self.names):
            raise DatasetError(
                "the class list is empty or has an empty name", mend="name at least one class"
            )
        repeated = sorted({n for n in self.names if self.names.count(n) > 1})
        if repeated:
            raise DatasetError(
                f"the class list repeats {', '.join(repeated)}", mend="name each class once"
            )

    def label(self, name: str, *, where: Path, what: str) -> int | None:
        """The label of `name`; None if it is to be left out.

        Raises:
            AnnotationError: an unknown class; names the nearest known one.
        """
        if name in self.names:
            return self.names.index(name)
        if self.ignore_unknown:
            return None
        raise AnnotationError(
            f"{what} has the unknown class {name!r}",
            where=where,
            mend=f"{self._advice(name)}, or leave such objects out (ignore_unknown)",
        )

    def _advice(self, name: str) -> str:
        lowered = {n.lower(): n for n in self.names}
        near = difflib.get_close_matches(name.lower(), lowered, n=1)
        if near:
            return f"did you mean {lowered[near[0]]!r}? Correct it, add it to the classes"
        return f"add it to the classes ({', '.join(self.names)})"


def checked_box(box: Box, width: int, height: int, *, where: Path, what: str) -> Box:
    """The half-open box, clipped where it leaves its image by at most `OUTSIDE_TOLERANCE` pixels.

    Raises:
        AnnotationError: a coordinate that is not finite, an inverted or empty box, or one outside
            its image; names the file and the object.
    """
    x1, y1, x2, y2 = box
    shown = ", ".join(f"{v:g}" for v in box)
    if not all(math.isfinite(v) for v in box):
        raise AnnotationError(
            f"{what} has a coordinate that is not finite ({shown})",
            where=where,
            mend="correct the box, or remove the object",
        )
    if x2 <= x1 or y2 <= y1:
        raise AnnotationError(
            f"{what} has an inverted or empty box (x1, y1, x2, y2 = {shown})",
            where=where,
            mend="swap its corners, or remove the object",
        )
    clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    moved = max(abs(a - b) for a, b in zip(box, clipped, strict=True))
    if moved > OUTSIDE_TOLERANCE or clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        raise AnnotationError(
            f"{what} has a box outside its {width}x{height} image (x1, y1, x2, y2 = {shown})",
            where=where,
            mend="correct the box or the image size, or remove the object",
        )
    return clipped


def confined(folder: Path, name: str, *, where: Path) -> Path:
    """`folder / name`, for a relative name that does not climb out of `folder`.

    Links that a user placed inside the folder are followed: only the name is distrusted.

    Raises:
        AnnotationError: an empty or absolute name, or one with `..`.
    """
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    absolute = posix.is_absolute() or bool(windows.drive or windows.root)
    if not name.strip() or absolute or ".." in windows.parts or "\0" in name:
        raise AnnotationError(
            f"the file name {name!r} leads out of {folder.name}",
            where=where,
            mend="use a plain file name",
        )
    return folder / posix


def class_list(classes: Sequence[str], *, ignore_unknown: bool) -> ClassList:
    """The validated class list; a bare string, an easy slip, is refused."""
    if isinstance(classes, str):
        raise DatasetError(f"classes is the string {classes!r}", mend=f"give a list: [{classes!r}]")
    return ClassList(tuple(classes), ignore_unknown)
