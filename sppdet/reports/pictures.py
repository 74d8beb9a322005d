"""Pictures of a report: a small JPEG within the page, and boxes that the browser draws over it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image

from sppdet.core.errors import SppdetError
from sppdet.core.images import read_sample
from sppdet.core.types import FloatArray, Sample

# Pixels of a picture's longer side, and JPEG's quality.
LONG_SIDE = 420
QUALITY = 72
# A picture that is too large in bytes is made smaller by this factor, down to so many pixels.
SHRINK, LEAST_SIDE = 0.8, 48
# Context round the boxes of a picture of a part of an image, as a share of their longer side.
CONTEXT = 0.6


class Mark(NamedTuple):
    """A box to be drawn: `found`, `missed`, `right` or `wrong`, its corners, and its label."""

    kind: str
    box: FloatArray
    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A part of an image and the boxes in it.

    Attributes:
        image: a `data:` address of a JPEG; None where the image cannot be read.
        view: x, y, width and height of the part, in pixels of the image.
        marks: the boxes, in pixels of the image.
    """

    image: str | None
    view: tuple[int, int, int, int]
    marks: tuple[Mark, ...]

    @property
    def unit(self) -> float:
        """Pixels of the image that are about one of the picture as it is shown."""
        return max(self.view[2:]) / LONG_SIDE


def draw_picture(
    sample: Sample, marks: Sequence[Mark], max_bytes: int, around: FloatArray | None = None
) -> Picture:
    """Make the picture of an image, or of its part around boxes `(N, 4)`, in `max_bytes` at most.

    A picture that cannot be so small, and an image that cannot be read or is not of the annotated
    size, is left out.
    """
    view = (0, 0, sample.width, sample.height) if around is None else _part(sample, around)
    try:
        image = Image.fromarray(read_sample(sample))
    except (SppdetError, OSError):
        return Picture(None, view, tuple(marks))
    x, y, width, height = view
    return Picture(
        _encode(image.crop((x, y, x + width, y + height)), max_bytes), view, tuple(marks)
    )


def _part(sample: Sample, boxes: FloatArray) -> tuple[int, int, int, int]:
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    margin = CONTEXT * float((high - low).max()) + 1
    x, y = (int(max(0, np.floor(v - margin))) for v in low)
    right = min(sample.width, int(np.ceil(high[0] + margin)))
    bottom = min(sample.height, int(np.ceil(high[1] + margin)))
    # A box may lie outside of its image altogether.
    x, y = min(x, sample.width - 1), min(y, sample.height - 1)
    return x, y, max(1, right - x), max(1, bottom - y)


def _encode(image: Image.Image, max_bytes: int) -> str | None:
    side = float(min(LONG_SIDE, max(image.size)))
    while side >= LEAST_SIDE or side == max(image.size):
        ratio = side / max(image.size)
        size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
        out = BytesIO()
        image.resize(size, Image.Resampling.LANCZOS).save(out, "JPEG", quality=QUALITY)
        if out.tell() <= max_bytes:
            return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
        side *= SHRINK
    return None
