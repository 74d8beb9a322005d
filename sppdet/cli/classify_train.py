"""`sppdet classify train`, `train-svm` and `settings`; the group of the classifiers' commands."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from sppdet.cli import classify_predict
from sppdet.cli.common import checked_device, format_cost, load_config, use_threads
from sppdet.cli.options import (
    LABELED_SPLIT,
    ConfigOption,
    DescriptionOption,
    DeviceOption,
    FormatOption,
    ImagesOption,
    LabeledDataArgument,
    SeedOption,
    SetOption,
    StrictOption,
    ThreadsOption,
    YearOption,
    examples,
)
from sppdet.cli.terminal.notes import say

RunOption = Annotated[
    Path,
    typer.Option(
        "--run",
        metavar="DIR",
        help="Gets the model and what an interrupted training resumes from.",
        show_default=False,
    ),
]

classify = typer.Typer(no_args_is_help=True, help="Train and use image classifiers.")


def register(app: typer.Typer) -> None:
    """Add the group to `app`."""
    classify_predict.register(classify)
    app.add_typer(classify, name="classify")


@classify.command(
    epilog=examples(
        ("a folder per class", "sppdet classify train photos/ --run runs/photos"),
        (
            "the objects of Pascal VOC, or of a data set of any other format",
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
            metavar="DATA", help="A folder that holds a folder per class.", show_default=False
        ),
    ],
    run: RunOption,
    split: Annotated[
        str | None,
        typer.Option("--split", help="A folder in DATA that holds those of the classes."),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option("--test", help="Another such folder; its error is shown after each epoch."),
    ] = None,
    config: ConfigOption = None,
    changes: SetOption = None,
    seed: SeedOption = None,
    description: DescriptionOption = "",
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Train a network of the paper, or on top of a pretrained one, to tell classes apart.

    Interrupted, the same command goes on where it stopped, and ends in the same model, byte for
    byte; with a higher training.epochs, a finished training goes on.
    """
    from sppdet.classification.config import ClassificationConfig
    from sppdet.cli.labeled_data import load_single_labels

    chosen = load_config(ClassificationConfig, config, changes, seed)
    training = load_single_labels(source, split)
    held_out = None if test is None else load_single_labels(source, test, training.classes)
    use_threads(threads)

    from sppdet.classification.train import train_classifier
    from sppdet.cli.terminal.progress import terminal_progress

    say(f"{training.name}: {len(training)} images, {len(training.classes)} classes")
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
    say(f"{model}: trained in {format_cost(time.perf_counter() - start)}")


@classify.command(
    epilog=examples(
        (
            "Pascal VOC",
            "sppdet classify train-svm VOCdevkit --year 2007 --split train --run runs/svms",
        ),
        ("", "sppdet classify test VOCdevkit --split val --model runs/svms/model.safetensors"),
        ("a folder per class", "sppdet classify train-svm photos/ --run runs/photos"),
        (
            "at several sizes, averaged",
            "sppdet classify train-svm photos/ --run runs/several "
            '--set "features.scales=[224, 300, 392]"',
        ),
        ("all settings", "sppdet classify settings --svm"),
    )
)
def train_svm(
    source: LabeledDataArgument,
    run: RunOption,
    split: Annotated[
        str | None,
        typer.Option("--split", help=LABELED_SPLIT, show_default="data set: train"),
    ] = None,
    format: FormatOption = None,
    year: YearOption = None,
    images: ImagesOption = None,
    strict: StrictOption = None,
    config: ConfigOption = None,
    changes: SetOption = None,
    seed: SeedOption = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache", metavar="DIR", help="Keeps features, by content; runs may share one."
        ),
    ] = None,
    description: DescriptionOption = "",
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Train one linear SVM per class on whole-image features of a pretrained network.

    An image of a data set is an example of every class that it holds an object of.

    Features are kept on disk: interrupted, the same command goes on where it stopped.
    """
    from sppdet.classification.config import SvmClassifierConfig
    from sppdet.cli.dataset import DataSource
    from sppdet.cli.labeled_data import load_labeled_data
    from sppdet.core.model_file import MODEL_FILE
    from sppdet.core.versions import versions
    from sppdet.datasets.splits import TRAIN_SPLITS

    chosen = load_config(SvmClassifierConfig, config, changes, seed)
    opened = DataSource(source, split, format, year, images, strict=strict)
    data = load_labeled_data(opened, TRAIN_SPLITS)
    use_threads(threads)

    from sppdet.classification.svm_classifier import train_svm_classifier
    from sppdet.cli.terminal.progress import terminal_progress

    say(f"{data.name}: {len(data.paths)} images, {len(data.classes)} classes")
    start = time.perf_counter()
    classifier, facts = train_svm_classifier(
        chosen,
        data.classes,
        data.paths,
        data.labels(),
        cache_dir=run / "features" if cache is None else cache,
        progress=terminal_progress(),
        device=checked_device(device),
    )
    provenance = {"dataset": data.name, "seed": chosen.seed, **versions(), **facts}
    model = run / MODEL_FILE
    classifier.save(model, description=description, provenance=provenance)
    say(f"{model}: trained in {format_cost(time.perf_counter() - start)}, C {facts['c']:g}")


@classify.command(
    epilog=examples(
        ("a config file to start from", "sppdet classify settings > mine.toml"),
        ("the settings of SVMs on features", "sppdet classify settings --svm"),
    )
)
def settings(
    svm: Annotated[bool, typer.Option("--svm", help="Those of `classify train-svm`.")] = False,
    config: ConfigOption = None,
    changes: SetOption = None,
    seed: SeedOption = None,
) -> None:
    """Print all settings of a classifier's training, as a config file with a comment on each."""
    from sppdet.classification.config import ClassificationConfig, SvmClassifierConfig
    from sppdet.core.settings import to_toml

    if svm:
        say(to_toml(load_config(SvmClassifierConfig, config, changes, seed)))
    else:
        say(to_toml(load_config(ClassificationConfig, config, changes, seed)))
