"""Tables and numbers as all reports write them."""

from __future__ import annotations

import math
from collections.abc import Sequence


def json_number(value: float) -> float | None:
    """The value, or None (JSON's null) for nan."""
    return None if math.isnan(value) else value


def figures(values: Sequence[float]) -> list[str]:
    """Three decimals each, a dash for nan."""
    return ["-" if math.isnan(value) else f"{value:.3f}" for value in values]


def table(header: list[str], rows: list[list[str]], markdown: bool) -> str:
    """Plain text or Markdown; the first column flush left, the others flush right."""
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    lines = [
        [cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(pairs)]
        for pairs in (list(zip(line, widths, strict=True)) for line in (header, *rows))
    ]
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in lines)
    rule = ["-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))
