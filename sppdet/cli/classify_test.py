"""`sppdet classify test` and `predict`: how good a classifier is, and what it makes of images."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sppdet.cli.common import (
    DeviceOption,
    ThreadsOption,
    YearOption,
    checked_device,
    costs,
    examples,
    use_threads,
    warn,
)
from sppdet.errors import SppdetError

if TYPE_CHECKING:
    from sppdet.classification.scorer import ImageScorer
    from sppdet.classification.views import Views
    from sppdet.types import FloatArray, ImageArray

REPORT = "report.json"


class ViewNames(StrEnum):
    """The views of `sppdet.classification.views`, known without importing torch."""

    CENTRE = "centre"
    TEN_CROP = "ten-crop"
    TEN_MAP = "ten-map"
    FULL = "full"
    MULTI = "multi"
    MULTI_FULL = "multi-full"


ClassifierOption = Annotated[
    str,
    typer.Option(
        "--model", "-m", metavar="FILE", help="A classifier's model file.", show_default=False
    ),
]
ViewsOption = Annotated[
    ViewNames | None,
    typer.Option(
        "--views",
        help="How a network looks at an image: one crop, 10 crops, 10 windows of its map, all of "
        "it, or 96 windows of six maps, without or with all of it.",
        show_default="full; centre for a plain network",
    ),
]


def register(group: typer.Typer) -> None:
    """Add the commands to the group `classify`."""
    group.command(
        name="test",
        epilog=examples(
            (
                "a folder for each class",
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
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="A folder that holds a folder a class, or a VOCdevkit or VOC-format folder.",
            show_default=False,
        ),
    ],
    model: ClassifierOption,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            help="A folder in DATA that holds those of the classes; VOC: a name in ImageSets/Main.",
            show_default="VOC: val",
        ),
    ] = None,
    views: ViewsOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help=f"Gets {REPORT}, and VOC's comp2 result files."
        ),
    ] = None,
    year: YearOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Measure accuracy on folders of images, or average precision (AP) on a VOC data set.

    An image that cannot be read is named and counts against the model; the exit code is then 1.
    """
    from sppdet.cli.classify_data import load_test_data

    use_threads(threads)
    scorer = _load(model, views, device)
    data = load_test_data(source, split, year, scorer.classes)
    start = time.perf_counter()
    scores, errors = _score(scorer, data.paths)
    typer.echo(f"{len(scores)} images in {costs(time.perf_counter() - start)}\n")
    table, figures = data.evaluate(scores, out)
    typer.echo(table)
    if out is not None:
        from sppdet.files import atomic_write_json

        report = {**figures, "model": model, "views": None if views is None else views.value}
        atomic_write_json(out / REPORT, {**report, "errors": [str(error) for error in errors]})
        typer.echo(f"\nwritten to {out}")
    _finish(errors, len(data.paths))


def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE..",
            help="Image files, folders of them, or quoted patterns such as 'trip/**/*.jpg'.",
            show_default=False,
        ),
    ],
    model: ClassifierOption,
    views: ViewsOption = None,
    top: Annotated[int, typer.Option(min=1, help="Show so many classes of an image.")] = 3,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the scores of all classes here."),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(min=1, help="Refuse larger images.", show_default="89 million"),
    ] = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Tell the classes of images, best first: with probabilities, or SVM margins (above 0: likely).

    A file that cannot be read is named, the others are done, and the exit code is 1.
    """
    from sppdet.images import find_images

    paths = find_images(inputs)
    use_threads(threads)
    scorer = _load(model, views, device)
    records: list[dict[str, Any]] = []

    def tell(index: int, found: FloatArray) -> None:
        order = sorted(range(len(found)), key=lambda k: -found[k])
        best = ", ".join(f"{scorer.classes[k]} {found[k]:.3f}" for k in order[:top])
        typer.echo(f"{paths[index]}: {best}")
        # An untrained class has no score.
        known = {scorer.classes[k]: float(found[k]) for k in order if found[k] > -float("inf")}
        records.append({"file": str(paths[index]), "scores": known})

    _, errors = _score(scorer, paths, tell, max_pixels)
    if json_file is not None:
        from sppdet.files import atomic_write_json

        failed = [{"file": error.where or "", "error": str(error)} for error in errors]
        document = {"model": model, "unit": scorer.unit, "images": [*records, *failed]}
        atomic_write_json(json_file, document)
        typer.echo(f"written to {json_file}")
    _finish(errors, len(paths))


def _load(model: str, views: ViewNames | None, device: str) -> ImageScorer:
    from sppdet.classification.scorer import load_scorer

    names: Views | None = None if views is None else views.value
    return load_scorer(model, views=names, device=checked_device(device))


def _score(
    scorer: ImageScorer,
    paths: Sequence[Path],
    tell: Callable[[int, FloatArray], None] = lambda index, found: None,
    max_pixels: int | None = None,
) -> tuple[dict[int, FloatArray], list[SppdetError]]:
    """The scores of images by their index, and what is wrong with the others, told at once."""
    from sppdet.images import MAX_PIXELS, read_image
    from sppdet.prefetch import ahead
    from sppdet.progress import terminal_progress

    def read(index: int) -> ImageArray | SppdetError:
        try:
            return read_image(paths[index], max_pixels=max_pixels or MAX_PIXELS)
        except SppdetError as error:
            return error

    scores: dict[int, FloatArray] = {}
    errors: list[SppdetError] = []
    with terminal_progress().task("classifying", len(paths)) as advance:
        for index, image in ahead(range(len(paths)), read):
            if isinstance(image, SppdetError):
                warn(str(image))
                errors.append(image)
            else:
                scores[index] = scorer.scores(image)
                tell(index, scores[index])
            advance(1)
    return scores, errors


def _finish(errors: Sequence[SppdetError], count: int) -> None:
    if errors:
        warn(f"{len(errors)} of {count} images could not be read")
        raise typer.Exit(1)
