"""`sppdet classify`: train a classifier on folders of images; the group of its commands."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from sppdet.cli import classify_represent, classify_test
from sppdet.cli.common import (
    ConfigOption,
    DeviceOption,
    SeedOption,
    SetOption,
    ThreadsOption,
    checked_device,
    costs,
    examples,
    use_threads,
)

classify = typer.Typer(no_args_is_help=True, help="Train and use image classifiers.")


def register(app: typer.Typer) -> None:
    """Add the group to `app`."""
    classify_represent.register(classify)
    classify_test.register(classify)
    app.add_typer(classify, name="classify")


@classify.command(
    epilog=examples(
        ("a folder for each class", "sppdet classify train photos/ --run runs/photos"),
        (
            "the objects of Pascal VOC",
            "sppdet data crops VOCdevkit data/crops --split train --split val",
        ),
        ("", "sppdet classify train data/crops --split train --test val --run runs/crops"),
        (
            "at two sizes that take turns",
            'sppdet classify train photos/ --run runs/two --set "training.sizes=[224, 180]"',
        ),
        (
            "only the fully connected layers, over ImageNet's weights",
            "sppdet classify train photos/ --run runs/lite "
            "--set network.backbone=efficientnet_lite0 --set network.pretrained=true "
            "--set network.frozen=true",
        ),
    )
)
def train(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DATA", help="A folder that holds a folder a class.", show_default=False
        ),
    ],
    run: Annotated[
        Path,
        typer.Option(
            "--run",
            metavar="DIR",
            help="Gets the model, the training curves and the state.",
            show_default=False,
        ),
    ],
    split: Annotated[
        str | None,
        typer.Option("--split", help="A folder in DATA that holds those of the classes."),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option("--test", help="Another such folder; its error is told after each epoch."),
    ] = None,
    config: ConfigOption = None,
    changes: SetOption = None,
    seed: SeedOption = None,
    description: Annotated[
        str, typer.Option("--description", help="One line about the model, kept in its file.")
    ] = "",
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Train a network of the paper, or on top of a pretrained one, to tell classes apart.

    Interrupted, the same command goes on where it stopped, and ends in the same model, byte for
    byte; with a higher training.epochs, a finished training goes on.
    """
    from sppdet.classification.config import load_classification_config
    from sppdet.datasets import load_class_folders

    overrides = [*(changes or ()), *([] if seed is None else [f"seed={seed}"])]
    chosen = load_classification_config(config, overrides)
    training = load_class_folders(source, split)
    held_out = None if test is None else load_class_folders(source, test, classes=training.classes)
    use_threads(threads)

    from sppdet.classification.training import train_classifier
    from sppdet.progress import terminal_progress

    typer.echo(f"{training.name}: {len(training)} images, {len(training.classes)} classes")
    start = time.perf_counter()
    model = train_classifier(
        chosen,
        training,
        run,
        validation=held_out,
        progress=terminal_progress(),
        device=checked_device(device),
        description=description,
    )
    typer.echo(f"{model}: trained in {costs(time.perf_counter() - start)}")


@classify.command(
    epilog=examples(("a config file to start from", "sppdet classify settings > mine.toml"))
)
def settings(
    config: ConfigOption = None, changes: SetOption = None, seed: SeedOption = None
) -> None:
    """Print all settings of a classifier's training, as a config file with a comment on each."""
    from sppdet.classification.config import load_classification_config
    from sppdet.cli.settings import toml_lines

    overrides = [*(changes or ()), *([] if seed is None else [f"seed={seed}"])]
    typer.echo("\n".join(toml_lines(load_classification_config(config, overrides))))
