"""Coloured, textured shapes on textured grounds: the pictures of the synthetic data set.

Every pixel comes from whole-number arithmetic or single IEEE operations on values of the frozen
`RandomState` stream, so a seed gives the same pixels on every machine and NumPy release.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from sppdet.datasets.voc_annotation import VocObject
from sppdet.types import ImageArray

Mask = NDArray[np.bool_]
_Grid = NDArray[np.float64]
_Canvas = NDArray[np.int64]

SYNTHETIC_CLASSES: tuple[str, ...] = ("circle", "cross", "ring", "square", "star", "triangle")

_COLOURS = {
    "circle": (205, 55, 50),
    "cross": (235, 235, 225),
    "ring": (60, 120, 215),
    "square": (50, 160, 75),
    "star": (240, 195, 45),
    "triangle": (150, 70, 185),
}
_COLOUR_JITTER = 24
_DIFFICULT_SHARE = 0.1
# How much of a difficult object's colour shows; the rest is the ground behind it.
_FAINT_PERCENT = 45
# Overlap of two objects' boxes, as a share of the smaller one.
_MAX_OVERLAP = 0.2
_PLACING_TRIES = 40
_SUPERSAMPLING = 3
# A five-pointed star of radius 1: its edges' lines pass this far from the centre.
_STAR_APOTHEM = math.cos(math.radians(72))


@dataclass(frozen=True, slots=True)
class _Placed:
    """A shape in its place: class, centre and radius in pixels, turn in radians."""

    name: str
    x: float
    y: float
    radius: float
    turn: float

    def overlap(self, other: _Placed) -> float:
        wide = self.radius + other.radius - abs(self.x - other.x)
        high = self.radius + other.radius - abs(self.y - other.y)
        smaller = 2 * min(self.radius, other.radius)
        return max(wide, 0) * max(high, 0) / smaller**2


def draw_scene(
    random: RandomState,
    width: int,
    height: int,
    classes: Sequence[str],
    *,
    first: str,
    max_objects: int,
) -> tuple[ImageArray, list[VocObject]]:
    """A `uint8 (height, width, 3)` RGB picture and its objects, one at least, of class `first`.

    Boxes bound exactly the pixels of an object that can be seen: later objects hide earlier ones
    a little, and the border cuts some off (then `truncated` is set). Faint ones are `difficult`.
    """
    canvas = _ground(random, width, height)
    owner = np.zeros((height, width), dtype=np.int64)
    placed: list[_Placed] = []
    flags: list[tuple[bool, bool]] = []
    for number in range(1, 1 + int(random.randint(1, max_objects + 1))):
        name = first if number == 1 else classes[int(random.randint(len(classes)))]
        shape = _place(random, name, width, height, placed)
        if shape is None:
            continue
        difficult = number > 1 and bool(random.random_sample() < _DIFFICULT_SHARE)
        coverage = _coverage(shape, width, height)
        _paint(random, canvas, coverage, name, _FAINT_PERCENT if difficult else 100)
        placed.append(shape)
        flags.append((difficult, _is_cut(shape, width, height)))
        owner[coverage * 2 >= _SUPERSAMPLING**2] = len(placed)
    objects = []
    for number, (shape, (difficult, cut)) in enumerate(zip(placed, flags, strict=True), 1):
        rows, columns = np.nonzero(owner == number)
        if not rows.size:
            continue
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        x1, y1, x2, y2 = (float(v) for v in box)
        objects.append(VocObject(shape.name, (x1, y1, x2, y2), difficult, cut))
    return np.clip(canvas, 0, 255).astype(np.uint8), objects


def _place(
    random: RandomState, name: str, width: int, height: int, others: Sequence[_Placed]
) -> _Placed | None:
    """Where the shape goes; None if no place with little overlap was found."""
    side = min(width, height)
    for _ in range(_PLACING_TRIES):
        radius = side * (0.11 + 0.19 * float(random.random_sample()))
        x = 0.75 * radius + (width - 1.5 * radius) * float(random.random_sample())
        y = 0.75 * radius + (height - 1.5 * radius) * float(random.random_sample())
        turn = math.radians(40.0 * float(random.random_sample()) - 20.0)
        shape = _Placed(name, x, y, radius, turn)
        if all(shape.overlap(other) <= _MAX_OVERLAP for other in others):
            return shape
    return None


def _is_cut(shape: _Placed, width: int, height: int) -> bool:
    low, high = min(shape.x, shape.y), max(shape.x - width, shape.y - height)
    return low < shape.radius or high > -shape.radius


def _coverage(shape: _Placed, width: int, height: int) -> NDArray[np.int64]:
    """How many of a pixel's `_SUPERSAMPLING ** 2` points the shape covers, `(height, width)`."""
    n = _SUPERSAMPLING
    left, top = max(int(shape.x - shape.radius), 0), max(int(shape.y - shape.radius), 0)
    right = min(int(shape.x + shape.radius) + 1, width)
    bottom = min(int(shape.y + shape.radius) + 1, height)
    u = ((np.arange(left * n, right * n) + 0.5) / n - shape.x)[None, :] / shape.radius
    v = ((np.arange(top * n, bottom * n) + 0.5) / n - shape.y)[:, None] / shape.radius
    cos, sin = math.cos(shape.turn), math.sin(shape.turn)
    inside = _inside(shape.name, u * cos + v * sin, v * cos - u * sin)
    coverage = np.zeros((height, width), dtype=np.int64)
    points = inside.reshape(bottom - top, n, right - left, n)
    coverage[top:bottom, left:right] = points.sum(axis=(1, 3))
    return coverage


