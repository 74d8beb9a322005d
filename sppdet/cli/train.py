"""`sppdet train`: a model from a data set, in stages that survive an interruption.

`sppdet settings`: every key that `--set` and a config file may change.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sppdet.cli.common import checked_device, format_cost, load_config, use_threads
from sppdet.cli.dataset import DataSource, count_images, drop_empty_classes, hold_out_share
from sppdet.cli.options import (
    CacheOption,
    ClassesOption,
    ConfigOption,
    DataArgument,
    DescriptionOption,
    DeviceOption,
    FormatOption,
    ImagesOption,
    LimitOption,
    SeedOption,
    SetOption,
    SplitOption,
    StrictOption,
    ThreadsOption,
    YearOption,
    examples,
)
from sppdet.core.errors import DatasetError

if TYPE_CHECKING:
    from sppdet.core.types import Dataset


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(
        epilog=examples(
            ("a small data set, to see it work", "sppdet data synthetic data/shapes"),
            ("", "sppdet train data/shapes --config configs/tiny.toml --run runs/shapes"),
            ("yours, labeled by any tool", "sppdet train my-data/ --run runs/mine"),
            ("Pascal VOC", "sppdet train VOCdevkit --year 2007 --split train --run runs/voc07"),
            ("other settings", "sppdet train my-data/ --run runs/b --set svm.c=0.01 --seed 1"),
        )
    )(train)
    app.command(
        epilog=examples(
            ("all keys, with their values and what they do", "sppdet settings"),
            (
                "what a file and a change come to",
                "sppdet settings --config mine.toml --set svm.c=1",
            ),
            ("a config file to start from", "sppdet settings > mine.toml"),
        )
    )(settings)


def train(
    source: DataArgument,
    run: Annotated[
        Path,
        typer.Option(
            "--run",
            metavar="DIR",
            help="Keeps every finished stage and the model.",
            show_default=False,
        ),
    ],
    split: SplitOption = None,
    format: FormatOption = None,
    year: YearOption = None,
    images: ImagesOption = None,
    classes: ClassesOption = None,
    strict: StrictOption = None,
    limit: LimitOption = None,
    config: ConfigOption = None,
    changes: SetOption = None,
    seed: SeedOption = None,
    cache: CacheOption = None,
    description: DescriptionOption = "",
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Train a detector: fine-tuning, box regression, image context, SVMs with hard negatives.

    Where the data has no splits and none is named, a fifth of the images is held out, and listed
    in the run's folder. Each stage is saved there. Interrupted, the same command goes on where it
    stopped, and ends in the same model, byte for byte.
    """
    from sppdet.training.config import TrainingConfig

    chosen = load_config(TrainingConfig, config, changes, seed)
    data = DataSource(source, split, format, year, images, classes, strict, limit)
    dataset = _load(data, run, chosen.seed)
    use_threads(threads)

    from sppdet.core.progress import terminal_progress
    from sppdet.training import train as run_training

    typer.echo(count_images(dataset))
    start = time.perf_counter()
    model = run_training(
        chosen,
        dataset,
        run,
        progress=terminal_progress(),
        device=checked_device(device),
        cache_dir=cache,
        description=description,
        workers=threads or 0,
    )
    typer.echo(f"{model}: trained in {format_cost(time.perf_counter() - start)}")
    typer.echo(f"now: sppdet detect IMAGE --model {model}")


def _load(data: DataSource, run: Path, seed: int) -> Dataset:
    """Load the images to train on; hold some out where the data has no splits."""
    from sppdet.datasets.splits import EVALUATION_SPLITS, TRAIN_SPLITS, choose_split

    opened = data.open(TRAIN_SPLITS)
    holds_out = opened.is_chosen and opened.split is None
    if holds_out and choose_split(opened.raw.splits, EVALUATION_SPLITS) is not None:
        raise DatasetError(
            f"has no split to train on, but {', '.join(opened.raw.splits)}",
            path=data.data,
            hint="name one of them, or all: --split",
        )
    typer.echo(opened.describe("training on", holds_out=holds_out))
    dataset = opened.load(whole=True)
    if holds_out:
        dataset = hold_out_share(dataset, run, seed)
    return drop_empty_classes(opened.limit(dataset), opened)


def settings(
    config: ConfigOption = None, changes: SetOption = None, seed: SeedOption = None
) -> None:
    """Print all settings, as a config file with a comment on each."""
    from sppdet.core.settings import to_toml
    from sppdet.training.config import TrainingConfig

    typer.echo(to_toml(load_config(TrainingConfig, config, changes, seed)))
