"""Results of a whole run in one file: JSON and CSV, made from what was recorded line by line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sppdet.core.errors import OutputError
from sppdet.core.files import atomic_write_bytes, atomic_write_json
from sppdet.outputs.places import check_file
from sppdet.outputs.records import Found, Source

_COLUMNS = ("file", "width", "height", "class", "score", "x1", "y1", "x2", "y2")


class Document(Protocol):
    """Protocol of what is written at the end of a run.

    Attributes:
        path: the file, or the folder.
        partial: whether it is also written when a run was stopped, with what there is.
    """

    path: Path
    partial: bool

    def check(self, sources: Sequence[Source]) -> None:
        """Raise OutputError if it cannot be written, or cannot hold these images."""
        ...

    def write(self, found: Iterable[Found], header: Mapping[str, Any], *, complete: bool) -> None:
        """Write what was found.

        Raises:
            OutputError: it cannot be written.
        """
        ...


@dataclass(slots=True)
class JsonDocument:
    """One JSON object: what is said of the run, and a list of images."""

    path: Path
    partial: bool = field(default=True, init=False)

    def check(self, sources: Sequence[Source]) -> None:
        """Raise OutputError if the file cannot be written."""
        check_file(self.path)

    def write(self, found: Iterable[Found], header: Mapping[str, Any], *, complete: bool) -> None:
        """Write all images, also those with an error, and whether the run came to its end."""
        images = [{"file": source.name, **record} for source, record in found]
        try:
            atomic_write_json(self.path, {**header, "complete": complete, "images": images})
        except OSError as error:
            raise OutputError.of(error, self.path) from None


@dataclass(slots=True)
class CsvDocument:
    """A table of one row per detection; an image without any has no row."""

    path: Path
    partial: bool = field(default=True, init=False)

    def check(self, sources: Sequence[Source]) -> None:
        """Raise OutputError if the file cannot be written."""
        check_file(self.path)

    def write(self, found: Iterable[Found], header: Mapping[str, Any], *, complete: bool) -> None:
        """Write the detections of all images."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(_COLUMNS)
        for source, record in found:
            start = (source.name, record.get("width"), record.get("height"))
            for one in record.get("detections", ()):
                table.writerow((*start, one["class"], one["score"], *one["box"]))
        try:
            # The bytes of a name that is no Unicode are kept.
            atomic_write_bytes(self.path, text.getvalue().encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise OutputError.of(error, self.path) from None
