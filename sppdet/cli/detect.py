"""`sppdet detect`: find objects in images."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sppdet.cli.common import Failures, attempt, load_detector, use_threads, warn
from sppdet.cli.options import (
    THRESHOLD,
    ConfigOption,
    DeviceOption,
    ImagesArgument,
    MaxPixelsOption,
    ModelOption,
    SetOption,
    ThreadsOption,
    examples,
)
from sppdet.core.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from sppdet.core.progress import Progress
    from sppdet.core.types import Detections, ImageArray
    from sppdet.detection.detector import Detector
    from sppdet.detection.ensemble import Ensemble
    from sppdet.detection.rcnn import RcnnDetector

JPEG_QUALITY = 92


class Mode(StrEnum):
    """Source of a region's features: the map of its image, or a map of its own."""

    SPP = "spp"
    RCNN = "rcnn"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        epilog=examples(
            ("one photo, drawn", "sppdet detect cat.jpg --out found/"),
            (
                "a folder and a pattern, as JSON",
                "sppdet detect photos/ 'more/*.png' --json out.json",
            ),
            ("only what the detector is sure of", "sppdet detect photos/ --threshold 0.9"),
            ("quicker, or better", "sppdet detect photos/ --model fast"),
            ("", "sppdet detect photos/ --model balanced"),
            ("your own model", "sppdet detect photos/ --model runs/shapes/model.safetensors"),
            ("as R-CNN would, for comparison", "sppdet detect cat.jpg --mode rcnn"),
        )
    )(detect)


def detect(
    inputs: ImagesArgument,
    model: ModelOption = "default",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Write each image, with its boxes, here."),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write all that was found to this file."),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Show boxes that are right with at least this probability."
        ),
    ] = THRESHOLD,
    max_pixels: MaxPixelsOption = None,
    mode: Annotated[
        Mode,
        typer.Option(
            help="spp pools regions from one map of the image; rcnn warps each to 224 x 224 and"
            " runs the network on it, hundreds of times slower."
        ),
    ] = Mode.SPP,
    config: ConfigOption = None,
    changes: SetOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Find objects in images; print them, draw them, or write them as JSON.

    A file that cannot be read is named, the others are done, and the exit code is 1.
    """
    from sppdet.core.images import MAX_PIXELS, find_images, read_image
    from sppdet.core.jit import warm_up
    from sppdet.core.progress import terminal_progress

    paths = find_images(inputs)
    targets = None if out is None else _targets(out, paths)
    use_threads(threads)
    progress = terminal_progress()
    detector = _in_mode(mode, load_detector(model, device, config, changes), progress)
    warm_up(announce=progress.say)

    def work(path: Path) -> tuple[ImageArray, Detections, float]:
        image = read_image(path, max_pixels=MAX_PIXELS if max_pixels is None else max_pixels)
        start = time.perf_counter()
        return image, detector.detect(image), time.perf_counter() - start

    failures: Failures[Path] = Failures()
    records: dict[Path, dict[str, Any]] = {}
    best = 0.0
    with progress.task("detecting", len(paths)) as advance:
        outcomes = ((path, attempt(work)(path)) for path in paths)
        for path, (image, everything, seconds) in failures.skip(outcomes, advance):
            best = max(best, float(everything.scores.max(initial=0.0)))
            found = everything.above(threshold)
            typer.echo(_format_detections(path, found, seconds))
            records[path] = _record(image, found)
            if targets is not None:
                _write_drawn(targets[path], image, found)
    if json_file is not None:
        records |= {path: {"error": str(error)} for path, error in failures.errors.items()}
        images = [{"file": str(path), **records[path]} for path in paths]
        _write_json(json_file, model, threshold, detector.classes, images)
    written = [str(place) for place in (out, json_file) if place is not None]
    where = f"; written to {' and '.join(written)}" if written else ""
    objects = sum(len(record.get("detections", ())) for record in records.values())
    typer.echo(f"{objects} objects in {len(paths) - len(failures.errors)} images{where}")
    if not objects and best > 0:
        warn(
            f"nothing has a score of {threshold:g} or more; the best that there is has {best:.2g}: "
            "lower --threshold to see it"
        )
    if not detector.is_calibrated:
        typer.echo(f"{model} is not calibrated: scores are no probabilities; see sppdet calibrate")
    failures.finish(f"of {len(paths)} images could not be read")


def _in_mode(
    mode: Mode, detector: Detector | Ensemble, progress: Progress
) -> Detector | Ensemble | RcnnDetector:
    """Wrap a model for `--mode rcnn`; ConfigError for several models in one."""
    if mode is Mode.SPP:
        return detector
    from sppdet.detection.detector import Detector
    from sppdet.detection.rcnn import RcnnDetector

    if not isinstance(detector, Detector):
        raise ConfigError("--mode rcnn takes one model", hint="name a single one with --model")
    return RcnnDetector(detector, progress=progress)


def _targets(folder: Path, paths: Sequence[Path]) -> dict[Path, Path]:
    """Choose a file for each image's drawing: names are kept apart, no input is written over."""
    if any(path.resolve().parent == folder.resolve() for path in paths):
        raise ImageError(
            "holds images to be read", path=folder, hint="name another folder with --out"
        )
    taken: Counter[str] = Counter()
    targets = {}
    for path in paths:
        taken[path.stem] += 1
        number = taken[path.stem]
        targets[path] = folder / (
            f"{path.stem}.jpg" if number == 1 else f"{path.stem}~{number}.jpg"
        )
    return targets


def _format_detections(path: Path, found: Detections, seconds: float) -> str:
    """Format detections, one object per line: class, score, and box in pixels."""
    lines = [f"{path}: {len(found)} found in {seconds:.2f} s"]
    width = max((len(one.name) for one in found), default=0)
    for one in found:
        box = " ".join(f"{v:6.0f}" for v in one.box)
        lines.append(f"  {one.name:<{width}}  {one.score:6.2f}  {box}")
    return "\n".join(lines)


def _record(image: ImageArray, found: Detections) -> dict[str, Any]:
    objects = [
        {"class": one.name, "score": one.score, "margin": one.margin, "box": list(one.box)}
        for one in found
    ]
    return {"width": image.shape[1], "height": image.shape[0], "detections": objects}


def _write_drawn(path: Path, image: ImageArray, found: Detections) -> None:
    from PIL import Image

    from sppdet.core.files import atomic_write_bytes
    from sppdet.detection.visualize import draw_detections

    stream = io.BytesIO()
    Image.fromarray(draw_detections(image, found)).save(stream, "JPEG", quality=JPEG_QUALITY)
    atomic_write_bytes(path, stream.getvalue())


def _write_json(
    path: Path, model: str, threshold: float, classes: Sequence[str], images: list[dict[str, Any]]
) -> None:
    from sppdet.core.files import atomic_write_json

    document = {
        "model": model,
        "threshold": threshold,
        "classes": list(classes),
        "box": "x1, y1, x2, y2 in pixels, from 0, x2 and y2 not included",
        "images": images,
    }
    atomic_write_json(path, document)
