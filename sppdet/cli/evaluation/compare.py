"""`sppdet compare`: how much better one model is than another, and whether that is chance."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from sppdet.cli.common import say, warn
from sppdet.cli.dataset import DataSource
from sppdet.cli.evaluation.detections import (
    Found,
    ModelOptions,
    detect_with_model,
    find_results,
)
from sppdet.cli.evaluation.unseen import open_unseen
from sppdet.cli.options import (
    CacheOption,
    ClassesOption,
    DataArgument,
    DeviceOption,
    FormatOption,
    ImagesOption,
    LimitOption,
    SplitOption,
    StrictOption,
    ThreadsOption,
    YearOption,
    examples,
)
from sppdet.core.errors import EvaluationError
from sppdet.outputs.places import check_folder

if TYPE_CHECKING:
    from sppdet.core.types import Dataset
    from sppdet.reports.comparison import Comparison, Difference

# Images in the table; the JSON has all.
SHOWN_IMAGES = 10
_SIDE = "A model, as `sppdet models` lists them or a file, or results as `evaluate` reads them."


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        epilog=examples(
            ("two models", "sppdet compare fast default VOCdevkit --year 2007 --split val"),
            ("results", "sppdet compare runs/old runs/new.json my-data/ --out difference.json"),
        )
    )(compare)


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=_SIDE, show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help=_SIDE, show_default=False)],
    source: DataArgument,
    split: SplitOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Gets all figures as JSON."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON in place of the tables.")
    ] = False,
    work: Annotated[
        Path,
        typer.Option("--work", metavar="DIR", help="Gets the detections of models, A's in a."),
    ] = Path("runs/compare"),
    resamples: Annotated[
        int, typer.Option("--resamples", min=1, help="How often images are drawn anew.")
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the draws.")] = 0,
    format: FormatOption = None,
    year: YearOption = None,
    images: ImagesOption = None,
    classes: ClassesOption = None,
    strict: StrictOption = None,
    limit: LimitOption = None,
    cache: CacheOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Compare two models, or two sets of results, on the same images.

    Tells how much the AP of each class and their mean differ, with an interval that holds the
    difference by 95 %: images are drawn with replacement, the same for both (paired bootstrap). An
    interval with 0 in it says that other images may turn the difference round. Also tells which
    images changed most.
    """
    from sppdet.core.files import atomic_write_json
    from sppdet.reports.comparison import compare_detections

    if out is not None:
        check_folder(out.parent)
    data = DataSource(source, split, format, year, images, classes, strict, limit)
    # The JSON is alone on standard output.
    tell = partial(say, to_stderr=as_json)
    options = ModelOptions("", cache=cache, device=device, threads=threads)
    sides = [
        _find(replace(options, model=name), data, folder, tell)
        for name, folder in ((a, work / "a"), (b, work / "b"))
    ]
    dataset = _shared(sides)
    found = [_of(side, dataset) for side in sides]
    comparison = compare_detections(dataset, found[0], found[1], resamples=resamples, seed=seed)
    figures = {"a": a, "b": b, "seed": seed, **_to_json(comparison)}
    if out is not None:
        atomic_write_json(out, figures)
    if as_json:
        say(json.dumps(figures, allow_nan=False))
    else:
        say(_format(comparison, a, b))
    for side in sides:
        side.finish()


def _find(
    options: ModelOptions, data: DataSource, folder: Path, tell: Callable[[str], None]
) -> Found:
    """Read results if the name is a folder or a file of a kind that they have; else detect."""
    path = Path(options.model)
    is_results = path.is_dir() or (path.is_file() and path.suffix.lower() in (".json", ".csv"))
    if is_results:
        return find_results(path, open_unseen(data, None))
    check_folder(folder)
    return detect_with_model(options, open_unseen(data, options.model), folder, tell)


def _shared(sides: Sequence[Found]) -> Dataset:
    """Leave the images and classes that both sides have, and tell which classes are left out.

    Raises EvaluationError where there are none.
    """
    first, second = (side.dataset for side in sides)
    names = [name for name in first.classes if name in second.classes]
    left_out = sorted({*first.classes, *second.classes} - {*names})
    if not names:
        raise EvaluationError(
            "A and B have no class in common", path=first.name, hint="compare others"
        )
    if left_out:
        warn(f"classes that only one of both has are left out: {', '.join(left_out)}")
    ids = {sample.image_id for sample in second}
    labels = np.array([names.index(n) if n in names else -1 for n in first.classes], np.int64)
    samples = []
    for sample in first:
        keep = labels[sample.labels] >= 0
        if sample.image_id in ids:
            samples.append(
                replace(
                    sample,
                    boxes=sample.boxes[keep],
                    labels=labels[sample.labels[keep]],
                    difficult=sample.difficult[keep],
                    areas=None if sample.areas is None else sample.areas[keep],
                )
            )
    return replace(first, classes=tuple(names), samples=tuple(samples))


def _of(side: Found, dataset: Dataset) -> Mapping[str, Any]:
    ids = {sample.image_id for sample in dataset}
    return {name: found for name, found in side.detections.items() if name in ids}


def _to_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "dataset": comparison.dataset,
        "images": comparison.n_images,
        "resamples": comparison.resamples,
        "mean": _figures(comparison.mean),
        "classes": {one.name: _figures(one) for one in comparison.classes},
        "changed_images": [one._asdict() for one in comparison.images],
    }


def _figures(one: Difference) -> dict[str, float | None]:
    from sppdet.evaluation.tables import json_number

    return {key: json_number(value) for key, value in one._asdict().items() if key != "name"}


def _format(comparison: Comparison, a: str, b: str) -> str:
    """Format a row per class and one of the mean, and one per image that changed most."""
    from sppdet.evaluation.tables import figures, table

    rows = [
        [one.name, *figures([one.a, one.b, one.difference, one.low, one.high, one.b_is_better])]
        for one in (*comparison.classes, comparison.mean)
    ]
    header = ["class", "AP of A", "AP of B", "B - A", "from", "to", "B is better"]
    lines = [
        table(header, rows),
        "",
        f"A is {a}, B is {b}; {comparison.dataset}, {comparison.n_images} images. AP (area, IoU"
        f" 0.5); the interval holds 95 % of {comparison.resamples} draws of images.",
    ]
    changed = comparison.images
    if changed:
        lines += ["", f"{len(changed)} images have another number of errors, most of all:"]
        rows = [[one.image_id, str(one.errors_a), str(one.errors_b)] for one in changed]
        lines.append(table(["image", "errors of A", "errors of B"], rows[:SHOWN_IMAGES]))
    return "\n".join(lines)
