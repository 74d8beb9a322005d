"""Atomic files and content digests: what is on disk is the old file or the new one, never a mix."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sppdet.core.errors import DatasetError

NEW_FILE_MODE = 0o644
_NEW_FOLDER_MODE = 0o755


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, flush it to disk, and rename it over `path`.

    The parent folder is made if missing. Killed at any moment, `path` holds all of the old bytes
    or all of the new ones.
    """
    if path.is_dir():  # the error of renaming would name the temporary file
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        part.chmod(NEW_FILE_MODE)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def atomic_write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, atomically."""
    atomic_write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder to fill; it becomes `folder` at the end, or vanishes if the block raises.

    Raises:
        DatasetError: `folder` exists and is not an empty folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(
            "is already there", path=folder, hint="delete it, or name another folder"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
    try:
        yield part
        part.chmod(_NEW_FOLDER_MODE)
        part.replace(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def sha256(*parts: bytes | str) -> str:
    """Hex digest of the parts, each length-prefixed, so that no two lists of parts collide."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def array_digest(array: NDArray[Any]) -> str:
    """Hex digest of an array's dtype, shape and values."""
    return sha256(array.dtype.str, repr(array.shape), array.tobytes())


def config_digest(value: Any) -> str:
    """Hex digest of a JSON-able value, independent of key order."""
    return sha256(json.dumps(value, sort_keys=True, allow_nan=False))
