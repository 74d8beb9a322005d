"""`sppdet classify test` and `predict`: accuracy of a classifier, and the classes of images."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sppdet.cli.common import (
    Failures,
    attempt,
    checked_device,
    find_inputs,
    format_cost,
    say,
    use_threads,
)
from sppdet.cli.options import (
    LABELED_SPLIT,
    ClassifierOption,
    DeviceOption,
    FormatOption,
    ImagesArgument,
    ImagesOption,
    LabeledDataArgument,
    MaxPixelsOption,
    RecursiveOption,
    StrictOption,
    ThreadsOption,
    YearOption,
    examples,
)
from sppdet.cli.recording import (
    JsonlOption,
    JsonOption,
    file_results,
    record_errors,
    recording,
)

if TYPE_CHECKING:
    from sppdet.classification.multi_view import ViewSet
    from sppdet.classification.predictor import ImagePredictor
    from sppdet.core.types import FloatArray, ImageArray
    from sppdet.media.sources import ImageSource
    from sppdet.outputs.results import Results

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
    from sppdet.media.sources import ImageSource
    from sppdet.outputs.results import Results

    use_threads(threads)
    predictor = _load(model, views, device)
    opened = DataSource(source, split, format, year, images, strict=strict)
    data = load_labeled_data(opened, EVALUATION_SPLITS, predictor.classes)
    start = time.perf_counter()
    failures: Failures[ImageSource] = Failures()
    sources = [ImageSource(str(path), path) for path in data.paths]
    found = dict(_scores(predictor, sources, failures, Results()))
    scores = {index: found[one] for index, one in enumerate(sources) if one in found}
    say(f"{len(scores)} images in {format_cost(time.perf_counter() - start)}\n")
    table, figures = data.evaluate(scores, out)
    say(table)
    if out is not None:
        from sppdet.core.files import atomic_write_json

        report = {**figures, "model": model, "views": None if views is None else views.value}
        errors = [str(error) for error in failures.errors.values()]
        atomic_write_json(out / REPORT, {**report, "errors": errors})
        say(f"\nwritten to {out}")
    failures.finish(f"of {len(data.paths)} images could not be read")


def predict(
    inputs: ImagesArgument,
    model: ClassifierOption,
    recursive: RecursiveOption = False,
    views: ViewsOption = None,
    top: Annotated[int, typer.Option(min=1, help="Classes shown per image.")] = 3,
    jsonl_file: JsonlOption = None,
    json_file: JsonOption = None,
    max_pixels: MaxPixelsOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Print the classes of images, best first, with probabilities or SVM margins (above 0: likely).

    A file that cannot be read is named, the others are done, and the exit code is 1.
    """
    from sppdet.core.files import sha256
    from sppdet.outputs.journal import Run

    failures: Failures[ImageSource] = Failures()
    sources = find_inputs(inputs, recursive, failures)
    results = file_results(jsonl_file, json_file)
    results.check(sources)
    use_threads(threads)
    predictor = _load(model, views, device)
    run = Run.of({"model": model}, sha256(Path(model).read_bytes()), views and views.value)
    header = {"model": model, "unit": predictor.unit}
    with recording(results, run, sources, header):
        todo = [source for source in sources if results.find(source) is None]
        if len(todo) < len(sources):
            say(f"{len(sources) - len(todo)} of {len(sources)} images were done before")
        for source, scores in _scores(predictor, todo, failures, results, max_pixels):
            order = sorted(range(len(scores)), key=lambda k: -scores[k])
            # An untrained class has no score.
            known = [k for k in order if scores[k] > -float("inf")]
            results.add(source, {"scores": {predictor.classes[k]: float(scores[k]) for k in known}})
            best = ", ".join(f"{predictor.classes[k]} {scores[k]:.3f}" for k in order[:top])
            say(f"{source.name}: {best}")
    for place in results.places:
        say(f"written to {place}")
    failures.finish(f"of {len(sources)} images could not be read")


def _load(model: str, views: ViewNames | None, device: str) -> ImagePredictor:
    from sppdet.classification.predictor import load_predictor

    names: ViewSet | None = None if views is None else views.value
    return load_predictor(model, views=names, device=checked_device(device))


def _scores(
    predictor: ImagePredictor,
    sources: Sequence[ImageSource],
    failures: Failures[ImageSource],
    results: Results,
    max_pixels: int | None = None,
) -> Iterator[tuple[ImageSource, FloatArray]]:
    """Yield each readable image's scores `float32 (K,)`."""
    from sppdet.cli.terminal.progress import terminal_progress
    from sppdet.core.images import MAX_PIXELS
    from sppdet.core.parallel import prefetch

    def read(source: ImageSource) -> ImageArray:
        return source.read(max_pixels=max_pixels or MAX_PIXELS)

    with terminal_progress().task("classifying", len(sources)) as advance:
        outcomes = prefetch(sources, attempt(read))
        for source, image in failures.skip(record_errors(outcomes, results), advance):
            yield source, predictor.scores(image)
