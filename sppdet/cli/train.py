"""`sppdet train`: a model from a data set, in stages that survive an interruption.

`sppdet settings`: every key that `--set` and a config file may change.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sppdet.cli.common import checked_device, format_cost, load_config, use_threads, warn
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
from sppdet.cli.terminal.notes import say
from sppdet.core.errors import AnnotationError, DatasetError

if TYPE_CHECKING:
    from sppdet.cli.dataset import OpenData
    from sppdet.core.types import Dataset
    from sppdet.detection.starting_model import StartingModel
    from sppdet.training.config import TrainingConfig

# As `--from`: random layers.
NONE = "none"


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(
        epilog=examples(
            ("a small data set, to see it work", "sppdet data synthetic data/shapes"),
            ("", "sppdet train data/shapes --config configs/tiny.toml --run runs/shapes"),
            ("yours, labeled by any tool", "sppdet train my-data/ --run runs/mine"),
            ("from random layers", "sppdet train my-data/ --from none --run runs/c"),
            ("in half an hour", "sppdet train my-data/ --run runs/mine --minutes 30"),
            (
                "Pascal VOC",
                "sppdet train VOCdevkit --year 2007 --split train --from none --run runs/voc07",
            ),
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
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="Take the layers over from this model, a file or a shipped model's name, and"
            f" fine-tune them on DATA; {NONE}: start from random layers, which takes ten times the"
            " steps.",
            show_default="default",
        ),
    ] = None,
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
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes",
            min=0,
            help="Take no more steps than fit into such a time; the run's folder keeps how many.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Train into a folder that holds a model of other data."),
    ] = False,
) -> None:
    """Train a detector: fine-tuning, box regression, image context, SVMs with hard negatives.

    It starts from the layers of the shipped model `default`, whatever the classes, and so needs few
    steps and few images; a config file of another network starts from random layers.

    Where the data has no splits and none is named, a fifth of the images is held out, and listed
    in the run's folder. On these, or on the data's `val`, AP is measured on the way (`history.csv`,
    `curves.svg`) and scores are made probabilities. Each stage is saved in the folder, a model card
    at the end. Interrupted, the same command goes on where it stopped, and ends in the same model,
    byte for byte.
    """
    from sppdet.cli.terminal.progress import terminal_progress
    from sppdet.core.files import exclusive
    from sppdet.training import train as run_training
    from sppdet.training.pipeline import check_run_folder
    from sppdet.training.planning.plan import plan_training

    chosen, model_to_start = _choose_start(start, config, changes, seed)
    data = DataSource(source, split, format, year, images, classes, strict, limit)
    dataset, validation = _load(data, run, chosen.seed)
    with exclusive(run):  # before the plan, which takes a minute
        check_run_folder(run, dataset, overwrite=overwrite)
    use_threads(threads)

    checked_device(device)
    progress = terminal_progress()
    say(count_images(dataset))
    say(_describe_start(chosen, dataset, model_to_start))
    begin = time.perf_counter()
    plan = plan_training(
        chosen,
        dataset,
        run,
        progress=progress,
        device=device,
        cache_dir=cache,
        workers=threads or 0,
        minutes=minutes,
        validation=validation,
        start=model_to_start,
    )
    for line in plan.lines:
        say(line)
    for line in plan.warnings:
        warn(line)
    progress.expect(plan.seconds)
    model = run_training(
        plan.config,
        dataset,
        run,
        progress=progress,
        device=device,
        cache_dir=cache,
        description=description,
        workers=threads or 0,
        validation=validation,
        start=model_to_start,
        overwrite=overwrite,
    )
    say(f"{model}: trained in {format_cost(time.perf_counter() - begin)}")
    say(f"now: sppdet detect IMAGE --model {model}")


def _choose_start(
    start: str | None, config: Path | None, changes: list[str] | None, seed: int | None
) -> tuple[TrainingConfig, StartingModel | None]:
    """Load the settings and the model to start from; None for random layers.

    The model's own settings of features and head come before the options'. Raises ConfigError where
    these contradict it, but for a config file where nobody named a model.
    """
    from sppdet.detection.detector import DEFAULT_MODEL
    from sppdet.detection.starting_model import StartingModel
    from sppdet.training.config import TrainingConfig

    if start == NONE:
        return load_config(TrainingConfig, config, changes, seed), None
    model = StartingModel.load(start or DEFAULT_MODEL)
    base = TrainingConfig(features=model.config.features, head=model.config.head)
    if start is None and config is not None:
        other = model.changed_settings(load_config(TrainingConfig, config, None, base=base))
        if other:
            say(
                f"starting from random layers, for {config} has another {', '.join(other)} than "
                f"the model {model.name}"
            )
            return load_config(TrainingConfig, config, changes, seed), None
    chosen = load_config(TrainingConfig, config, changes, seed, base)
    model.check(chosen)
    return chosen, model


def _describe_start(config: TrainingConfig, dataset: Dataset, model: StartingModel | None) -> str:
    """Say in one line what training starts from, and how many steps it takes."""
    from sppdet.heads.transfer import same_classes

    settled = config.settled(len(dataset), None if model is None else model.config.head).finetune
    source = "random layers"
    if model is not None:
        places = same_classes(model.classes, dataset.classes)
        known = [name for name, at in zip(dataset.classes, places, strict=True) if at is not None]
        named = ", ".join(known) if known else "none of these classes"
        source = f"the model {model.name}, which knows {named}"
    return (
        f"starts from {source}: {settled.steps:,} steps of fine-tuning, "
        f"learning rate {settled.learning_rate:g} at most"
    )


def _load(data: DataSource, run: Path, seed: int) -> tuple[Dataset, Dataset | None]:
    """Load the images to train on, and those to validate on; None where there are none.

    Some are held out where the data has no splits.
    """
    from sppdet.datasets.splits import (
        EVALUATION_SPLITS,
        HELD_OUT_FILE,
        TRAIN_SPLITS,
        choose_split,
        split_of_name,
    )

    opened = data.open(TRAIN_SPLITS)
    holds_out = opened.is_chosen and opened.split is None
    if holds_out and choose_split(opened.raw.splits, EVALUATION_SPLITS) is not None:
        raise DatasetError(
            f"has no split to train on, but {', '.join(opened.raw.splits)}",
            path=data.data,
            hint="name one of them, or all: --split",
        )
    say(opened.describe("training on", holds_out=holds_out))
    dataset = opened.load(whole=True)
    others: str | None = None
    if holds_out:
        rest = hold_out_share(dataset, run, seed)
        others = str(run / HELD_OUT_FILE) if rest is not dataset else None
        dataset = rest
    elif opened.split is not None and split_of_name(opened.split) == "train":
        others = "val"
    dataset = drop_empty_classes(opened.limit(dataset), opened)
    return dataset, None if others is None else _load_validation(opened, others, dataset)


def _load_validation(opened: OpenData, split: str, dataset: Dataset) -> Dataset | None:
    """Load the images of a split that are not trained on, with the classes that are."""
    from sppdet.datasets.build import build_dataset

    try:
        # Where a split was named, the annotations of others may not have been read.
        raw = opened.raw if opened.is_chosen else replace(opened.source, split=split).open().raw
        found = build_dataset(
            raw, split=split, classes=dataset.classes, allow_missing=True, max_lost=1.0
        )
    except (AnnotationError, DatasetError):
        return None
    trained = {sample.path for sample in dataset}
    samples = tuple(sample for sample in found if sample.path not in trained)
    return replace(found, samples=samples) if samples else None


def settings(
    config: ConfigOption = None, changes: SetOption = None, seed: SeedOption = None
) -> None:
    """Print all settings, as a config file with a comment on each."""
    from sppdet.core.settings import to_toml
    from sppdet.training.config import TrainingConfig

    say(to_toml(load_config(TrainingConfig, config, changes, seed)))
