"""Image files made of images: drawings, and crops of what was found.

Each file carries a mark of the image that it is made of. A name that is taken by anything else than
an earlier file of the same image is left alone, and the next one is used: `a.jpg`, `a~2.jpg`.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image, PngImagePlugin

from sppdet.core.errors import OutputError
from sppdet.core.files import atomic_write_bytes, sha256
from sppdet.core.types import Detections, ImageArray
from sppdet.outputs.drawing import draw_detections
from sppdet.outputs.places import MAX_NAME, check_folder, check_no_inputs
from sppdet.outputs.records import Record, Source

PictureFormat = Literal["jpeg", "png"]

JPEG_QUALITY = 92
# Of a JPEG: its header has 16 bits for it (Pillow's own limit).
_MAX_JPEG_SIDE = 65_500
_SUFFIXES: dict[PictureFormat, str] = {"jpeg": ".jpg", "png": ".png"}
# The mark stands in the comment at the head of a file.
_HEAD = 4096
_MARK = "sppdet made this of "
# What a folder's name may not hold here or on other systems.
_UNSAFE = re.compile(r'[\x00-\x1f/\\:*?"<>|]|^[. ]+|[. ]+$')


class Pictures(Protocol):
    """Protocol of what is made of each image beside its line.

    Attributes:
        folder: where the files go.
    """

    folder: Path

    def check(self, sources: Sequence[Source]) -> None:
        """Raise OutputError if the files cannot be written."""
        ...

    def has(self, source: Source, record: Record) -> bool:
        """Tell if all files of an image are there."""
        ...

    def write(self, source: Source, image: ImageArray, found: Detections) -> None:
        """Write an image's files.

        Raises:
            OutputError: one cannot be written.
        """
        ...


class _MarkedFiles:
    """Image files of one format, each with a mark of its own."""

    def __init__(self, format: PictureFormat) -> None:
        self._format, self._suffix = format, _SUFFIXES[format]
        # Marks of files that were looked into or written, by path.
        self._marks: dict[Path, str | None] = {}

    def find(self, folder: Path, stem: str, tail: str, mark: str) -> tuple[Path, bool]:
        """Return the path of the file of that mark, and whether it is there."""
        for path in self._candidates(folder, stem, tail):
            if path not in self._marks:
                if not os.path.lexists(path):
                    return path, False
                self._marks[path] = _read_mark(path)
            if self._marks[path] == mark:
                return path, path.is_file()
        raise AssertionError("there is always another name")

    def write(self, path: Path, image: ImageArray, mark: str) -> None:
        """Write an image with a mark; raises OutputError."""
        if self._format == "jpeg" and max(image.shape[:2]) > _MAX_JPEG_SIDE:
            raise OutputError(
                f"JPEG holds {_MAX_JPEG_SIDE:,} pixels a side", path=path, hint="use --format png"
            )
        stream, comment = io.BytesIO(), _MARK + mark
        if self._format == "jpeg":
            Image.fromarray(image).save(stream, "JPEG", quality=JPEG_QUALITY, comment=comment)
        else:
            text = PngImagePlugin.PngInfo()
            text.add_text("Comment", comment)
            Image.fromarray(image).save(stream, "PNG", pnginfo=text)
        try:
            atomic_write_bytes(path, stream.getvalue())
        except OSError as error:
            raise OutputError.of(error, path) from None
        self._marks[path] = mark

    def _candidates(self, folder: Path, stem: str, tail: str) -> Iterator[Path]:
        """Yield `stem`, `stem~2`, ..., each with `tail` and suffix, short enough for a name."""
        number = 1
        while True:
            end = f"{f'~{number}' if number > 1 else ''}{tail}{self._suffix}"
            start = stem
            while len(os.fsencode(start + end)) > MAX_NAME:
                start = start[:-1]
            yield folder / (start + end)
            number += 1


class Drawings:
    """A drawing of each image, with its detections."""

    def __init__(self, folder: Path, format: PictureFormat = "jpeg") -> None:
        self.folder, self._files = folder, _MarkedFiles(format)

    def check(self, sources: Sequence[Source]) -> None:
        """Raise OutputError if the folder cannot be written, or holds images to be read."""
        check_folder(self.folder)
        check_no_inputs(self.folder, sources)

    def has(self, source: Source, record: Record) -> bool:
        """Tell if the drawing is there."""
        return self._files.find(self.folder, source.stem, "", _mark(source))[1]

    def write(self, source: Source, image: ImageArray, found: Detections) -> None:
        """Draw and write."""
        path, _ = self._files.find(self.folder, source.stem, "", _mark(source))
        self._files.write(path, draw_detections(image, found), _mark(source))


class Crops:
    """A JPEG of each object, in a folder per class: `dog/photo-1.jpg`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._files = folder, _MarkedFiles("jpeg")

    def check(self, sources: Sequence[Source]) -> None:
        """Raise OutputError if the folder cannot be written, or holds images to be read."""
        check_folder(self.folder)
        check_no_inputs(self.folder, sources)

    def has(self, source: Source, record: Record) -> bool:
        """Tell if the crops of all objects are there."""
        objects: Sequence[Mapping[str, Any]] = record["detections"]
        names = [one["class"] for one in objects]
        return all(self._find(source, number, name)[1] for number, name in enumerate(names, 1))

    def write(self, source: Source, image: ImageArray, found: Detections) -> None:
        """Cut out and write each object, with all pixels that its box touches."""
        height, width = image.shape[:2]
        for number, one in enumerate(found, 1):
            x1, y1 = (int(max(0, np.floor(v))) for v in one.box[:2])
            x1, y1 = min(x1, width - 1), min(y1, height - 1)
            x2, y2 = min(width, int(np.ceil(one.box[2]))), min(height, int(np.ceil(one.box[3])))
            crop = image[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]
            path, _ = self._find(source, number, one.name)
            self._files.write(path, np.ascontiguousarray(crop), _mark(source, number, one.name))

    def _find(self, source: Source, number: int, name: str) -> tuple[Path, bool]:
        mark = _mark(source, number, name)
        return self._files.find(self.folder / safe_name(name), source.stem, f"-{number}", mark)


def safe_name(name: str) -> str:
    """Turn a class name into one that a folder can have on any system."""
    safe = _UNSAFE.sub("_", name) or "_"
    while len(os.fsencode(safe)) > MAX_NAME:
        safe = safe[:-1]
    return safe


def _mark(source: Source, *parts: str | int) -> str:
    """Tell an image from all others, without telling where it lies."""
    place = source.name if source.path is None else source.path.absolute()
    return sha256(os.fsencode(place), *map(str, parts))[:32]


def _read_mark(path: Path) -> str | None:
    """Read the mark of an image file; None if it is not one of ours."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError:
        return None
    _, found, rest = head.partition(_MARK.encode("ascii"))
    return rest[:32].decode("ascii", "replace") if found else None
