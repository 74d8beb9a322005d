"""`sppdet propose`: the boxes that a detector scores, and the share of objects they cover."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sppdet.cli.common import Failures, attempt, find_inputs, format_cost, load_config, use_threads
from sppdet.cli.dataset import DataSource
from sppdet.cli.options import (
    CacheOption,
    ConfigOption,
    FormatOption,
    ImagesOption,
    LimitOption,
    RecursiveOption,
    SetOption,
    StrictOption,
    ThreadsOption,
    YearOption,
    examples,
)
from sppdet.cli.recording import (
    JsonlOption,
    JsonOption,
    file_results,
    record_errors,
    recording,
)
from sppdet.cli.terminal.notes import say
from sppdet.core.errors import DatasetError

if TYPE_CHECKING:
    from sppdet.core.types import Dataset, FloatArray, ImageArray
    from sppdet.media.sources import ImageSource
    from sppdet.outputs.results import Results
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
            help="Image files, folders, quoted patterns, @LIST, -, https:// addresses; or, with"
            " --split, a data set.",
            show_default=False,
        ),
    ],
    split: Annotated[
        str | None,
        typer.Option("--split", help="The split to propose on; all for all images."),
    ] = None,
    recursive: RecursiveOption = False,
    jsonl_file: JsonlOption = None,
    json_file: JsonOption = None,
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
    from sppdet.media.sources import ImageSource
    from sppdet.outputs.journal import Run
    from sppdet.proposals import make_proposer
    from sppdet.training.config import TrainingConfig

    if split is not None and len(inputs) > 1:
        raise DatasetError("--split goes with one data set", hint="name one folder or file")
    data = DataSource(Path(inputs[0]), split, format, year, images, strict=strict, limit=limit)
    dataset = None if split is None else data.load()
    failures: Failures[ImageSource] = Failures()
    if dataset is None:
        sources = find_inputs(inputs, recursive, failures)
    else:
        sources = tuple(ImageSource(str(one.path), one.path) for one in dataset)
    results = file_results(jsonl_file, json_file)
    results.check(sources)
    how = load_config(TrainingConfig, config, changes).proposals
    proposer = make_proposer(how)
    use_threads(threads)
    start = time.perf_counter()
    with recording(results, Run.of({"engine": how.engine}, proposer.key), sources, {}):
        boxes = _propose_all(sources, proposer, cache, threads, failures, results)
    seconds = time.perf_counter() - start
    mean = sum(len(one) for one in boxes.values()) / max(1, len(boxes))
    say(f"{len(boxes)} images, {mean:.0f} boxes each, in {format_cost(seconds)}")
    failures.finish(f"of {len(sources)} images could not be read")
    if dataset is not None:
        _print_recall(dataset, boxes)


def _propose_all(
    sources: Sequence[ImageSource],
    proposer: Proposer,
    cache: Path | None,
    workers: int | None,
    failures: Failures[ImageSource],
    results: Results,
) -> dict[ImageSource, FloatArray]:
    """Propose boxes `float32 (N, 4)` for every readable image, unless they are recorded.

    The cache does not keep those of addresses.
    """
    import numpy as np

    from sppdet.cli.terminal.progress import terminal_progress
    from sppdet.core.jit import warm_up
    from sppdet.core.parallel import available_cores, prefetch
    from sppdet.proposals.proposal_cache import cached_proposals

    def work(source: ImageSource) -> FloatArray:
        def read(_: Path) -> ImageArray:
            return source.read()

        if source.path is None:
            return proposer(source.read())
        return cached_proposals(source.path, read, proposer, folder)

    folder = None if cache is None else cache / "proposals"
    progress = terminal_progress()
    warm_up()
    known = [(source, results.find(source)) for source in sources]
    boxes = {
        source: np.array(record["boxes"], np.float32).reshape(-1, 4)
        for source, record in known
        if record is not None
    }
    todo = [source for source, record in known if record is None]
    with progress.task("proposals", len(todo)) as advance:
        outcomes = prefetch(todo, attempt(work), workers=workers or available_cores())
        for source, own in failures.skip(record_errors(outcomes, results), advance):
            results.add(source, {"boxes": own.tolist()})
            boxes[source] = own
    return boxes


def _print_recall(dataset: Dataset, boxes: Mapping[ImageSource, FloatArray]) -> None:
    from sppdet.evaluation.detection_report import proposal_table
    from sppdet.evaluation.proposal_recall import proposal_recall

    by_path = {source.path: one for source, one in boxes.items()}
    by_id = {sample.image_id: by_path[sample.path] for sample in dataset}
    say(proposal_table([proposal_recall(dataset, by_id, limit=limit) for limit in LIMITS]))
