"""Results of commands that go on where they were stopped: options, and what an interrupt says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from sppdet.cli.common import warn
from sppdet.core.errors import SppdetError

if TYPE_CHECKING:
    from sppdet.media.sources import ImageSource
    from sppdet.outputs.journal import Run
    from sppdet.outputs.results import Results

Outcome = TypeVar("Outcome")

JsonlOption = Annotated[
    Path | None,
    typer.Option(
        "--jsonl",
        metavar="FILE",
        help="Write a line of JSON per image as soon as it is done. After a crash, the same command"
        " goes on where it was.",
    ),
]
JsonOption = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write all that was found to this file."),
]


def file_results(jsonl: Path | None, json: Path | None) -> Results:
    """Collect the results of a command that writes lines and JSON."""
    from sppdet.outputs.documents import JsonDocument
    from sppdet.outputs.results import Results

    return Results(jsonl, [] if json is None else [JsonDocument(json)])


@contextmanager
def recording(
    results: Results, run: Run, sources: Sequence[ImageSource], header: Mapping[str, Any]
) -> Iterator[None]:
    """Open results (`Results.open`); an interrupt says where they are, and the exit code is 130."""
    try:
        with results.open(run, sources, header):
            yield
    except KeyboardInterrupt:
        lines = results.journal_path
        if lines is None or not lines.exists():
            warn(f"interrupted; {results.done} of {len(sources)} images were done")
        else:
            warn(
                f"interrupted; what was found in {results.done} of {len(sources)} images is in"
                f" {lines}: the same command goes on from there"
            )
        raise typer.Exit(130) from None


def record_errors(
    outcomes: Iterable[tuple[ImageSource, Outcome | SppdetError]], results: Results
) -> Iterator[tuple[ImageSource, Outcome | SppdetError]]:
    """Yield what is given; record the errors among it."""
    for source, outcome in outcomes:
        if isinstance(outcome, SppdetError):
            results.add_error(source, outcome)
        yield source, outcome
