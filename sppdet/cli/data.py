"""`sppdet data`: get, make, check, split and convert data sets."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sppdet.cli.common import warn
from sppdet.cli.dataset import ALL, DataSource, print_findings
from sppdet.cli.options import (
    ClassesOption,
    CopyOption,
    DataArgument,
    FormatOption,
    ImagesOption,
    StrictOption,
    YearOption,
    examples,
)
from sppdet.cli.terminal.notes import say
from sppdet.core.errors import DatasetError


class TargetFormat(StrEnum):
    """Formats that are written."""

    VOC = "voc"
    COCO = "coco"
    YOLO = "yolo"
    CSV = "csv"


data = typer.Typer(no_args_is_help=True, help="Get, make, check, split and convert data sets.")


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
    say(f"{folder}")


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
    say(f"{made}: {train} train, {val} val and {test} test images")


@data.command(
    epilog=examples(
        ("your own data set", "sppdet data check my-data"),
        (
            "one split of one year of a devkit",
            "sppdet data check VOCdevkit --year 2007 --split val",
        ),
        ("images elsewhere", "sppdet data check instances.json --images photos/"),
        ("for a program", "sppdet data check my-data --json > report.json"),
    )
)
def check(
    source: DataArgument,
    split: Annotated[
        str | None, typer.Option("--split", help="Check this split only.", show_default="all")
    ] = None,
    format: FormatOption = None,
    year: YearOption = None,
    images: ImagesOption = None,
    classes: ClassesOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Read every annotation and image of a data set, name all that is wrong, count what is there.

    The exit code is 1 if anything is wrong, not for notes.
    """
    from sppdet.datasets.tools.check import check_dataset, format_report

    names = DataSource(source, classes=classes).class_names
    part = None if split == ALL else split
    report = check_dataset(
        source, format=format, classes=names, images=images, year=year, split=part
    )
    as_dict = report.to_dict()
    say(json.dumps(as_dict, indent=2, allow_nan=False) if as_json else format_report(report))
    if report.problems or report.refused:
        raise typer.Exit(1)


@data.command(
    epilog=examples(
        ("a fifth of the images to evaluate on", "sppdet data split my-data --out data/mine"),
        ("", "sppdet train data/mine --run runs/mine"),
        ("lists of image ids alone", "sppdet data split my-data --lists --out data/lists"),
        ("", "sppdet train my-data --split data/lists/train.txt --run runs/mine"),
    )
)
def split(
    source: DataArgument,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="A new folder.", show_default=False)
    ],
    val: Annotated[float, typer.Option(help="Share of the images to evaluate on.")] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another draw.")] = 0,
    lists: Annotated[
        bool, typer.Option("--lists", help="Write train.txt and val.txt only, of image ids.")
    ] = False,
    copy: CopyOption = False,
    of: Annotated[
        str | None,
        typer.Option("--split", help="Split this part of the data; all for all images."),
    ] = None,
    format: FormatOption = None,
    year: YearOption = None,
    images: ImagesOption = None,
    classes: ClassesOption = None,
    strict: StrictOption = None,
) -> None:
    """Split a data set at random into train and val, each class by its share.

    Written in its own format, or COCO's where that has no writer; the images are linked.
    """
    from sppdet.core.files import new_folder
    from sppdet.datasets.splits import hold_out, write_split_list
    from sppdet.datasets.tools.convert import convert_dataset
    from sppdet.datasets.tools.writers import TARGETS, Target

    if not 0 < val < 1:
        raise DatasetError(f"--val {val:g} is no share", hint="give one between 0 and 1")
    opened = DataSource(source, of, format, year, images, classes, strict).open()
    if of is None and opened.raw.splits:
        raise DatasetError(
            f"has splits: {', '.join(opened.raw.splits)}",
            path=source,
            hint=f"name the one to split, or {ALL}: --split",
        )
    say(opened.describe("splitting"))
    rest, held = hold_out(opened.load(), val, seed)
    if lists:
        with new_folder(out) as folder:
            write_split_list(folder / "train.txt", rest)
            write_split_list(folder / "val.txt", held)
    else:
        to: Target = next((name for name in TARGETS if name == opened.format), "coco")
        if to != opened.format:
            say(f"there is no writer for {opened.raw.format}: written as COCO")
        print_findings(convert_dataset({"train": rest, "val": held}, out, to, copy=copy))
    say(f"{out}: {len(rest)} train and {len(held)} val images")


@data.command(
    epilog=examples(
        ("for a YOLO training", "sppdet data convert my-data data/yolo --to yolo"),
        ("with the images in it", "sppdet data convert my-data data/coco --to coco --copy"),
    )
)
def convert(
    source: DataArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.", show_default=False)],
    to: Annotated[TargetFormat, typer.Option("--to", help="The format.", show_default=False)],
    copy: CopyOption = False,
    format: FormatOption = None,
    year: YearOption = None,
    images: ImagesOption = None,
    classes: ClassesOption = None,
    strict: StrictOption = None,
) -> None:
    """Write a data set in another format, with its splits; what that cannot hold is told."""
    from sppdet.datasets.raw import Findings
    from sppdet.datasets.tools.convert import convert_dataset, load_splits

    findings = Findings()
    options = DataSource(source, classes=classes, strict=strict)
    splits = load_splits(
        source,
        findings,
        format=format,
        images=images,
        year=year,
        classes=options.class_names,
        strict=bool(strict),
        max_lost=options.max_lost,
    )
    if to is not TargetFormat.VOC and {"train", "val", "trainval"} <= splits.keys():
        del splits["trainval"]
        say("trainval is train and val together: not written apart")
    print_findings(findings)
    print_findings(convert_dataset(splits, out, to.value, copy=copy))
    objects = sum(len(sample.labels) for one in splits.values() for sample in one)
    counts = ", ".join(f"{len(one)} {name or 'images'}" for name, one in splits.items())
    say(f"{out}: {counts}; {objects} objects")


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
        typer.Option("--split", help="May be given many times.", show_default="train, else all"),
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
    format: FormatOption = None,
    year: YearOption = None,
    images: ImagesOption = None,
    classes: ClassesOption = None,
    strict: StrictOption = None,
) -> None:
    """Cut the objects out of a data set, into a folder for each class."""
    from sppdet.cli.terminal.progress import terminal_progress
    from sppdet.datasets import write_object_crops
    from sppdet.datasets.splits import TRAIN_SPLITS

    unusable = 0
    names: list[str | None] = [*split] if split else [None]
    for name in names:
        opened = DataSource(source, name, format, year, images, classes, strict).open(TRAIN_SPLITS)
        dataset = opened.load(max_lost=1.0)
        folder = out / opened.file_split
        counts = write_object_crops(
            dataset,
            folder,
            margin=margin,
            difficult=difficult,
            min_side=min_side,
            progress=terminal_progress(),
        )
        for problem in counts.problems:
            warn(str(problem))
        unusable += len(counts.problems) + opened.count_unusable()
        say(f"{folder}: {sum(counts.crops.values())} objects, {counts.left_out} left out")
        width = max(len(one) for one in counts.crops)
        for one, count in counts.crops.items():
            say(f"  {one:<{width}}  {count:>6}")
    if unusable:
        warn(f"{unusable} image{'s' * (unusable != 1)} could not be used")
        raise typer.Exit(1)
