"""`sppdet propose`: the boxes that a detector scores, and the share of objects they cover."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sppdet.cli.common import Failures, format_cost, load_config, use_threads
from sppdet.cli.dataset import DataSource
from sppdet.cli.options import (
    CacheOption,
    ConfigOption,
    FormatOption,
    ImagesOption,
    LimitOption,
    SetOption,
    StrictOption,
    ThreadsOption,
    YearOption,
    examples,
)
from sppdet.core.errors import DatasetError

if TYPE_CHECKING:
    from sppdet.core.types import Dataset, FloatArray
    from sppdet.proposals import Proposer

# Recall is measured for the first so many proposals of each image, and for all.
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
        typer.Option("--split", help="The split to propose on; all for all images."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all boxes to this file.")
    ] = None,
    cache: CacheOption = None,
    format: FormatOption = None,
    year: YearOption = None,
    images: ImagesOption = None,
    strict: StrictOption = None,
    limit: LimitOption = None,
    config: ConfigOption = None,
    changes: SetOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Propose boxes by selective search, on all cores.

    On a data set, also measure the share of objects that the boxes cover.
    """
    from sppdet.core.images import find_images
    from sppdet.proposals import make_proposer
    from sppdet.training.config import TrainingConfig

    if split is not None and len(inputs) > 1:
        raise DatasetError("--split goes with one data set", hint="name one folder or file")
    data = DataSource(Path(inputs[0]), split, format, year, images, strict=strict, limit=limit)
    dataset = None if split is None else data.load()
    paths = find_images(inputs) if dataset is None else [sample.path for sample in dataset]
    proposer = make_proposer(load_config(TrainingConfig, config, changes).proposals)
    use_threads(threads)
    failures: Failures[Path] = Failures()
    start = time.perf_counter()
    boxes = _propose_all(paths, proposer, cache, threads or 0, failures)
    seconds = time.perf_counter() - start
    mean = sum(len(one) for one in boxes.values()) / max(1, len(boxes))
    typer.echo(f"{len(boxes)} images, {mean:.0f} boxes each, in {format_cost(seconds)}")
    if json_file is not None:
        _write_json(json_file, paths, boxes, failures)
    failures.finish(f"of {len(paths)} images could not be read")
    if dataset is not None:
        _print_recall(dataset, boxes)


def _propose_all(
    paths: Sequence[Path],
    proposer: Proposer,
    cache: Path | None,
    workers: int,
    failures: Failures[Path],
) -> dict[Path, FloatArray]:
    """Propose boxes `float32 (N, 4)` for every readable image."""
    from sppdet.core.images import read_image
    from sppdet.core.jit import warm_up
    from sppdet.core.progress import terminal_progress
    from sppdet.proposals.proposal_cache import attempt_all

    folder = None if cache is None else cache / "proposals"
    progress = terminal_progress()
    warm_up(announce=progress.say)
    with progress.task("proposals", len(paths)) as advance:
        outcomes = attempt_all(paths, read_image, proposer, folder, workers=workers)
        return dict(failures.skip(outcomes, advance))


def _print_recall(dataset: Dataset, boxes: Mapping[Path, FloatArray]) -> None:
    from sppdet.evaluation.detection_report import proposal_table
    from sppdet.evaluation.proposal_recall import proposal_recall

    by_id = {sample.image_id: boxes[sample.path] for sample in dataset}
    typer.echo(proposal_table([proposal_recall(dataset, by_id, limit=limit) for limit in LIMITS]))


def _write_json(
    path: Path,
    paths: Sequence[Path],
    boxes: Mapping[Path, FloatArray],
    failures: Failures[Path],
) -> None:
    from sppdet.core.files import atomic_write_json

    records: dict[Path, dict[str, Any]] = {
        image: {"boxes": one.tolist()} for image, one in boxes.items()
    }
    records |= {image: {"error": str(error)} for image, error in failures.errors.items()}
    images = [{"file": str(image), **records[image]} for image in paths]
    atomic_write_json(path, {"images": images})
