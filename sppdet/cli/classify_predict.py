"""`sppdet classify test` and `predict`: accuracy of a classifier, and the classes of images."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sppdet.cli.common import Failures, attempt, checked_device, format_cost, use_threads
from sppdet.cli.options import (
    LABELED_SPLIT,
    ClassifierOption,
    DeviceOption,
    FormatOption,
    ImagesArgument,
    ImagesOption,
    LabeledDataArgument,
    MaxPixelsOption,
    StrictOption,
    ThreadsOption,
    YearOption,
    examples,
)

if TYPE_CHECKING:
    from sppdet.classification.multi_view import ViewSet
    from sppdet.classification.predictor import ImagePredictor
    from sppdet.core.types import FloatArray, ImageArray

REPORT = "report.json"


class ViewNames(StrEnum):
    """The view sets of `sppdet.classification.multi_view`, known without importing torch."""

    CENTER = "center"
    TEN_CROP = "ten-crop"
    TEN_MAP = "ten-map"
    FULL = "full"
    MULTI = "multi"
    MULTI_FULL = "multi-full"


ViewsOption = Annotated[
    ViewNames | None,
    typer.Option(
        "--views",
        help="Views that a network tests on: one crop, 10 crops, 10 windows of the image's map, "
        "all of it, or 96 windows of six maps, without or with all of it.",
        show_default="full; center for a plain network",
    ),
]


def register(group: typer.Typer) -> None:
    """Add the commands to the group `classify`."""
    group.command(
        name="test",
        epilog=examples(
            (
                "a folder per class",
                "sppdet classify test data/crops --split val --model runs/crops/model.safetensors",
            ),
            (
                "mean AP on Pascal VOC",
                "sppdet classify test VOCdevkit --model runs/svms/model.safetensors",
            ),
            ("the paper's 96 + 2 views", "sppdet classify test photos/ -m FILE --views multi-full"),
        ),
    )(measure)
    group.command(
        epilog=examples(
            ("photos", "sppdet classify predict photos/ --model runs/crops/model.safetensors"),
            ("as JSON", "sppdet classify predict 'trip/*.jpg' -m FILE --json classes.json"),
        )
    )(predict)


def measure(
    source: LabeledDataArgument,
    model: ClassifierOption,
    split: Annotated[
        str | None, typer.Option("--split", help=LABELED_SPLIT, show_default="data set: val")
    ] = None,
    views: ViewsOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help=f"Gets {REPORT}; for VOC data comp2 result files.",
        ),
    ] = None,
    format: FormatOption = None,
    year: YearOption = None,
    images: ImagesOption = None,
    strict: StrictOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Measure accuracy on folders of images, or average precision (AP) on a data set of objects.

    An image that cannot be read is named and counts against the model; the exit code is then 1.
    One that a data set has not, or that is no image, is left out as in `sppdet evaluate`.
    """
    from sppdet.cli.dataset import DataSource
    from sppdet.cli.labeled_data import load_labeled_data
    from sppdet.datasets.splits import EVALUATION_SPLITS

    use_threads(threads)
    predictor = _load(model, views, device)
    opened = DataSource(source, split, format, year, images, strict=strict)
    data = load_labeled_data(opened, EVALUATION_SPLITS, predictor.classes)
    start = time.perf_counter()
    failures: Failures[int] = Failures()
    scores = dict(_scores(predictor, data.paths, failures))
    typer.echo(f"{len(scores)} images in {format_cost(time.perf_counter() - start)}\n")
    table, figures = data.evaluate(scores, out)
    typer.echo(table)
    if out is not None:
        from sppdet.core.files import atomic_write_json

        report = {**figures, "model": model, "views": None if views is None else views.value}
        errors = [str(error) for error in failures.errors.values()]
        atomic_write_json(out / REPORT, {**report, "errors": errors})
        typer.echo(f"\nwritten to {out}")
    failures.finish(f"of {len(data.paths)} images could not be read")


def predict(
    inputs: ImagesArgument,
    model: ClassifierOption,
    views: ViewsOption = None,
    top: Annotated[int, typer.Option(min=1, help="Classes shown per image.")] = 3,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the scores of all classes here."),
    ] = None,
    max_pixels: MaxPixelsOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Print the classes of images, best first, with probabilities or SVM margins (above 0: likely).

    A file that cannot be read is named, the others are done, and the exit code is 1.
    """
    from sppdet.core.images import find_images

    paths = find_images(inputs)
    use_threads(threads)
    predictor = _load(model, views, device)
    failures: Failures[int] = Failures()
    records: dict[int, dict[str, object]] = {}
    for index, scores in _scores(predictor, paths, failures, max_pixels):
        order = sorted(range(len(scores)), key=lambda k: -scores[k])
        best = ", ".join(f"{predictor.classes[k]} {scores[k]:.3f}" for k in order[:top])
        typer.echo(f"{paths[index]}: {best}")
        # An untrained class has no score.
        known = {predictor.classes[k]: float(scores[k]) for k in order if scores[k] > -float("inf")}
        records[index] = {"scores": known}
    if json_file is not None:
        from sppdet.core.files import atomic_write_json

        records |= {index: {"error": str(error)} for index, error in failures.errors.items()}
        images = [{"file": str(path), **records[index]} for index, path in enumerate(paths)]
        atomic_write_json(json_file, {"model": model, "unit": predictor.unit, "images": images})
        typer.echo(f"written to {json_file}")
    failures.finish(f"of {len(paths)} images could not be read")


def _load(model: str, views: ViewNames | None, device: str) -> ImagePredictor:
    from sppdet.classification.predictor import load_predictor

    names: ViewSet | None = None if views is None else views.value
    return load_predictor(model, views=names, device=checked_device(device))


def _scores(
    predictor: ImagePredictor,
    paths: Sequence[Path],
    failures: Failures[int],
    max_pixels: int | None = None,
) -> Iterator[tuple[int, FloatArray]]:
    """Yield the index and scores `float32 (K,)` of each readable image."""
    from sppdet.core.images import MAX_PIXELS, read_image
    from sppdet.core.parallel import prefetch
    from sppdet.core.progress import terminal_progress

    def read(index: int) -> ImageArray:
        return read_image(paths[index], max_pixels=max_pixels or MAX_PIXELS)

    with terminal_progress().task("classifying", len(paths)) as advance:
        outcomes = prefetch(range(len(paths)), attempt(read))
        for index, image in failures.skip(outcomes, advance):
            yield index, predictor.scores(image)
