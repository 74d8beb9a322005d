"""Results line by line: a JSONL file that a killed run leaves whole, and the next one goes on with.

A line is one image's, in one write, so that a process killed at any moment leaves at most a part
of one line at the end, which is cut off when the file is opened again. Each line says of what run
it is (model, threshold, and a digest of all that results depend on): lines of different runs do not
come into one file.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sppdet.core.errors import OutputError
from sppdet.core.files import NEW_FILE_MODE, atomic_write_bytes, config_digest
from sppdet.outputs.records import Found, Record, Source, Stamp, stamp

_START = b'{"file": "'
# Keys of a line that are not results: which version of the file, and which run.
_STAMP = ("size", "mtime_ns")
_RUN = "run"
# Hex digits of the digest: enough to tell runs apart, short enough to be in every line.
_DIGITS = 16
_OTHER = "name another file, or delete this one"


@dataclass(frozen=True, slots=True)
class Run:
    """What all lines of a file have in common.

    Attributes:
        shown: what each line says of it in words, such as model and threshold.
        digest: of all that results depend on.
    """

    shown: Mapping[str, Any]
    digest: str

    @classmethod
    def of(cls, shown: Mapping[str, Any], *parts: Any) -> Run:
        """Identify a run by what it shows and by other JSON-able values."""
        return cls(shown, config_digest([dict(shown), *parts])[:_DIGITS])

    def __str__(self) -> str:
        return ", ".join(f"{key} {value}" for key, value in self.shown.items())


class _Place(NamedTuple):
    """A line in the file: bytes `start` to `end`, and the version of the image that it is of."""

    start: int
    end: int
    stamp: Stamp | None


class Journal:
    """A JSONL file of one line per image, open for more.

    Invariant: killed at any moments and given again, a run leaves the lines of an unbroken run.

    Raises:
        OutputError: the file cannot be written, another process writes it, or it holds anything
            else than lines of this run.
    """

    def __init__(self, path: Path, run: Run) -> None:
        self.path, self._run = path, run
        # Keeps the order of the images' first lines; a later line takes an earlier one's place.
        self._places: dict[str, _Place] = {}
        self._outdated = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, NEW_FILE_MODE)
        except OSError as error:
            raise OutputError.of(error, path) from None
        try:
            self._lock()
            self._end = self._load()
        except BaseException:
            os.close(self._file)
            raise

    def __len__(self) -> int:
        return len(self._places)

    def find(self, source: Source) -> Record | None:
        """Return what is recorded of this version of an image, errors included."""
        place = self._places.get(source.name)
        if place is None or place.stamp != stamp(source):
            return None
        return self._read(place)

    def write(self, source: Source, record: Record, version: Stamp | None) -> None:
        """Append an image's line; that of another version of it is dropped when the file is closed.

        `version`: the stamp of the file before it was read.
        """
        size, mtime = version or (None, None)
        line: dict[str, Any] = {"file": source.name, _STAMP[0]: size, _STAMP[1]: mtime}
        line |= {**record, **self._run.shown, _RUN: self._run.digest}
        # Escaped to ASCII: also a name that is no Unicode is kept, and comes back as it was.
        data = json.dumps(line, allow_nan=False).encode("ascii") + b"\n"
        old = self._places.get(source.name)
        if old is not None:
            if os.pread(self._file, old.end - old.start, old.start) == data:
                return
            self._outdated = True
        self._append(data)
        self._places[source.name] = _Place(self._end - len(data), self._end, version)

    def found(self, sources: Iterable[Source]) -> Iterator[Found]:
        """Yield the images that have a line, each with its record, in the order of `sources`."""
        for source in sources:
            place = self._places.get(source.name)
            if place is not None:
                yield Found(source, self._read(place))

    def close(self, *, discard: bool = False) -> None:
        """Flush the file to disk, without lines that later ones replaced, or delete it."""
        try:
            if discard:
                self.path.unlink(missing_ok=True)
            elif self._outdated:
                places = self._places.values()
                lines = (os.pread(self._file, one.end - one.start, one.start) for one in places)
                atomic_write_bytes(self.path, b"".join(lines))
            else:
                os.fsync(self._file)
        except OSError as error:
            raise OutputError.of(error, self.path) from None
        finally:
            os.close(self._file)

    def _read(self, place: _Place) -> Record:
        line = json.loads(os.pread(self._file, place.end - place.start, place.start))
        hidden = {"file", *_STAMP, _RUN, *self._run.shown}
        return {key: value for key, value in line.items() if key not in hidden}

    def _append(self, data: bytes) -> None:
        """Write a whole line or nothing of it."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except BaseException as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._end)
            if isinstance(error, OSError):
                raise OutputError.of(error, self.path) from None
            raise
        self._end += len(data)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                "another run writes it", path=self.path, hint="wait for it, or name another file"
            ) from None
        except OSError:  # a file system without locks
            pass

    def _load(self) -> int:
        """Find the lines; cut off a part of one at the end. Returns the bytes of all of them."""
        end = 0
        with open(self._file, "rb", closefd=False) as stream:
            for number, data in enumerate(stream, 1):
                if not data.endswith(b"\n"):
                    self._cut(end, data)
                    break
                self._add(number, data, end)
                end += len(data)
        return end

    def _cut(self, end: int, data: bytes) -> None:
        # A machine that lost its power may leave zeros.
        part = data.rstrip(b"\0")
        if not (part.startswith(_START) or _START.startswith(part)):
            raise OutputError("its last line is none of a run", path=self.path, hint=_OTHER)
        os.ftruncate(self._file, end)

    def _add(self, number: int, data: bytes, start: int) -> None:
        try:
            line = json.loads(data)
            name, digest, version = line["file"], line[_RUN], [line[key] for key in _STAMP]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise OutputError(
                f"line {number} is none of a run", path=self.path, hint=_OTHER
            ) from None
        if digest != self._run.digest:
            theirs = str(Run({key: line.get(key) for key in self._run.shown}, digest))
            ours = str(self._run)
            problem = (
                f"its lines are of {theirs}; this run is of {ours}"
                if theirs != ours
                else f"its lines are of {theirs} with other settings or weights"
            )
            raise OutputError(problem, path=self.path, hint=_OTHER)
        self._outdated |= name in self._places
        known = None if version[0] is None else Stamp(*version)
        self._places[name] = _Place(start, start + len(data), known)
