"""Where the results of a run go, image by image, so that a run that stops loses none of them.

What is recorded of an image is written line by line into a journal as soon as it is known: the file
of `--jsonl`, or one beside the first document, which is deleted when the documents are there. A run
that was stopped goes on with it when the same command is given again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sppdet.core.errors import SppdetError
from sppdet.core.types import Detections, ImageArray
from sppdet.outputs.documents import Document
from sppdet.outputs.journal import Journal, Run
from sppdet.outputs.pictures import Pictures
from sppdet.outputs.places import check_apart, check_file
from sppdet.outputs.records import Record, Source, Stamp, stamp

_PART = ".part.jsonl"


@dataclass(slots=True)
class Results:
    """The results that a command was asked for.

    Attributes:
        jsonl: the file of lines, if it is to be kept.
        documents: written at the end, from the lines.
        pictures: written for each image.
        done: images of which it is known what was found, or what is wrong.
    """

    jsonl: Path | None = None
    documents: Sequence[Document] = ()
    pictures: Sequence[Pictures] = ()
    done: int = field(default=0, init=False)
    _journal: Journal | None = field(default=None, init=False)
    _stamps: dict[str, Stamp | None] = field(default_factory=dict, init=False)

    @property
    def journal_path(self) -> Path | None:
        """The file of lines; None where nothing is asked for that is made of them."""
        if self.jsonl is not None or not self.documents:
            return self.jsonl
        first = self.documents[0].path
        return first.with_name(first.name + _PART)

    @property
    def places(self) -> list[Path]:
        """All that is written and stays."""
        lines = [] if self.jsonl is None else [self.jsonl]
        return [
            *(one.folder for one in self.pictures),
            *lines,
            *(one.path for one in self.documents),
        ]

    def check(self, sources: Sequence[Source]) -> None:
        """Check all that can be known before the first image, and before a model is loaded.

        Raises:
            OutputError: a place that cannot be written, one that is named twice, or an image's own.
        """
        path = self.journal_path
        if path is not None:
            check_file(path)
        for document in self.documents:
            document.check(sources)
        for one in self.pictures:
            one.check(sources)
        check_apart(self.places, sources)

    @contextmanager
    def open(
        self, run: Run, sources: Sequence[Source], header: Mapping[str, Any]
    ) -> Iterator[None]:
        """Open the lines, and write the documents at the end, also when the block raises.

        A document of a run that stopped has what there is so far; it does not take the place of one
        that an earlier run left.

        Args:
            run: what the lines are of.
            sources: the images, as the documents list them.
            header: what documents say of the run.

        Raises:
            OutputError: as `Journal`, or a document cannot be written.
        """
        path = self.journal_path
        if path is None:
            yield
            return
        self._journal = journal = Journal(path, run)
        stopped_before = len(journal) > 0
        complete = False
        try:
            yield
            complete = True
        finally:
            written = False
            try:
                for document in self.documents:
                    new = stopped_before or not document.path.exists()
                    if complete or (document.partial and new and len(journal)):
                        document.write(journal.found(sources), header, complete=complete)
                written = complete
            finally:
                journal.close(discard=self.jsonl is None and (written or not len(journal)))
                self._journal = None

    def find(self, source: Source) -> Record | None:
        """Return what is recorded of an image; None where it has to be done, or done again.

        One that could not be read is tried again: a setting may have changed, or a permission.
        """
        self._stamps[source.name] = stamp(source)
        record = None if self._journal is None else self._journal.find(source)
        if record is None or "error" in record:
            return None
        self.done += 1
        return record

    def lacking(self, source: Source, record: Record | None) -> list[Pictures]:
        """List the kinds of pictures that are not there yet."""
        return [one for one in self.pictures if record is None or not one.has(source, record)]

    def add(self, source: Source, record: Record) -> None:
        """Record what was found in an image; raises OutputError."""
        self.done += 1
        if self._journal is not None:
            self._journal.write(source, record, self._stamps.pop(source.name, None))

    def add_error(self, source: Source, error: SppdetError) -> None:
        """Record that an image could not be read; raises OutputError."""
        self.add(source, {"error": str(error)})


def write_pictures(
    kinds: Sequence[Pictures], source: Source, image: ImageArray, found: Detections
) -> None:
    """Write all pictures of an image; raises the first's OutputError after trying the others."""
    problem: SppdetError | None = None
    for one in kinds:
        try:
            one.write(source, image, found)
        except SppdetError as error:
            problem = problem or error
    if problem is not None:
        raise problem
