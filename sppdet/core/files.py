"""Atomic files and content digests: what is on disk is the old file or the new one, never a mix.

And the folder for what can be made again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout
from numpy.typing import NDArray

from sppdet.core.errors import DatasetError, SppdetError

LOCK = ".lock"
NEW_FILE_MODE = 0o644
_NEW_FOLDER_MODE = 0o755
# Characters of up to 4 bytes each, of the 255 that a name may have.
_PREFIX = 50


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, flush it to disk, and rename it over `path`.

    The parent folder is made if missing. Killed at any moment, `path` holds all of the old bytes
    or all of the new ones.

    Raises:
        OSError: it cannot be written; the error names `path`, or the folder that cannot be made.
    """
    if path.is_dir():  # the error of renaming would name the temporary file
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # So much of the name that the temporary one is not too long where the name itself is not.
    part = path.parent / f".{path.name[:_PREFIX]}.{secrets.token_hex(4)}.part"
    try:
        if not _write_unnamed(part, data):
            with part.open("xb") as stream:
                _write_through(stream, data)
        part.replace(path)
    except OSError as error:  # its own words name the temporary file, or none, as on a full disk
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _write_unnamed(path: Path, data: bytes) -> bool:
    """Write a file that has no name before it is whole: a kill leaves nothing; False if it cannot.

    Linux alone can, and not on every file system.
    """
    try:
        handle = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, NEW_FILE_MODE)
    except (AttributeError, OSError):
        return False
    with os.fdopen(handle, "wb") as stream:
        _write_through(stream, data)
        try:
            number = stream.fileno()
            # With a folder, though it is not needed: links are followed only then.
            os.link(f"/proc/self/fd/{number}", path, src_dir_fd=number, follow_symlinks=True)
        except OSError:
            return False
    return True


def _write_through(stream: BinaryIO, data: bytes) -> None:
    stream.write(data)
    stream.flush()
    if hasattr(os, "fchmod"):
        os.fchmod(stream.fileno(), NEW_FILE_MODE)
    os.fsync(stream.fileno())


def atomic_write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, atomically."""
    atomic_write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


class LockedError(SppdetError):
    """Another process has the folder."""


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder while the block runs; it is made if missing.

    Raises:
        LockedError: another process has it; it is named, and since when.
        OSError: the folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / LOCK), folder / f"{LOCK}.json"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise LockedError(
            f"is in use by {_who(holder)}",
            path=folder,
            hint="wait until it is done, stop it, or name another folder",
        ) from None
    try:
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        facts = {"process": os.getpid(), "machine": platform.node(), "since": since}
        holder.write_text(json.dumps(facts), encoding="utf-8")
        yield
    finally:
        for path in (holder, folder / LOCK):
            path.unlink(missing_ok=True)
        lock.release()


def _who(holder: Path) -> str:
    try:
        one = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {one['process']} on {one['machine']} since {one['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


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
    part = folder.parent / f".{folder.name[:_PREFIX]}.part"
    try:
        with exclusive(part):
            # What a killed process left is taken away by the next.
            for one in part.iterdir():
                if not one.name.startswith(LOCK):
                    _remove(one)
            yield part
            for one in part.glob(f"{LOCK}*"):
                one.unlink()
            part.chmod(_NEW_FOLDER_MODE)
            part.replace(folder)
    except LockedError:
        raise
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        if error.errno is None:
            raise
        # Its own words name the folder while it was filled, or nothing, as on a full disk.
        name = str(error.filename or part).replace(str(part), str(folder), 1)
        raise OSError(error.errno, error.strerror, name) from error
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def sha256(*parts: bytes | str) -> str:
    """Hex digest of the parts, each length-prefixed, so that no two lists of parts collide."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, as `sha256sum` prints it."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def array_digest(array: NDArray[Any]) -> str:
    """Hex digest of an array's dtype, shape and values."""
    return sha256(array.dtype.str, repr(array.shape), array.tobytes())


def config_digest(value: Any) -> str:
    """Hex digest of a JSON-able value, independent of key order."""
    return sha256(json.dumps(value, sort_keys=True, allow_nan=False))


def user_cache_folder(name: str) -> Path | None:
    """Return the path of a folder of ours for what can be made again; None: the user has no home.

    It is in `XDG_CACHE_HOME`, or `~/.cache`; on Windows in `LOCALAPPDATA`, on macOS in
    `~/Library/Caches`. It is not made.
    """
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    named = os.environ.get(variable, "")
    if Path(named).is_absolute():  # others are to be ignored, says the XDG specification
        return Path(named) / "sppdet" / name
    parts = {"win32": "AppData/Local", "darwin": "Library/Caches"}
    try:
        return Path.home() / parts.get(sys.platform, ".cache") / "sppdet" / name
    except RuntimeError:
        return None
