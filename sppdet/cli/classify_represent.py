"""`sppdet classify represent`: linear SVMs on the features of a pretrained network."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sppdet.cli.common import (
    ConfigOption,
    DeviceOption,
    SeedOption,
    SetOption,
    ThreadsOption,
    YearOption,
    checked_device,
    costs,
    examples,
    use_threads,
)
from sppdet.versions import versions

if TYPE_CHECKING:
    from sppdet.classification.representation import SvmClassifierConfig

MODEL_FILE = "model.safetensors"


def register(group: typer.Typer) -> None:
    """Add the commands to the group `classify`."""
    group.command(
        epilog=examples(
            (
                "Pascal VOC",
                "sppdet classify represent VOCdevkit --year 2007 --split train --run runs/svms",
            ),
            ("", "sppdet classify test VOCdevkit --split val --model runs/svms/model.safetensors"),
            ("a folder for each class", "sppdet classify represent photos/ --run runs/photos"),
            (
                "at several sizes, averaged",
                "sppdet classify represent photos/ --run runs/several "
                '--set "representation.scales=[224, 300, 392]"',
            ),
            ("all settings", "sppdet classify represent-settings"),
        )
    )(represent)
    group.command(name="represent-settings")(represent_settings)


def represent(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="A folder that holds a folder a class, or a VOCdevkit or VOC-format folder.",
            show_default=False,
        ),
    ],
    run: Annotated[
        Path,
        typer.Option(
            "--run", metavar="DIR", help="Gets the model and the features.", show_default=False
        ),
    ],
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            help="A folder in DATA that holds those of the classes; VOC: a name in ImageSets/Main.",
            show_default="VOC: train",
        ),
    ] = None,
    year: YearOption = None,
    config: ConfigOption = None,
    changes: SetOption = None,
    seed: SeedOption = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache", metavar="DIR", help="Keeps features, by content; runs may share one."
        ),
    ] = None,
    description: Annotated[
        str, typer.Option("--description", help="One line about the model, kept in its file.")
    ] = "",
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Train one linear SVM a class on whole-image features of a pretrained network.

    Features are kept on disk: interrupted, the same command goes on where it stopped.
    """
    chosen = _settings(config, changes, seed)
    from sppdet.cli.classify_data import is_voc, load_test_data

    if split is None and is_voc(source):
        split = "train"
    data = load_test_data(source, split, year)
    use_threads(threads)

    from sppdet.classification.representation import train_svm_classifier
    from sppdet.progress import terminal_progress

    typer.echo(f"{data.name}: {len(data.paths)} images, {len(data.classes)} classes")
    start = time.perf_counter()
    classifier, facts = train_svm_classifier(
        chosen,
        data.classes,
        data.paths,
        data.labels(),
        cache=run / "features" if cache is None else cache,
        progress=terminal_progress(),
        device=checked_device(device),
    )
    provenance = {"dataset": data.name, "seed": chosen.seed, **versions(), **facts}
    model = run / MODEL_FILE
    classifier.save(model, description=description, provenance=provenance)
    typer.echo(f"{model}: trained in {costs(time.perf_counter() - start)}, C {facts['c']:g}")


def represent_settings(
    config: ConfigOption = None, changes: SetOption = None, seed: SeedOption = None
) -> None:
    """Print all settings of `represent`, as a config file with a comment on each."""
    from sppdet.cli.settings import toml_lines

    typer.echo("\n".join(toml_lines(_settings(config, changes, seed))))


def _settings(
    config: Path | None, changes: list[str] | None, seed: int | None
) -> SvmClassifierConfig:
    from sppdet import settings
    from sppdet.classification.representation import SvmClassifierConfig

    overrides = [*(changes or ()), *([] if seed is None else [f"seed={seed}"])]
    return settings.load(SvmClassifierConfig, config, overrides)
