"""Whether results can be written where they are to go: known before the first image."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from sppdet.core.errors import OutputError
from sppdet.outputs.records import Source

# Bytes that a name may have on Linux's and most other file systems.
MAX_NAME = 255


def check_file(path: Path) -> None:
    """Check that a file can be written; nothing is made, nothing changed.

    Raises:
        OutputError: a folder or a device in its place, a file where a folder has to be, no
            permission, no space, or a name too long.
    """
    try:
        if path.is_dir():
            raise OutputError("is a folder", path=path, hint="name a file, which may be in it")
        if path.exists() and not path.is_file():
            raise OutputError("is not a regular file", path=path, hint="name another one")
    except OSError as error:
        raise OutputError.of(error, path) from None
    _check_parts(path)


def check_folder(path: Path) -> None:
    """Check that files can be written into a folder, which need not be there yet.

    Raises:
        OutputError: as `check_file`.
    """
    _check_parts(path / "x")


def _check_parts(path: Path) -> None:
    """Try to write where the nearest folder of a path is; check the names below it."""
    folder, new = path.parent, [path.name]
    try:
        while not folder.exists() and folder != folder.parent:
            new.append(folder.name)
            folder = folder.parent
        if not folder.is_dir():
            raise OutputError("is a file, not a folder", path=folder, hint="name another place")
        for name in new:
            if len(os.fsencode(name)) > MAX_NAME:
                raise OutputError("has a name too long", path=path, hint="name a shorter one")
        with tempfile.TemporaryFile(dir=folder) as trial:
            trial.write(b"\0")
    except OSError as error:
        raise OutputError.of(error, folder) from None


def check_apart(outputs: Sequence[Path], sources: Iterable[Source]) -> None:
    """Check that no two results go into one place, and none over an image that is read.

    Raises:
        OutputError: names the place.
    """
    known: set[Path] = set()
    for path in outputs:
        place = path.resolve()
        if place in known:
            raise OutputError(
                "is named for two results", path=path, hint="give each a place of its own"
            )
        known.add(place)
    for source in sources:
        if source.path is not None and source.path.resolve() in known:
            raise OutputError("is one of the images", path=source.path, hint="name another file")


def check_no_inputs(folder: Path, sources: Iterable[Source]) -> None:
    """Check that a folder for new images holds none that are to be read.

    Raises:
        OutputError: names the folder.
    """
    place = folder.resolve()
    if any(one.path is not None and one.path.resolve().parent == place for one in sources):
        raise OutputError("holds images to be read", path=folder, hint="name another folder")
