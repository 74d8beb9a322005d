"""Small VOC-format data sets of colored shapes, for tests and for trying things out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sppdet.core.errors import DatasetError
from sppdet.core.files import new_folder
from sppdet.core.types import ImageArray
from sppdet.datasets.voc_xml import VocObject, format_annotation

MIN_SIDE = 64
_JPEG_QUALITY = 90
_COLORS = {
    "circle": (205, 55, 50),
    "cross": (235, 235, 225),
    "ring": (60, 120, 215),
    "square": (50, 160, 75),
    "star": (240, 195, 45),
    "triangle": (150, 70, 185),
}
SYNTHETIC_CLASSES: tuple[str, ...] = tuple(_COLORS)
_COLOR_JITTER = 24
_DIFFICULT_FRACTION = 0.1
# Opacity of a difficult object; the rest is the background behind it.
_FAINT = 0.45
# Overlap of two objects' boxes, as a fraction of the smaller one.
_MAX_OVERLAP = 0.2
_PLACING_TRIES = 40
_SUPERSAMPLING = 3

# Corners in units of a shape's radius, all of them within 1.
_ROUND = {"circle": 0.95, "ring": 0.97}
_RING_HOLE = 0.55
_ARM, _LENGTH = 0.3, 0.95
_POLYGONS: dict[str, list[tuple[float, float]]] = {
    "square": [(0.7, 0.7), (-0.7, 0.7), (-0.7, -0.7), (0.7, -0.7)],
    "cross": [
        *[(_ARM, _LENGTH), (-_ARM, _LENGTH), (-_ARM, _ARM), (-_LENGTH, _ARM)],
        *[(-_LENGTH, -_ARM), (-_ARM, -_ARM), (-_ARM, -_LENGTH), (_ARM, -_LENGTH)],
        *[(_ARM, -_ARM), (_LENGTH, -_ARM), (_LENGTH, _ARM), (_ARM, _ARM)],
    ],
    "triangle": [(math.sin(k * math.tau / 3), -math.cos(k * math.tau / 3)) for k in range(3)],
    # Five tips, and five inner corners at the radius where the lines between tips cross.
    "star": [
        (r * math.sin(k * math.pi / 5), -r * math.cos(k * math.pi / 5))
        for k in range(10)
        for r in [math.cos(2 * math.pi / 5) / math.cos(math.pi / 5) if k % 2 else 1.0]
    ],
}


class _Shape(NamedTuple):
    """A placed shape: class, center and radius in pixels, rotation in radians."""

    name: str
    x: float
    y: float
    radius: float
    angle: float

    def overlap(self, other: _Shape) -> float:
        wide = self.radius + other.radius - abs(self.x - other.x)
        high = self.radius + other.radius - abs(self.y - other.y)
        return max(wide, 0) * max(high, 0) / (2 * min(self.radius, other.radius)) ** 2

    def is_cut(self, width: int, height: int) -> bool:
        nearest = min(self.x, self.y, width - self.x, height - self.y)
        return nearest < self.radius


def make_synthetic_voc(
    root: Path,
    *,
    train: int = 24,
    val: int = 12,
    test: int = 12,
    width: int = 320,
    height: int = 240,
    max_objects: int = 4,
    classes: Sequence[str] = SYNTHETIC_CLASSES,
    seed: int = 0,
) -> Path:
    """Write a VOC-format data set of shapes to `root`, which must not exist or be empty.

    The layout is the devkit's: `Annotations`, `JPEGImages`, `ImageSets/Main/{train, val,
    trainval, test}.txt` (a split without images is left out), and `classes.txt`. `root` appears
    whole or not at all.

    Invariant: the same arguments give the same bytes (with the same release of Pillow), and image
    number n depends on the seed, the size and the classes only, not on how many images there are.

    Args:
        root: the new folder.
        train, val, test: number of images per split.
        width, height: size of the images in pixels, at least `MIN_SIDE`.
        max_objects: maximum number of shapes per image; there is always at least one.
        classes: some of `SYNTHETIC_CLASSES`.
        seed: from 0 to 2**32 - 1.

    Raises:
        DatasetError: `root` is taken, or an argument is out of range.
    """
    _check(train, val, test, (width, height), max_objects, classes, seed)
    with new_folder(Path(root)) as part:
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (part / folder).mkdir(parents=True)
        for number in range(1, train + val + test + 1):
            rng = np.random.default_rng([seed, number])
            first = classes[(number - 1) % len(classes)]
            image, objects = draw_scene(
                rng, width, height, classes, first=first, max_objects=max_objects
            )
            name = f"{number:06d}"
            xml = format_annotation("synthetic", f"{name}.jpg", width, height, objects)
            (part / "Annotations" / f"{name}.xml").write_text(xml, encoding="utf-8")
            path = part / "JPEGImages" / f"{name}.jpg"
            Image.fromarray(image).save(path, quality=_JPEG_QUALITY, subsampling=0)
        _write_splits(part / "ImageSets" / "Main", train, val, test)
        (part / "classes.txt").write_text("".join(f"{c}\n" for c in classes), encoding="utf-8")
    return Path(root)


def draw_scene(
    rng: np.random.Generator,
    width: int,
    height: int,
    classes: Sequence[str],
    *,
    first: str,
    max_objects: int,
) -> tuple[ImageArray, list[VocObject]]:
    """Draw a `uint8 (height, width, 3)` RGB scene with at least one object, of class `first`.

    Boxes bound exactly the visible pixels of an object: later objects hide earlier ones a little,
    and the border cuts some off (then `truncated` is set). Faint objects are `difficult`.
    """
    canvas = _draw_background(rng, width, height)
    owner = np.zeros((height, width), dtype=np.int64)  # number of the topmost object per pixel
    shapes: list[_Shape] = []
    faint: list[bool] = []
    for number in range(int(rng.integers(1, max_objects, endpoint=True))):
        name = str(rng.choice(list(classes))) if number else first
        shape = _place(rng, name, width, height, shapes)
        if shape is None:
            continue
        shapes.append(shape)
        faint.append(number > 0 and rng.random() < _DIFFICULT_FRACTION)
        coverage = _rasterize(shape, width, height)
        opacity = (coverage * (_FAINT if faint[-1] else 1.0))[:, :, None]
        canvas += opacity * (_draw_texture(rng, name, width, height) - canvas)
        owner[coverage >= 0.5] = len(shapes)
    objects = []
    for number, (shape, difficult) in enumerate(zip(shapes, faint, strict=True), 1):
        rows, columns = np.nonzero(owner == number)
        if rows.size:
            x1, y1, x2, y2 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            box = (float(x1), float(y1), float(x2), float(y2))
            objects.append(VocObject(shape.name, box, difficult, shape.is_cut(width, height)))
    return np.clip(canvas, 0, 255).astype(np.uint8), objects


def _place(
    rng: np.random.Generator, name: str, width: int, height: int, others: Sequence[_Shape]
) -> _Shape | None:
    """Choose a place with little overlap; None if none was found."""
    for _ in range(_PLACING_TRIES):
        radius = min(width, height) * rng.uniform(0.11, 0.3)
        x = rng.uniform(0.75 * radius, width - 0.75 * radius)
        y = rng.uniform(0.75 * radius, height - 0.75 * radius)
        shape = _Shape(name, x, y, radius, math.radians(rng.uniform(-20, 20)))
        if all(shape.overlap(other) <= _MAX_OVERLAP for other in others):
            return shape
    return None


def _rasterize(shape: _Shape, width: int, height: int) -> NDArray[np.float64]:
    """Draw the fraction of each pixel that a shape covers, `(height, width)`."""
    n = _SUPERSAMPLING
    mask = Image.new("L", (width * n, height * n))
    pen = ImageDraw.Draw(mask)
    x, y, radius = shape.x * n, shape.y * n, shape.radius * n
    if shape.name in _ROUND:
        pen.circle((x, y), _ROUND[shape.name] * radius, fill=255)
        if shape.name == "ring":
            pen.circle((x, y), _RING_HOLE * radius, fill=0)
    else:
        cos, sin = math.cos(shape.angle) * radius, math.sin(shape.angle) * radius
        corners = _POLYGONS[shape.name]
        pen.polygon([(x + u * cos - v * sin, y + u * sin + v * cos) for u, v in corners], fill=255)
    return np.asarray(mask.reduce(n), dtype=np.float64) / 255


def _draw_background(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float64]:
    """Draw a dull background: a color, blotches, a weave and a slope, `(height, width, 3)`."""
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    cell = max(4, min(width, height) // int(rng.integers(5, 10)))
    blotches = rng.integers(-18, 19, size=(height // cell + 1, width // cell + 1, 3))
    weave = (rows // 2 + columns // 3) % 2 * rng.integers(4, 13)
    slope = rows * rng.integers(-30, 31) / height
    color = rng.integers(70, 160, size=3)
    return np.asarray(color + blotches[rows // cell, columns // cell] + (weave + slope)[..., None])


def _draw_texture(
    rng: np.random.Generator, name: str, width: int, height: int
) -> NDArray[np.float64]:
    """Draw a class's color, jittered: striped, checkered or plain, `(height, width, 3)`."""
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    color = np.array(_COLORS[name]) + rng.integers(-_COLOR_JITTER, _COLOR_JITTER + 1, size=3)
    period = int(rng.integers(4, 9))
    stripes = (rows + columns) // period % 2
    checkers = (rows // period + columns // period) % 2
    dark = (stripes, checkers, np.zeros_like(stripes))[rng.integers(3)]
    return np.asarray(color - 40.0 * dark[:, :, None])


def _write_splits(folder: Path, train: int, val: int, test: int) -> None:
    ids = [f"{number:06d}\n" for number in range(1, train + val + test + 1)]
    trainval = train + val
    splits = {
        "train": ids[:train],
        "val": ids[train:trainval],
        "trainval": ids[:trainval],
        "test": ids[trainval:],
    }
    for split, lines in splits.items():
        if lines:
            (folder / f"{split}.txt").write_text("".join(lines), encoding="utf-8")


def _check(
    train: int,
    val: int,
    test: int,
    size: tuple[int, int],
    max_objects: int,
    classes: Sequence[str],
    seed: int,
) -> None:
    if min(train, val, test) < 0 or train + val + test == 0:
        raise DatasetError("a data set needs images", hint="ask for at least one, in any split")
    if min(size) < MIN_SIDE:
        raise DatasetError(
            f"{size[0]}x{size[1]} is too small", hint=f"make both sides {MIN_SIDE} pixels or more"
        )
    if max_objects < 1:
        raise DatasetError(f"max_objects is {max_objects}", hint="allow at least one")
    unknown = [c for c in classes if c not in SYNTHETIC_CLASSES]
    if unknown or not classes or len(set(classes)) != len(classes):
        raise DatasetError(
            f"classes are {', '.join(classes) or 'none'}",
            hint=f"name each once, of {', '.join(SYNTHETIC_CLASSES)}",
        )
    if not 0 <= seed < 2**32:
        raise DatasetError(f"the seed is {seed}", hint="choose one from 0 to 4294967295")
