"""Drawing detections on their image."""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sppdet.core.types import Detections, ImageArray

Color = tuple[int, int, int]

# Steps of the golden ratio round the color circle: neighbors in the list of classes get hues that
# are far apart, however many classes there are.
_HUE_STEP = 0.61803398875


def class_color(label: int) -> Color:
    """Return the RGB color of a class, the same in every image."""
    lightness = (0.45, 0.6)[label % 2]
    red, green, blue = colorsys.hls_to_rgb(label * _HUE_STEP % 1.0, lightness, 0.85)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_detections(
    image: ImageArray, detections: Detections, threshold: float = -np.inf
) -> ImageArray:
    """Draw the detections of at least `threshold` on a copy of `image`, `uint8 (H, W, 3)`.

    Each has a frame in its class's color and a label, name and score, that stays inside the
    image. The best-scored one is drawn last, on top. Lines and text scale with the image.
    """
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    height, width = image.shape[:2]
    size = round(min(max(min(height, width) / 28, 11), 40))
    # Pillow's own font: the same on every machine.
    font, pad = ImageFont.load_default(size), max(2, size // 6)
    shown = detections.above(threshold)
    order = np.argsort(shown.scores, kind="stable")
    # Pillow draws the last pixel too. A box that is empty or outside shows as the nearest pixels.
    limits = np.array([width, height, width, height]) - 1
    corners = np.clip(np.rint(shown.boxes[order]) - [0, 0, 1, 1], 0, limits).astype(int)
    corners[:, 2:] = np.maximum(corners[:, :2], corners[:, 2:])
    colors = [class_color(int(label)) for label in shown.labels[order]]
    for corner, color in zip(corners.tolist(), colors, strict=True):
        pen.rectangle(corner, outline=color, width=max(2, round(min(height, width) / 200)))
    for (x1, y1, _, _), color, i in zip(corners.tolist(), colors, order, strict=True):
        text = f"{shown.classes[shown.labels[i]]} {shown.scores[i]:.2f}"
        wide, high = round(font.getlength(text)) + 2 * pad, size + 2 * pad
        left = max(0, min(x1, width - wide))
        top = max(
            0, min(y1 - high if y1 >= high else y1, height - high)
        )  # above it if there is room
        pen.rectangle((left, top, left + wide - 1, top + high - 1), fill=color)
        dark = np.dot(color, (0.299, 0.587, 0.114)) < 140  # ITU-R BT.601 luma
        ink = "white" if dark else "black"
        pen.text((left + pad, top + high // 2), text, fill=ink, font=font, anchor="lm")
    return np.array(canvas)
