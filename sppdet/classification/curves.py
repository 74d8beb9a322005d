"""Training curves as a picture: loss above, error below, one point an epoch."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from sppdet.files import atomic_write_bytes

Series = Mapping[str, Sequence[float]]
Pen = ImageDraw.ImageDraw

WIDTH, PANEL_HEIGHT = 900, 330
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 34, 34
# From Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167))
INK, GRID = (40, 40, 40), (225, 225, 225)
TICKS = 5
TEXT_SIZE = 14


def write_curves(path: Path, panels: Mapping[str, Series], xlabel: str = "epoch") -> None:
    """Writes a PNG, atomically: a panel for each entry, in it a curve for each series.

    Points count from 1; values that are not finite leave a gap. Law: equal input gives equal
    bytes.
    """
    picture = Image.new("RGB", (WIDTH, PANEL_HEIGHT * max(1, len(panels))), "white")
    pen = ImageDraw.Draw(picture)
    for index, (title, series) in enumerate(panels.items()):
        _panel(pen, index * PANEL_HEIGHT, title, series, xlabel)
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    atomic_write_bytes(path, stream.getvalue())


def nice_step(span: float, ticks: int = TICKS) -> float:
    """The step 1, 2 or 5 times a power of ten that cuts `span` into at most `ticks` parts."""
    rough = span / ticks
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))


def _panel(pen: Pen, top: int, title: str, series: Series, xlabel: str) -> None:
    font = ImageFont.load_default(TEXT_SIZE)
    values = [v for one in series.values() for v in one if math.isfinite(v)]
    count = max([2, *(len(one) for one in series.values())])
    high = max(values, default=1.0) or 1.0
    low = min(0.0, min(values, default=0.0))
    step = nice_step(high - low)
    low, high = math.floor(low / step) * step, math.ceil(high / step - 1e-9) * step
    x0, x1 = LEFT, WIDTH - RIGHT
    y0, y1 = top + PANEL_HEIGHT - BOTTOM, top + TOP

    def place(epoch: float, value: float) -> tuple[float, float]:
        return (
            x0 + (x1 - x0) * (epoch - 1) / (count - 1),
            y0 - (y0 - y1) * (value - low) / (high - low),
        )

    for tick in range(round((high - low) / step) + 1):
        value = low + tick * step
        y = place(1, value)[1]
        pen.line((x0, y, x1, y), fill=GRID)
        pen.text((x0 - 8, y), f"{value:.4g}", fill=INK, font=font, anchor="rm")
    across = max(1, round(nice_step(max(1, count - 1), 2 * TICKS)))
    for epoch in range(1, count + 1):
        if epoch in (1, count) or (epoch % across == 0 and epoch < count - across / 2):
            x = place(epoch, low)[0]
            pen.text((x, y0 + 6), str(epoch), fill=INK, font=font, anchor="mt")
    pen.line((x0, y1, x0, y0, x1, y0), fill=INK)
    pen.text((x0, top + TOP / 2), f"{title} by {xlabel}", fill=INK, font=font, anchor="lm")
    right = float(x1)
    for (name, one), colour in reversed(list(zip(series.items(), _endless(series), strict=True))):
        pen.text((right, top + TOP / 2), name, fill=colour, font=font, anchor="rm")
        right -= pen.textlength(name, font=font) + 20
        _curve(
            pen, [place(n, v) if math.isfinite(v) else None for n, v in enumerate(one, 1)], colour
        )


def _endless(series: Series) -> list[tuple[int, int, int]]:
    return [COLOURS[index % len(COLOURS)] for index in range(len(series))]


def _curve(
    pen: Pen, points: Sequence[tuple[float, float] | None], colour: tuple[int, int, int]
) -> None:
    previous = None
    for point in points:
        if point is not None:
            x, y = point
            pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)
            if previous is not None:
                pen.line((*previous, x, y), fill=colour, width=2)
        previous = point
