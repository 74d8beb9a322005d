"""JSON files of annotation tools: read safely, values taken in all ways that tools write."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sppdet.core.errors import AnnotationError, DatasetError
from sppdet.datasets.annotations import MAX_SIDE, Box

# Read from either end of a file to tell what it is.
HEAD_BYTES = 1 << 16


def read_json(path: Path, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Parse a JSON file, with or without a byte order mark; `hook` replaces each object.

    Raises:
        DatasetError: there is no such file.
        AnnotationError: it is empty, or not JSON; names the place.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DatasetError("no such annotation file", path=path, hint="check the path") from None
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        raise DatasetError(
            f"cannot be read ({problem})", path=path, hint="check the path"
        ) from None
    if not data.strip():
        raise AnnotationError("the file is empty", path=path, hint="restore it")
    try:
        text = data.decode(json.detect_encoding(data), "strict").removeprefix("\ufeff")
        del data
        return json.loads(text, object_hook=hook)
    # RecursionError: a document nested thousands deep.
    except (ValueError, RecursionError) as error:
        raise AnnotationError(
            f"broken JSON ({error})", path=path, hint="correct or restore the file"
        ) from None


def ends_of_file(path: Path) -> str:
    """Return both ends of a file as text, to tell its format; nothing if it cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            file.seek(max(len(head), path.stat().st_size - HEAD_BYTES))
            return (head + file.read(HEAD_BYTES)).decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    except (OSError, ValueError):
        return ""


def as_number(value: Any) -> float | None:
    """Take a finite number, or a text of one; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_numbers(values: Any) -> list[float] | None:
    """Take a list of finite numbers; None if it is anything else."""
    if not isinstance(values, list | tuple):
        return None
    numbers = [as_number(value) for value in values]
    return [n for n in numbers if n is not None] if None not in numbers else None


def as_size(width: Any, height: Any) -> tuple[int, int] | None:
    """Take a stated size, in numbers or texts; None where there is no usable one."""
    sides = as_numbers([width, height])
    if sides is None or not all(1 <= side <= MAX_SIDE and side == int(side) for side in sides):
        return None
    return int(sides[0]), int(sides[1])


def as_key(value: Any) -> str | None:
    """Take an id, a whole number or a text, as text; None for anything else."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float):
        return str(int(value)) if math.isfinite(value) and value == int(value) else None
    return str(value)


def enclose(points: Sequence[Sequence[float]]) -> Box:
    """Return the upright box around points."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    return min(xs), min(ys), max(xs), max(ys)


def rotate(box: Box, degrees: float, center: tuple[float, float]) -> Box:
    """Return the upright box around a box turned clockwise about `center` (y points down)."""
    x1, y1, x2, y2 = box
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    cx, cy = center
    return enclose(
        [
            (cx + (x - cx) * cos - (y - cy) * sin, cy + (x - cx) * sin + (y - cy) * cos)
            for x in (x1, x2)
            for y in (y1, y2)
        ]
    )


def as_points(values: Any) -> list[list[float]] | None:
    """Take a list of `[x, y]`; None if it is anything else, or empty."""
    if not isinstance(values, list) or not values:
        return None
    points = [as_numbers(value) for value in values]
    return [p[:2] for p in points if p] if all(p and len(p) >= 2 for p in points) else None
