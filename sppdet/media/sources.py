"""The images that words of a command line name: files, folders, patterns, lists, addresses."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sppdet.core.errors import ImageError, SppdetError
from sppdet.core.images import MAX_PIXELS, check_file, read_image
from sppdet.core.types import ImageArray
from sppdet.media.folder_images import Listing, list_folder, list_matches
from sppdet.media.path_lists import read_list, split_names
from sppdet.media.web_image import fetch_image, is_address, is_web_address, web_stem

STANDARD_INPUT = "-"
LIST_SIGN = "@"
# Names of files have up to 255 bytes, and a letter up to 4 of them.
MAX_STEM = 60


@dataclass(frozen=True, slots=True)
class ImageSource:
    """One image to be read, or the reason why an input gives none.

    Attributes:
        name: as it is shown and recorded: the path as it was found, or the address.
        path: the file; None for an address, and for what cannot be a file.
        error: what is known to be wrong before anything is read.
    """

    name: str
    path: Path | None = None
    error: SppdetError | None = None

    @property
    def stem(self) -> str:
        """A name for files about this image, without suffix; several images may have the same."""
        if self.path is not None:
            return self.path.stem
        return re.sub(r"[^\w.~-]+", "_", web_stem(self.name)).strip("._")[:MAX_STEM] or "image"

    def read(self, *, max_pixels: int = MAX_PIXELS) -> ImageArray:
        """Read the image, `uint8 (H, W, 3)`; raises `error`, or ImageError as `read_image`."""
        if self.error is not None:
            raise self.error
        if self.path is None:
            return fetch_image(self.name, max_pixels=max_pixels)
        return read_image(self.path, max_pixels=max_pixels)


@dataclass(frozen=True, slots=True)
class Sources:
    """What the inputs of a command name.

    Attributes:
        images: in the order of the inputs, each file once; an input that gives no image is one of
            them, with its `error`.
        notes: a line per folder or pattern of which something is left out.
    """

    images: tuple[ImageSource, ...]
    notes: tuple[str, ...] = ()


def find_sources(
    inputs: Iterable[str], *, recursive: bool = False, stdin: BinaryIO | None = None
) -> Sources:
    """Find the images that inputs name; nothing is decoded, and no address is reached.

    - A file is taken as it is, whatever its suffix.
    - A folder gives the files in it that have the suffix of an image, sorted; with `recursive`,
      those of the folders inside as well. Hidden ones and links from folder to folder are left out.
    - A pattern (`trip/**/*.jpg`) gives what it matches, chosen and sorted in the same way.
    - `@list.txt` and `-` (`stdin`, None: the process's) give the files, folders and addresses that
      a list names, see `path_lists`. A file whose name begins with `@` wins over a list.
    - `https://...` is an address, for `ImageSource.read` to fetch. Other addresses are refused.

    What is wrong with an input, and a named file that is missing, is the `error` of one source.
    """
    images: list[ImageSource] = []
    notes: list[str] = []
    known: set[str] = set()
    for source, note in _find_all(inputs, recursive, stdin):
        if note:
            notes.append(note)
        if source is None:
            continue
        path = None if source.error else source.path
        key = source.name if path is None else os.path.realpath(path)
        if key not in known:
            known.add(key)
            images.append(source)
    return Sources(tuple(images), tuple(dict.fromkeys(notes)))


def find_images(source: str | Path) -> list[Path]:
    """List the image files that one file, folder or pattern names, sorted.

    Raises ImageError for a folder without images, or that cannot be listed, and for a pattern
    without matches.
    """
    name = str(source)
    listing = _list_files(name, recursive=False)
    if listing is None:
        return [Path(name)]
    return listing.checked(name)


Found = tuple[ImageSource | None, str]


def _find_all(inputs: Iterable[str], recursive: bool, stdin: BinaryIO | None) -> Iterator[Found]:
    for name in inputs:
        try:
            if name == STANDARD_INPUT:
                names = split_names(_read_standard_input(stdin), "standard input")
                yield from _find_listed(names, recursive)
            elif name.startswith(LIST_SIGN) and not os.path.lexists(name):
                yield from _find_listed(read_list(Path(name[len(LIST_SIGN) :])), recursive)
            else:
                yield from _find(name, recursive, patterns=True)
        except SppdetError as error:
            yield ImageSource(name, error=error), ""


def _find_listed(names: Sequence[str], recursive: bool) -> Iterator[Found]:
    """Find what the lines of a list name: no patterns, as files' names may hold brackets."""
    for name in names:
        yield from _find(name, recursive, patterns=False)


def _find(name: str, recursive: bool, *, patterns: bool) -> Iterator[Found]:
    path = None
    try:
        if not name.strip():
            problem, hint = "an input is empty", "is a shell variable unset? name a file or folder"
            raise ImageError(problem, hint=hint)
        if is_address(name) and not is_web_address(name):
            raise ImageError("is not an https:// address", path=name, hint="download it yourself")
        if is_web_address(name):
            yield ImageSource(name), ""
            return
        listing = _list_files(name, recursive, patterns=patterns)
        if listing is not None:
            paths = listing.checked(name)
            yield None, listing.note(name)
            yield from ((ImageSource(str(path), path), "") for path in paths)
            yield from ((ImageSource(str(e.path), None, e), "") for e in listing.errors)
            return
        path = Path(name)
        check_file(path)
        yield ImageSource(str(path), path), ""
    except SppdetError as error:
        yield ImageSource(name, path, error), ""


def _list_files(name: str, recursive: bool, *, patterns: bool = True) -> Listing | None:
    """List a folder or what a pattern matches; None for any other name."""
    try:
        path = Path(name)
        if path.is_dir():
            return list_folder(path, recursive=recursive)
        if patterns and glob.has_magic(name) and not os.path.lexists(name):
            return list_matches(name)
    # A folder that may not be listed, a name too long.
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        problem = f"cannot be read ({reason})"
        raise ImageError(problem, path=name, hint="check the path") from None
    return None


def _read_standard_input(stdin: BinaryIO | None) -> bytes:
    if stdin is None:
        stdin = getattr(sys.stdin, "buffer", None)
        if stdin is None or sys.stdin.isatty():
            problem = "reads names of files from standard input, which is empty or the terminal"
            hint = "find photos -name '*.jpg' | sppdet detect -"
            raise ImageError(problem, path=STANDARD_INPUT, hint=hint)
    try:
        return stdin.read()
    except OSError as error:
        reason = error.strerror or error
        problem, hint = f"cannot be read ({reason})", "give it a list of paths, one a line"
        raise ImageError(problem, path="standard input", hint=hint) from None