def _inside(name: str, u: _Grid, v: _Grid) -> Mask:
    """Which points lie in the shape, in units of its radius: all of it is within 1."""
    if name == "circle":
        inside = u * u + v * v <= 0.9
    elif name == "ring":
        distance = u * u + v * v
        inside = (distance <= 0.95) & (distance >= 0.3)
    elif name == "square":
        inside = np.maximum(np.abs(u), np.abs(v)) <= 0.7
    elif name == "cross":
        across, along = np.minimum(np.abs(u), np.abs(v)), np.maximum(np.abs(u), np.abs(v))
        inside = (across <= 0.3) & (along <= 0.95)
    elif name == "triangle":
        inside = _inner_sides(u, v, corners=3, apothem=0.5) == 3
    elif name == "star":  # the tips lie outside one of the five lines, the core within all
        inside = _inner_sides(u, v, corners=5, apothem=_STAR_APOTHEM) >= 4
    else:
        raise ValueError(f"no shape is named {name!r}")
    return np.asarray(inside, dtype=np.bool_)


def _inner_sides(u: _Grid, v: _Grid, *, corners: int, apothem: float) -> NDArray[np.int64]:
    """Of how many lines, one below and the others turned evenly, each point is on the inside."""
    count = np.zeros(np.broadcast_shapes(u.shape, v.shape), dtype=np.int64)
    for k in range(corners):
        angle = 2 * math.pi * k / corners + math.pi / 2
        count += u * math.cos(angle) + v * math.sin(angle) <= apothem
    return count


def _ground(random: RandomState, width: int, height: int) -> _Canvas:
    """A dull ground: a colour, blotches, and a weave, `int64 (height, width, 3)`."""
    rows, columns = np.arange(height), np.arange(width)
    colour = random.randint(70, 160, size=3)
    cell = max(4, min(width, height) // int(random.randint(5, 10)))
    blotches = random.randint(-18, 19, size=(height // cell + 1, width // cell + 1, 3))
    weave = (rows[:, None] // 2 + columns[None, :] // 3) % 2 * int(random.randint(4, 13))
    slope = (rows[:, None] * int(random.randint(-30, 31))) // height
    canvas = colour + blotches[rows[:, None] // cell, columns[None, :] // cell]
    return np.asarray(canvas + (weave + slope)[:, :, None], dtype=np.int64)


def _paint(
    random: RandomState, canvas: _Canvas, coverage: NDArray[np.int64], name: str, percent: int
) -> None:
    """Lay the class's colour, jittered, plain or patterned, on the covered part of `canvas`."""
    rows, columns = np.arange(canvas.shape[0])[:, None], np.arange(canvas.shape[1])[None, :]
    colour = np.array(_COLOURS[name]) + random.randint(-_COLOUR_JITTER, _COLOUR_JITTER + 1, size=3)
    period, pattern = int(random.randint(4, 9)), int(random.randint(3))
    if pattern == 0:
        dark = (rows + columns) // period % 2
    elif pattern == 1:
        dark = (rows // period + columns // period) % 2
    else:
        dark = np.zeros(canvas.shape[:2], dtype=np.int64)
    paint = colour - 40 * dark[:, :, None]
    weight = (coverage * percent)[:, :, None]
    whole = 100 * _SUPERSAMPLING**2
    canvas[:] = (paint * weight + canvas * (whole - weight)) // whole
