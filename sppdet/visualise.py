"""Detections drawn on their image, and several images on one sheet."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sppdet.types import Detections, ImageArray

Colour = tuple[int, int, int]

# Steps of the golden ratio round the colour circle: neighbours in the list of classes get hues
# that are far apart, however many classes there are.
_HUE_STEP = 0.61803398875
# Text and lines grow with the image's shorter side, so that they can be read on any.
_TEXT_SHARE = 1 / 28
_MIN_TEXT, _MAX_TEXT = 11, 40
_LINE_SHARE = 1 / 200


def class_colour(label: int) -> Colour:
    """The RGB colour of a class, the same in every image."""
    lightness = (0.45, 0.6)[label % 2]
    red, green, blue = colorsys.hls_to_rgb(label * _HUE_STEP % 1.0, lightness, 0.85)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw(image: ImageArray, detections: Detections, threshold: float = -np.inf) -> ImageArray:
    """A new `uint8 (H, W, 3)` image with the detections of at least `threshold` drawn on it.

    Each has a frame in its class's colour and a label, name and score, that stays inside the
    image. The best-scored one is drawn last, on top.
    """
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    height, width = image.shape[:2]
    size = round(min(max(min(height, width) * _TEXT_SHARE, _MIN_TEXT), _MAX_TEXT))
    thickness = max(2, round(min(height, width) * _LINE_SHARE))
    shown = detections.above(threshold)
    order = np.argsort(shown.scores, kind="stable")
    corners = [_pixels(shown.boxes[i], width, height) for i in order]
    for corner, label in zip(corners, shown.labels[order], strict=True):
        pen.rectangle(corner, outline=class_colour(int(label)), width=thickness)
    for corner, i in zip(corners, order, strict=True):
        label = int(shown.labels[i])
        text = f"{shown.classes[label]} {shown.scores[i]:.2f}"
        _write_label(pen, text, corner, class_colour(label), size, (width, height))
    return np.array(canvas)


def grid(
    images: Sequence[ImageArray], columns: int, *, cell: int = 320, gap: int = 6
) -> ImageArray:
    """The images on one white `uint8` sheet, `columns` a row, each within `cell` x `cell` pixels.

    Every row is as high as its highest image; images keep their shape and are centred.
    """
    if not images or columns < 1 or cell < 1:
        raise ValueError("a sheet needs an image, a column, and a cell of a pixel")
    small = [_fitted(image, cell) for image in images]
    rows = [small[i : i + columns] for i in range(0, len(small), columns)]
    heights = [max(image.height for image in row) for row in rows]
    width = min(columns, len(small)) * (cell + gap) + gap
    sheet = Image.new("RGB", (width, sum(heights) + gap * (len(rows) + 1)), "white")
    top = gap
    for row, height in zip(rows, heights, strict=True):
        for column, image in enumerate(row):
            left = gap + column * (cell + gap) + (cell - image.width) // 2
            sheet.paste(image, (left, top + (height - image.height) // 2))
        top += height + gap
    return np.array(sheet)


def _fitted(image: ImageArray, cell: int) -> Image.Image:
    scale = cell / max(image.shape[:2])
    size = [max(1, round(side * scale)) for side in (image.shape[1], image.shape[0])]
    return Image.fromarray(image).resize((size[0], size[1]), Image.Resampling.LANCZOS)


def _pixels(
    box: np.ndarray[tuple[int, ...], np.dtype[np.float32]], width: int, height: int
) -> tuple[int, int, int, int]:
    """The box's first and last pixels, inside the image: Pillow draws both."""
    x1, y1, x2, y2 = (float(v) for v in box)
    left, top = min(max(round(x1), 0), width - 1), min(max(round(y1), 0), height - 1)
    right, bottom = (
        min(max(round(x2) - 1, left), width - 1),
        min(max(round(y2) - 1, top), height - 1),
    )
    return left, top, right, bottom


def _write_label(
    pen: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[int, int, int, int],
    colour: Colour,
    size: int,
    limits: tuple[int, int],
) -> None:
    """The text on a patch of the class's colour: above the box if there is room, else inside."""
    font = _font(size)
    pad = max(2, size // 6)
    wide, high = round(font.getlength(text)) + 2 * pad, size + 2 * pad
    left = max(0, min(corner[0], limits[0] - wide))
    top = corner[1] - high if corner[1] >= high else corner[1]
    top = max(0, min(top, limits[1] - high))
    pen.rectangle((left, top, left + wide - 1, top + high - 1), fill=colour)
    dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 140  # ITU-R BT.601 luma
    ink = (255, 255, 255) if dark else (0, 0, 0)
    pen.text((left + pad, top + high // 2), text, fill=ink, font=font, anchor="lm")


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font, so that pictures are the same on every machine."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("this Pillow was built without FreeType")
    return font
