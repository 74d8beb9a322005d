"""`sppdet calibrate`: fit anew what makes probabilities of a model's margins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sppdet.cli.common import load_detector, use_threads
from sppdet.cli.dataset import DataSource, count_images, match_classes
from sppdet.cli.evaluation.unseen import open_unseen, warn_of_training_images
from sppdet.cli.options import (
    CacheOption,
    ClassesOption,
    ConfigOption,
    DataArgument,
    DeviceOption,
    FormatOption,
    ImagesOption,
    LimitOption,
    ModelOption,
    SetOption,
    SplitOption,
    StrictOption,
    ThreadsOption,
    YearOption,
    examples,
)
from sppdet.cli.terminal.notes import say
from sppdet.core.errors import ConfigError

if TYPE_CHECKING:
    from sppdet.core.types import Dataset
    from sppdet.detection.detector import Detector
    from sppdet.detection.probabilities.calibrate import FittedCalibration

TABLE_SUFFIX = ".toml"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        epilog=examples(
            (
                "your photos instead of VOC's",
                "sppdet calibrate my-data/ --out calibrated.safetensors",
            ),
            (
                "other settings, kept in the new file",
                "sppdet calibrate my-data/ --set proposals.max_proposals=500 --out b.safetensors",
            ),
            (
                "the table of a preset, or of several models",
                "sppdet calibrate VOCdevkit --split val --model accurate --out accurate.toml",
            ),
        )
    )(calibrate)


def calibrate(
    source: DataArgument,
    model: ModelOption = "default",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help=f"Gets the model with its calibration, or as {TABLE_SUFFIX} the table alone.",
            show_default="the table is printed",
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
    cache: CacheOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Make a model's scores probabilities, by its detections on labeled images.

    A score is the probability that the box overlaps an object of its class by an IoU of 0.5 or
    more, on images like these. They must not be those that the model was trained on. A few dozen
    do; classes that have few objects there are drawn towards what all classes have in common.
    """
    from sppdet.cli.terminal.progress import terminal_progress
    from sppdet.core.files import atomic_write_text
    from sppdet.core.jit import warm_up
    from sppdet.detection.detector import Detector
    from sppdet.detection.probabilities.calibrate import calibrate as fit_calibration

    data = DataSource(source, split, format, year, images, classes, strict, limit)
    opened = open_unseen(data, model, ("val",))
    say(opened.describe("calibrating on"))
    use_threads(threads)
    detector = load_detector(model, device, config, changes)
    to_model = out is not None and out.suffix != TABLE_SUFFIX
    if to_model and not isinstance(detector, Detector):
        raise ConfigError(
            "several models are no single file", path=out, hint=f"give a file {TABLE_SUFFIX}"
        )
    dataset = opened.load(match_classes(detector.classes, opened))
    say(count_images(dataset))
    warn_of_training_images(model, opened)
    progress = terminal_progress()
    warm_up()
    fitted = fit_calibration(detector, dataset, cache, progress, workers=threads or 0)
    say(fitted.describe())
    table = fitted.calibration.toml()
    if out is None:
        say(table)
        return
    if to_model and isinstance(detector, Detector):
        _save(out, model, detector, fitted, dataset)
    else:
        atomic_write_text(out, f"{table}\n")
    say(f"written to {out}")


def _save(
    out: Path, model: str, detector: Detector, fitted: FittedCalibration, dataset: Dataset
) -> None:
    """Write a model file like the one that `model` names, calibrated."""
    from sppdet.core.model_file import read_header
    from sppdet.detection.model_zoo import find_members

    header = read_header(find_members(model)[0].path)
    detector.with_calibration(fitted.calibration).save(
        out,
        description=header.description,
        provenance={**header.provenance, "calibration": fitted.provenance(dataset)},
    )
