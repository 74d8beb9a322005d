"""Lines of YOLO's label files: boxes and polygons in shares of the image's sides."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sppdet.core.errors import AnnotationError
from sppdet.datasets.raw import BAD_OBJECT, CLASS_NUMBER, CONFIDENCE, Findings, RawImage, RawObject

_BOX_COLUMNS = 5
_DECIMAL_COMMA = re.compile(r"-?\d+(,\d+)?")


@dataclass(slots=True)
class LabelParser:
    """Parses label files, and counts what they hold.

    Attributes:
        names: the classes by number; None where nothing names them: they are called by number.
        keypoints: whether keypoints follow each box.
        findings: gets what is wrong with single lines.
        boxes: how many there were so far that were no polygons.
    """

    names: Mapping[int, str] | None
    keypoints: bool
    findings: Findings
    boxes: int = 0

    def parse(self, text: str, image: RawImage) -> int:
        """Parse the text of an image's label file into its objects; count the polygons."""
        path, split, polygons = image.source, image.split, 0
        for number, line in enumerate(text.splitlines(), 1):
            fields = split_fields(line)
            if not fields or fields[0].startswith("#"):
                continue
            what = f"line {number}"
            try:
                box, is_polygon, confidence = self._box(fields)
                name = self._name(fields[0])
            except ValueError as error:
                self.findings.add(BAD_OBJECT, path, f"{what} {error}", split)
                image.lost += 1
                continue
            polygons += is_polygon
            if name is None:
                problem = f"{what} has the class {fields[0]}, {self._known()}"
                self.findings.add(CLASS_NUMBER, path, problem, split)
                image.lost += 1
                continue
            if confidence is not None:
                self.findings.add(CONFIDENCE, path, f"{what} ends in {confidence}", split)
            self.boxes += not is_polygon
            image.objects.append(RawObject(name, box, what, relative=True))
        return polygons

    def _name(self, number: str) -> str | None:
        """Return the class of a number; None for one without a name."""
        try:
            value = float(number)
        except ValueError:
            if self.names is not None and number in self.names.values():
                return number
            raise ValueError(f"has the class {number[:40]!r}, which is no number") from None
        if not value.is_integer():
            raise ValueError(f"has the class {number[:40]!r}, which is no whole number")
        if self.names is None:
            return str(int(value)) if value >= 0 else None
        return self.names.get(int(value))

    def _known(self) -> str:
        if not self.names:
            return "which is below 0"
        return f"but the names are of {min(self.names)} to {max(self.names)}"

    def _box(self, fields: list[str]) -> tuple[tuple[float, float, float, float], bool, str | None]:
        """Return the box of a line, whether it was a polygon, and the confidence after it."""
        count = len(fields)
        if count < _BOX_COLUMNS:
            raise ValueError(f"has {count} columns; a box has {_BOX_COLUMNS}")
        try:
            numbers = [float(field) for field in fields[1:]]
        except ValueError:
            raise ValueError("holds something else than numbers") from None
        is_box = self.keypoints or count <= _BOX_COLUMNS + 1
        used = numbers[:4] if is_box else numbers
        if not all(math.isfinite(value) for value in used):
            raise ValueError("holds a number that is not finite")
        if is_box:
            x, y, width, height = used
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            has_confidence = count == _BOX_COLUMNS + 1 and not self.keypoints
            return box, False, fields[-1] if has_confidence else None
        if count % 2 == 0:
            raise ValueError(f"has {count} columns; a box has 5, a polygon 7, 9, 11 and so on")
        xs, ys = used[::2], used[1::2]
        return (min(xs), min(ys), max(xs), max(ys)), True, None


def split_fields(line: str) -> list[str]:
    """Split a line at blanks or commas; `0,5` is a number where blanks are between the fields."""
    fields = line.replace("\0", " ").split()
    if "," in line:
        if len(fields) >= _BOX_COLUMNS and all(_DECIMAL_COMMA.fullmatch(f) for f in fields):
            return [field.replace(",", ".") for field in fields]
        return line.replace(",", " ").split()
    return fields


def is_label_text(text: str) -> bool:
    """Return whether the first line of a text that is not blank looks like an object's."""
    for line in text.splitlines():
        if fields := split_fields(line):
            try:
                return len([float(field) for field in fields]) >= _BOX_COLUMNS
            except ValueError:
                return False
    return False


def read_text(path: Path) -> str:
    """Read a text file, without its byte order mark.

    Raises:
        AnnotationError: it cannot be read, or is not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        problem = "is not text in UTF-8"
    except (OSError, ValueError) as error:
        problem = f"cannot be read ({getattr(error, 'strerror', None) or error})"
    raise AnnotationError(problem, path=path, hint="save it as UTF-8 text")
