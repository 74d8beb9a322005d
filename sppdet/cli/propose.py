"""`sppdet propose`: the boxes that a detector looks at, and how many objects they cover."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sppdet.cli.common import (
    CacheOption,
    ConfigOption,
    DataSource,
    ImagesOption,
    LimitOption,
    SetOption,
    ThreadsOption,
    YearOption,
    costs,
    examples,
    settings,
    use_threads,
    warn,
)
from sppdet.errors import DatasetError, SppdetError

if TYPE_CHECKING:
    from sppdet.proposals import Proposer
    from sppdet.types import Dataset, FloatArray

# Recall is told for the first so many proposals of each image, and for all.
LIMITS = (100, 500, 1000, None)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        epilog=examples(
            ("boxes of a folder of images", "sppdet propose photos/ --json boxes.json"),
            ("recall on a data set", "sppdet propose VOCdevkit --year 2007 --split val"),
            ("before training, kept for it", "sppdet propose data/shapes --split train --cache c/"),
            ("another engine", "sppdet propose photos/ --set proposals.engine=opencv-fast"),
        )
    )(propose)


def propose(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE..|DATA",
            help="Image files, folders, quoted patterns; with --split, a data set.",
            show_default=False,
        ),
    ],
    split: Annotated[
        str | None,
        typer.Option("--split", help="The split of the data set to propose on."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all boxes to this file.")
    ] = None,
    cache: CacheOption = None,
    year: YearOption = None,
    images: ImagesOption = None,
    limit: LimitOption = None,
    config: ConfigOption = None,
    changes: SetOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Propose boxes by selective search, on all cores.

    On a data set, also tell the share of objects that the boxes cover.
    """
    from sppdet.images import find_images
    from sppdet.proposals import make_proposer

    if split is not None and len(inputs) > 1:
        raise DatasetError("--split goes with one data set", mend="name one folder or COCO file")
    dataset = (
        None
        if split is None
        else DataSource(Path(inputs[0]), split, year, images, None, limit).load()
    )
    paths = find_images(inputs) if dataset is None else [sample.path for sample in dataset]
    proposer = make_proposer(settings(config, changes, None).proposals)
    use_threads(threads)
    start = time.perf_counter()
    found = _propose_all(paths, proposer, cache, threads or 0)
    seconds = time.perf_counter() - start
    boxes = [one for one in found if not isinstance(one, SppdetError)]
    mean = sum(len(one) for one in boxes) / max(1, len(boxes))
    typer.echo(f"{len(boxes)} images, {mean:.0f} boxes each, in {costs(seconds)}")
    if json_file is not None:
        _write_json(json_file, paths, found)
    if len(boxes) < len(found):
        warn(f"{len(found) - len(boxes)} of {len(found)} images could not be read")
        raise typer.Exit(1)
    if dataset is not None:
        _tell_recall(dataset, boxes)


def _propose_all(
    paths: Sequence[Path], proposer: Proposer, cache: Path | None, workers: int
) -> list[FloatArray | SppdetError]:
    """Each image's boxes, or its error, which is also told."""
    from sppdet.images import read_image
    from sppdet.progress import terminal_progress
    from sppdet.proposals import warm_up
    from sppdet.proposals.cache import attempt_all

    folder = None if cache is None else cache / "proposals"
    progress = terminal_progress()
    warm_up(announce=progress.say)
    found = []
    with progress.task("proposals", len(paths)) as advance:
        for _, outcome in attempt_all(paths, read_image, proposer, folder, workers=workers):
            if isinstance(outcome, SppdetError):
                warn(str(outcome))
            found.append(outcome)
            advance(1)
    return found


def _tell_recall(dataset: Dataset, boxes: Sequence[FloatArray]) -> None:
    from sppdet.evaluation.proposals import summarise
    from sppdet.evaluation.report import proposal_table

    by_id = {sample.image_id: one for sample, one in zip(dataset, boxes, strict=True)}
    typer.echo(proposal_table([summarise(dataset, by_id, limit=limit) for limit in LIMITS]))


def _write_json(
    path: Path, paths: Sequence[Path], found: Sequence[FloatArray | SppdetError]
) -> None:
    from sppdet.files import atomic_write_json

    records: list[dict[str, Any]] = []
    for image, one in zip(paths, found, strict=True):
        if isinstance(one, SppdetError):
            records.append({"file": str(image), "error": str(one)})
        else:
            records.append({"file": str(image), "boxes": one.tolist()})
    atomic_write_json(path, {"images": records})
