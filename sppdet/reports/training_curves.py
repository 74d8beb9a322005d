"""Curves of a training, drawn beside its table while it runs."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from sppdet.core.files import atomic_write_bytes
from sppdet.reports.svg_figure import NO_METADATA, svg_figure

CURVES_FILE = "curves.svg"
# Panels: title, whether values lie in [0, 1], and its columns with what they are called.
PANELS = (
    (
        "loss, mean since the point before",
        False,
        (("total", "total"), ("classification", "classification"), ("box", "boxes")),
    ),
    (
        "accuracy, 0 to 1",
        True,
        (("foreground_accuracy", "objects classified right"), ("validation_ap", "validation AP")),
    ),
)


def write_curves(table: Path) -> None:
    """Draw a table `history.csv` as `curves.svg` beside it; nothing where there is no table.

    Invariant: equal tables give equal bytes; a drawing that is there already is not written again.
    """
    if not table.is_file():
        return
    drawn = draw_curves(list(csv.DictReader(StringIO(table.read_text(encoding="utf-8")))))
    target = table.with_name(CURVES_FILE)
    if not (target.is_file() and target.read_bytes() == drawn):
        atomic_write_bytes(target, drawn)


def draw_curves(rows: Sequence[dict[str, str]]) -> bytes:
    """Draw the rows of a table, by column, as an SVG file; an empty cell is no measurement."""
    stream = BytesIO()
    with svg_figure(7.5, 5.5) as figure:
        panels = figure.subplots(2, sharex=True)
        for axes, (title, is_share, columns) in zip(panels, PANELS, strict=True):
            for column, label in columns:
                _draw(axes, rows, column, label)
            axes.set(title=title, ylim=(0, 1.02) if is_share else (0, None))
            axes.legend(frameon=False)
        panels[-1].set_xlabel("step")
        figure.savefig(stream, format="svg", metadata=NO_METADATA)
    return stream.getvalue()


def _draw(axes: Any, rows: Sequence[dict[str, str]], column: str, label: str) -> None:
    points = [(int(row["step"]), float(row[column])) for row in rows if row.get(column)]
    points = [(step, value) for step, value in points if math.isfinite(value)]
    if points:
        axes.plot(*zip(*points, strict=True), marker=".", label=label)
