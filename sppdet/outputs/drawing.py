"""Drawing detections on their image."""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image, ImageDraw

from sppdet.core.types import Detections, ImageArray
from sppdet.outputs.fonts import drawable, load_font

Color = tuple[int, int, int]

# Steps of the golden ratio round the color circle: neighbors in the list of classes get hues that
# are far apart, however many classes there are.
_HUE_STEP = 0.61803398875
# Pixels: letters are readable from here on.
_MIN_TEXT, _USUAL_TEXT = 9, 11


def class_color(label: int) -> Color:
    """Return the RGB color of a class, the same in every image."""
    lightness = (0.45, 0.6)[label % 2]
    red, green, blue = colorsys.hls_to_rgb(label * _HUE_STEP % 1.0, lightness, 0.85)
    return round(red * 255), round(green * 255), round(blue * 255)


def ink_color(background: Color) -> Color:
    """Return black or white, whichever stands out more: a contrast of 4.5 or more (WCAG 2.2)."""
    light = luminance(background)
    return (255, 255, 255) if 1.05 / (light + 0.05) > (light + 0.05) / 0.05 else (0, 0, 0)


def luminance(color: Color) -> float:
    """Return the relative luminance of an sRGB color, 0 to 1 (WCAG 2.2)."""
    parts = np.array(color) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def draw_detections(
    image: ImageArray, detections: Detections, threshold: float = -np.inf
) -> ImageArray:
    """Draw the detections of at least `threshold` on a copy of `image`, `uint8 (H, W, 3)`.

    Each has a frame in its class's color, lined in black or white so that it stands out anywhere,
    and a label, name and score, that stays inside the image. The best-scored one is drawn last, on
    top. Lines and text scale with the image.
    """
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    height, width = image.shape[:2]
    shown = detections.above(threshold)
    order = np.argsort(shown.scores, kind="stable")
    # Pillow draws the last pixel too. A box that is empty or outside shows as the nearest pixels.
    limits = np.array([width, height, width, height]) - 1
    corners = np.clip(np.rint(shown.boxes[order]) - [0, 0, 1, 1], 0, limits).astype(int)
    corners[:, 2:] = np.maximum(corners[:, :2], corners[:, 2:])
    colors = [class_color(int(label)) for label in shown.labels[order]]
    for corner, color in zip(corners.tolist(), colors, strict=True):
        _draw_frame(pen, corner, color, line=max(2, round(min(height, width) / 200)))
    for (x1, y1, _, _), color, i in zip(corners.tolist(), colors, order, strict=True):
        name, score = shown.classes[shown.labels[i]], float(shown.scores[i])
        _draw_label(pen, (x1, y1), name, score, color, (width, height))
    return np.array(canvas)


def _draw_frame(pen: ImageDraw.ImageDraw, corner: list[int], color: Color, *, line: int) -> None:
    """Draw a frame on the box's own outermost pixels, and a thin line within it."""
    pen.rectangle(corner, outline=color, width=line)
    x1, y1, x2, y2 = corner
    thin = max(1, line // 3)
    if min(x2 - x1, y2 - y1) > 2 * (line + thin):
        inner = (x1 + line, y1 + line, x2 - line, y2 - line)
        pen.rectangle(inner, outline=ink_color(color), width=thin)


def _draw_label(
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    name: str,
    score: float,
    color: Color,
    image: tuple[int, int],
) -> None:
    """Write name and score on the class's color: above the corner `x, y` if there is room."""
    (x, y), (width, height) = corner, image
    plain, path = drawable(name)
    text = f"{plain} {score:.2f}"
    size = max(_USUAL_TEXT, round(min(height, width) / 28))
    # Not wider than the image, as far as it then can be read.
    whole = load_font(path, size).getlength(text) + 2 * max(2, size // 6)
    size = max(_MIN_TEXT, min(size, int(size * width / whole)))
    font, pad = load_font(path, size), max(2, size // 6)
    wide, high = round(font.getlength(text)) + 2 * pad, size + 2 * pad
    left = max(0, min(x, width - wide))
    top = max(0, min(y - high if y >= high else y, height - high))
    pen.rectangle((left, top, left + wide - 1, top + high - 1), fill=color)
    # DejaVu's letters are not all as high as its size; the anchor is their middle.
    pen.text((left + pad, top + high // 2), text, fill=ink_color(color), font=font, anchor="lm")
