"""`sppdet data`: get, make and check data sets."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sppdet.cli.common import DataSource, Failures, attempt
from sppdet.cli.options import ClassesOption, DataArgument, ImagesOption, YearOption, examples
from sppdet.core.errors import DatasetError, SppdetError

if TYPE_CHECKING:
    from sppdet.core.types import Dataset

data = typer.Typer(no_args_is_help=True, help="Get, make and check data sets.")


def register(app: typer.Typer) -> None:
    """Add the group to `app`."""
    app.add_typer(data, name="data")


@data.command(
    epilog=examples(
        ("VOC2007, training and validation images (460 MB)", "sppdet data download 2007"),
        ("its test images (451 MB)", "sppdet data download 2007-test"),
    )
)
def download(
    which: Annotated[str, typer.Argument(help="2007, 2007-test or 2012.", show_default=False)],
    to: Annotated[
        Path, typer.Option("--to", metavar="DIR", help="Gets the VOCdevkit folder.")
    ] = Path("data"),
) -> None:
    """Download Pascal VOC from its own server.

    Checked against pinned SHA-256 sums before it is unpacked.
    """
    from sppdet.datasets import download_voc

    folder = download_voc(to, which, progress=sys.stderr.isatty())
    typer.echo(f"{folder}")


@data.command(
    epilog=examples(
        ("24 training, 12 validation and 12 test images", "sppdet data synthetic data/shapes"),
        ("more of them", "sppdet data synthetic data/shapes --train 200 --val 50"),
    )
)
def synthetic(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A new folder.", show_default=False)
    ],
    train: Annotated[int, typer.Option(min=0, help="Images to train on.")] = 24,
    val: Annotated[int, typer.Option(min=0, help="Images to validate on.")] = 12,
    test: Annotated[int, typer.Option(min=0, help="Images to test on.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other images.")] = 0,
) -> None:
    """Make a small VOC-format data set of shapes, to try things out on."""
    from sppdet.datasets import make_synthetic_voc

    made = make_synthetic_voc(folder, train=train, val=val, test=test, seed=seed)
    typer.echo(f"{made}: {train} train, {val} val and {test} test images")


@data.command(
    epilog=examples(
        ("your own data set", "sppdet data check my-data"),
        (
            "one split of one year of a devkit",
            "sppdet data check VOCdevkit --year 2007 --split val",
        ),
        ("a COCO file", "sppdet data check instances.json --images photos/"),
    )
)
def check(
    source: DataArgument,
    split: Annotated[
        str | None, typer.Option("--split", help="Check this split only.", show_default="all")
    ] = None,
    year: YearOption = None,
    images: ImagesOption = None,
    classes: ClassesOption = None,
) -> None:
    """Read every annotation and image of a data set, name what is wrong, count what is there."""
    from sppdet.core.images import read_sample
    from sppdet.core.progress import terminal_progress

    chosen = DataSource(source, split or "", year, images, classes)
    failures: Failures[str | Path] = Failures()
    read: set[Path] = set()
    for name in [split] if split is not None else _splits(chosen):
        problems: list[SppdetError] = []
        try:
            dataset = replace(chosen, split=name).load(problems)
        except SppdetError as error:
            failures.add(str(error), error)
            continue
        for problem in problems:
            failures.add(str(problem), problem)
        unread = {sample.path: sample for sample in dataset if sample.path not in read}
        read |= unread.keys()
        label = f"{dataset.name}: reading images"
        with terminal_progress().task(label, len(unread)) as advance:
            outcomes = ((path, attempt(read_sample)(sample)) for path, sample in unread.items())
            for _ in failures.skip(outcomes, advance):
                pass
        typer.echo(_format_counts(dataset))
    if len(failures.errors) == 1:  # It has been printed; a sum would say it again.
        raise typer.Exit(1)
    failures.finish(f"problems in {source}")


@data.command(
    epilog=examples(
        (
            "the objects of two splits, to train a classifier on",
            "sppdet data crops VOCdevkit data/crops --year 2007 --split train --split val",
        ),
        ("", "sppdet classify train data/crops --split train --test val --run runs/crops"),
    )
)
def crops(
    source: DataArgument,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="Gets a folder per split, in it one per class.", show_default=False
        ),
    ],
    split: Annotated[
        list[str] | None,
        typer.Option("--split", help="May be given many times.", show_default="train"),
    ] = None,
    margin: Annotated[
        float,
        typer.Option(min=0, help="Context on each side, as a share of the box's width or height."),
    ] = 0.0,
    difficult: Annotated[
        bool, typer.Option("--difficult", help="Also objects that are flagged difficult.")
    ] = False,
    min_side: Annotated[
        int, typer.Option(min=1, help="Leave out boxes with a shorter side, in pixels.")
    ] = 1,
    year: YearOption = None,
    images: ImagesOption = None,
    classes: ClassesOption = None,
) -> None:
    """Cut the objects out of a data set, into a folder for each class."""
    from sppdet.core.progress import terminal_progress
    from sppdet.datasets import write_object_crops

    failures: Failures[str] = Failures()
    for name in split or ["train"]:
        dataset = DataSource(source, name, year, images, classes).load()
        folder = out / Path(name).stem
        counts = write_object_crops(
            dataset,
            folder,
            margin=margin,
            difficult=difficult,
            min_side=min_side,
            progress=terminal_progress(),
        )
        for problem in counts.problems:
            failures.add(str(problem), problem)
        typer.echo(f"{folder}: {sum(counts.crops.values())} objects, {counts.left_out} left out")
        width = max(len(one) for one in counts.crops)
        for one, count in counts.crops.items():
            typer.echo(f"  {one:<{width}}  {count:>6}")
    failures.finish("images could not be used")


def _splits(source: DataSource) -> list[str]:
    """List the names of all splits; a COCO file is one, without a name."""
    from sppdet.datasets import voc_folder, voc_splits

    if source.is_coco:
        return [""]
    folder = voc_folder(source.data, source.year)
    names = list(voc_splits(folder))
    if not names:
        raise DatasetError(
            "has no splits",
            path=folder,
            hint="write image ids, one per line, to ImageSets/Main/train.txt",
        )
    return names


def _format_counts(dataset: Dataset) -> str:
    """Format the numbers of images and objects of a data set, one line per class."""
    objects: Counter[int] = Counter()
    difficult: Counter[int] = Counter()
    holding: Counter[int] = Counter()
    for sample in dataset:
        objects.update(sample.labels.tolist())
        difficult.update(sample.labels[sample.difficult].tolist())
        holding.update(set(sample.labels.tolist()))
    empty = sum(not len(sample.labels) for sample in dataset)
    width = max(len(name) for name in dataset.classes)
    lines = [f"{dataset.name}: {len(dataset)} images ({empty} without objects)"]
    lines += [
        f"  {name:<{width}}  {objects[k]:>6} objects ({difficult[k]} difficult)"
        f" in {holding[k]} images"
        for k, name in enumerate(dataset.classes)
    ]
    return "\n".join(lines)
