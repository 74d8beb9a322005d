"""Listing a data set's folders: each once, in order, without hidden files and endless links."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sppdet.core.errors import DatasetError
from sppdet.core.images import IMAGE_SUFFIXES

# Deeper than any known layout.
MAX_DEPTH = 6

# Left behind by archives and editors.
_NOT_DATA = frozenset(("__MACOSX", "node_modules"))


class Folder(NamedTuple):
    """One folder: its names from the root down, and the names of its files, sorted."""

    parts: tuple[str, ...]
    files: tuple[str, ...]


def list_folder(folder: Path) -> tuple[list[str], list[str]]:
    """List the names of files and of folders, sorted, hidden ones left out.

    Raises:
        DatasetError: it cannot be listed.
    """
    files: list[str] = []
    folders: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.name not in _NOT_DATA:
                    (folders if entry.is_dir() else files).append(entry.name)
    except OSError as error:
        raise DatasetError(
            f"cannot be listed ({error.strerror})", path=folder, hint="check its permissions"
        ) from None
    return sorted(files), sorted(folders)


def walk(root: Path, depth: int = MAX_DEPTH) -> Iterator[Folder]:
    """Yield `root` and the folders below it, parents first, each one once."""
    seen: set[tuple[int, int]] = set()
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        parts = waiting.pop()
        folder = root.joinpath(*parts)
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above
            continue
        seen.add((status.st_dev, status.st_ino))
        files, folders = list_folder(folder)
        yield Folder(parts, tuple(files))
        if len(parts) < depth:
            waiting += [(*parts, name) for name in reversed(folders)]


def is_image(name: str) -> bool:
    """Return whether a file is an image by its suffix."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122


def stem(name: str) -> str:
    """Return a file's name without its last suffix."""
    return os.path.splitext(name)[0]  # noqa: PTH122


def first_bytes(path: Path, count: int = 2000) -> bytes:
    """Read the beginning of a file; nothing of one that cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(count)
    except OSError:
        return b""
