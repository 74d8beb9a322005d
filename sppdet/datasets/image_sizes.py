"""Sizes of a data set's images, and the boxes of images that EXIF turns by 90 degrees.

Phones store photos lying on their side, with a note to turn them. Some tools state the size as
stored and draw boxes on the upright image, others do both on the stored one: where the boxes of
one such image, or of others of the data set, fit one of the two only, that is how they are read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from sppdet.core.errors import ImageError
from sppdet.core.images import SWAPPING_ORIENTATIONS, stored_size
from sppdet.datasets.annotations import OUTSIDE_TOLERANCE, Box
from sppdet.datasets.raw import (
    MISSING_IMAGE,
    STATED_SIZE,
    TURNED_SIZE,
    UNCLEAR_TURN,
    UNREADABLE_IMAGE,
    Findings,
    RawImage,
)

# Sizes that more images state are taken on trust: their headers take too long to read.
MAX_HEADERS = 20_000


class SizedImage(NamedTuple):
    """An image that is there, with the size of its upright pixels."""

    image: RawImage
    size: tuple[int, int]


class _Turned(NamedTuple):
    """An image whose stated size is that before its EXIF turn, with its place in the list."""

    place: int
    image: RawImage
    stored: tuple[int, int]
    orientation: int

    def fits(self, *, upright: bool) -> bool:
        """Return whether all boxes lie in the upright image, or in the stored one."""
        width, height = self.stored[::-1] if upright else self.stored
        return all(
            max(-one.box[0], -one.box[1], one.box[2] - width, one.box[3] - height)
            <= OUTSIDE_TOLERANCE
            for one in self.image.objects
        )


def measure_images(
    images: Sequence[RawImage],
    findings: Findings,
    *,
    max_headers: int = MAX_HEADERS,
    with_pixels: bool = True,
) -> list[SizedImage]:
    """Find the images that are there, and their sizes, in order; find what is wrong with them.

    Headers are read of all images, or of those alone that state no size if there are many. Without
    `with_pixels`, an image that is not there or cannot be read has the size that is stated.
    """
    exists = _Existence()
    reads_all = len(images) <= max_headers
    sized: list[SizedImage] = []
    turned: list[_Turned] = []
    for image in images:
        is_there = exists(image.path)
        if not is_there and image.size is not None and not with_pixels:
            sized.append(SizedImage(image, image.size))
            continue
        if not is_there:
            message = f"{image.path.name} is not there"
            if image.source != image.path:
                message += f" ({image.source.name} annotates it)"
            findings.add(MISSING_IMAGE, image.path, message, image.split)
            continue
        if image.size is not None and not reads_all:
            sized.append(SizedImage(image, image.size))
            continue
        try:
            width, height, orientation = stored_size(image.path)
        except ImageError as error:
            if image.size is not None and not with_pixels:
                sized.append(SizedImage(image, image.size))
                continue
            findings.add(UNREADABLE_IMAGE, image.path, error.message, image.split)
            continue
        swapped = orientation in SWAPPING_ORIENTATIONS
        size = (height, width) if swapped else (width, height)
        if image.size not in (None, size):
            if swapped and image.size == (width, height):
                turned.append(_Turned(len(sized), image, (width, height), orientation))
            else:
                stated = "{}x{}".format(*image.size or ())
                message = f"is {size[0]}x{size[1]}, but {image.source.name} says {stated}"
                findings.add(STATED_SIZE, image.path, message, image.split)
        sized.append(SizedImage(image, size))
    for one, image in _turn(turned, findings):
        sized[one.place] = SizedImage(image, sized[one.place].size)
    return sized


def turn_box(box: Box, width: int, height: int, orientation: int) -> Box:
    """Move a box from stored pixels, `width` x `height`, to those that EXIF turns upright."""
    x1, y1, x2, y2 = box
    if orientation == 5:
        return (y1, x1, y2, x2)
    if orientation == 6:
        return (height - y2, x1, height - y1, x2)
    if orientation == 7:
        return (height - y2, width - x2, height - y1, width - x1)
    if orientation == 8:
        return (y1, width - x2, y2, width - x1)
    raise ValueError(f"orientation {orientation} does not swap the sides")


def _turn(turned: Sequence[_Turned], findings: Findings) -> list[tuple[_Turned, RawImage]]:
    """Decide for each image whether its boxes are those of the stored pixels, and turn those."""
    votes = {(one.fits(upright=True), one.fits(upright=False)) for one in turned}
    all_stored = (False, True) in votes and (True, False) not in votes
    all_upright = (True, False) in votes and (False, True) not in votes
    out = []
    for one in turned:
        upright, stored = one.fits(upright=True), one.fits(upright=False)
        is_clear = upright != stored or all_stored or all_upright or not one.image.objects
        as_stored = (stored and not upright) or (stored == upright and all_stored)
        objects = one.image.objects
        if as_stored:
            objects = [
                raw._replace(box=turn_box(raw.box, *one.stored, one.orientation)) for raw in objects
            ]
        out.append((one, replace(one.image, objects=objects)))
        width, height = one.stored
        message = f"its size is stated as stored, {width}x{height}; "
        message += "its boxes are turned too" if as_stored else "its boxes are upright"
        kind = TURNED_SIZE if is_clear else UNCLEAR_TURN
        findings.add(kind, one.image.path, message, one.image.split)
    return out


class _Existence:
    """Whether files are there, by listing each folder once."""

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}

    def __call__(self, path: Path) -> bool:
        folder, name = os.path.split(path)
        if folder not in self._names:
            try:
                with os.scandir(folder or ".") as entries:
                    self._names[folder] = frozenset(entry.name for entry in entries)
            except OSError:
                self._names[folder] = frozenset()
        return name in self._names[folder]
