"""Tables, numbers and object sizes as all reports have them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sppdet.core.types import FloatArray, IntArray

SIZE_NAMES = ("small", "medium", "large")
# Square pixels at which an object becomes medium, then large (COCO's detection challenge).
SIZE_LIMITS = (32.0**2, 96.0**2)


def size_bands(areas: FloatArray) -> IntArray:
    """Index into `SIZE_NAMES` of each area in square pixels, `int64 (N,)`."""
    return np.digitize(areas, SIZE_LIMITS).astype(np.int64)


def json_number(value: float) -> float | None:
    """Return the value, or None (JSON's null) for nan."""
    return None if math.isnan(value) else value


def figures(values: Sequence[float]) -> list[str]:
    """Format values with three decimals, nan as a dash."""
    return ["-" if math.isnan(value) else f"{value:.3f}" for value in values]


def table(header: list[str], rows: list[list[str]]) -> str:
    """Align rows as plain text; the first column flush left, the others flush right."""
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    lines = [
        [cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(pairs)]
        for pairs in (list(zip(line, widths, strict=True)) for line in (header, *rows))
    ]
    return "\n".join("  ".join(line).rstrip() for line in lines)
