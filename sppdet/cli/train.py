"""`sppdet train`: a model from a data set, in stages that survive an interruption."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from sppdet.cli.common import DataSource, checked_device, format_cost, load_config, use_threads
from sppdet.cli.options import (
    CacheOption,
    ClassesOption,
    ConfigOption,
    DataArgument,
    DescriptionOption,
    DeviceOption,
    ImagesOption,
    LimitOption,
    SeedOption,
    SetOption,
    SplitOption,
    ThreadsOption,
    YearOption,
    examples,
)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        epilog=examples(
            ("a small data set, to see it work", "sppdet data synthetic data/shapes"),
            ("", "sppdet train data/shapes --config configs/tiny.toml --run runs/shapes"),
            ("Pascal VOC", "sppdet train VOCdevkit --year 2007 --split train --run runs/voc07"),
            ("other settings", "sppdet train VOCdevkit --run runs/b --set svm.c=0.01 --seed 1"),
            ("COCO's format", "sppdet train train.json --images photos/ --run runs/mine"),
        )
    )(train)


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
    split: SplitOption = "train",
    year: YearOption = None,
    images: ImagesOption = None,
    classes: ClassesOption = None,
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

    Each stage is saved in the run's folder. Interrupted, the same command goes on where it
    stopped, and ends in the same model, byte for byte.
    """
    from sppdet.training.config import TrainingConfig

    chosen = load_config(TrainingConfig, config, changes, seed)
    dataset = DataSource(source, split, year, images, classes, limit).load()
    use_threads(threads)

    from sppdet.core.progress import terminal_progress
    from sppdet.training import train as run_training

    objects = sum(len(sample.labels) for sample in dataset)
    typer.echo(
        f"{dataset.name}: {len(dataset)} images, {objects} objects, {len(dataset.classes)} classes"
    )
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
