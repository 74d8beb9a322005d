"""`sppdet detect`: find objects in images."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sppdet.cli.common import (
    ConfigOption,
    DeviceOption,
    ModelOption,
    SetOption,
    ThreadsOption,
    examples,
    load_detector,
    use_threads,
    warn,
)
from sppdet.errors import ImageError, SppdetError

if TYPE_CHECKING:
    from sppdet.detector import Detector
    from sppdet.progress import Progress
    from sppdet.types import Detections, ImageArray

JPEG_QUALITY = 92


class Mode(StrEnum):
    """How a region comes by its features."""

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
            ("only what the detector is sure of", "sppdet detect photos/ --threshold 0.5"),
            ("your own model", "sppdet detect photos/ --model runs/shapes/model.safetensors"),
            ("as R-CNN would, for comparison", "sppdet detect cat.jpg --mode rcnn"),
        )
    )(detect)


def detect(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE..",
            help="Image files, folders of them, or quoted patterns such as 'trip/**/*.jpg'.",
            show_default=False,
        ),
    ],
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
        float | None,
        typer.Option(
            help="Show what scores at least this (above 0 is likely right).",
            show_default="the model's own",
        ),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(min=1, help="Refuse larger images.", show_default="89 million"),
    ] = None,
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
    from sppdet.images import find_images
    from sppdet.progress import terminal_progress
    from sppdet.warmup import warm_up

    paths = find_images(inputs)
    targets = None if out is None else _targets(out, paths)
    use_threads(threads)
    detector = load_detector(model, device, config, changes)
    least = detector.config.detection.display_threshold if threshold is None else threshold
    progress = terminal_progress()
    warm_up(announce=progress.say)
    detects = _in_mode(mode, detector, progress)
    records: list[dict[str, Any]] = []
    with progress.task("detect", len(paths)) as advance:
        for path in paths:
            try:
                image = _read(path, max_pixels)
                start = time.perf_counter()
                found = detects(image).above(least)
            except SppdetError as error:
                warn(str(error))
                records.append({"file": str(path), "error": str(error)})
            else:
                typer.echo(_told(path, found, time.perf_counter() - start))
                records.append(_record(path, image, found))
                if targets is not None:
                    _write_drawn(targets[path], image, found)
            advance(1)
    if json_file is not None:
        _write_json(json_file, model, least, detector.classes, records)
    _finish(records, out, json_file)


def _in_mode(
    mode: Mode, detector: Detector, progress: Progress
) -> Callable[[ImageArray], Detections]:
    """What finds the objects of an image."""
    if mode is Mode.SPP:
        return detector.detect
    from sppdet.rcnn import RcnnDetector

    return RcnnDetector(detector, progress=progress).detect


def _read(path: Path, max_pixels: int | None) -> ImageArray:
    from sppdet.images import MAX_PIXELS, read_image

    return read_image(path, max_pixels=MAX_PIXELS if max_pixels is None else max_pixels)


def _targets(folder: Path, paths: Sequence[Path]) -> dict[Path, Path]:
    """Where each image's drawing goes: names are kept apart, and no input is written over."""
    if any(path.resolve().parent == folder.resolve() for path in paths):
        raise ImageError(
            "holds images to be read", where=folder, mend="name another folder with --out"
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


def _told(path: Path, found: Detections, seconds: float) -> str:
    """What was found, one object a line: class, score, and box in pixels."""
    lines = [f"{path}: {len(found)} found in {seconds:.2f} s"]
    width = max((len(one.name) for one in found), default=0)
    for one in found:
        box = " ".join(f"{v:6.0f}" for v in one.box)
        lines.append(f"  {one.name:<{width}}  {one.score:6.2f}  {box}")
    return "\n".join(lines)


def _record(path: Path, image: ImageArray, found: Detections) -> dict[str, Any]:
    return {
        "file": str(path),
        "width": image.shape[1],
        "height": image.shape[0],
        "detections": [
            {"class": one.name, "score": one.score, "box": list(one.box)} for one in found
        ],
    }


def _write_drawn(path: Path, image: ImageArray, found: Detections) -> None:
    from PIL import Image

    from sppdet.files import atomic_write_bytes
    from sppdet.visualise import draw

    stream = io.BytesIO()
    Image.fromarray(draw(image, found)).save(stream, "JPEG", quality=JPEG_QUALITY)
    atomic_write_bytes(path, stream.getvalue())


def _write_json(
    path: Path, model: str, threshold: float, classes: Sequence[str], records: list[dict[str, Any]]
) -> None:
    from sppdet.files import atomic_write_json

    atomic_write_json(
        path,
        {
            "model": model,
            "threshold": threshold,
            "classes": list(classes),
            "box": "x1, y1, x2, y2 in pixels, from 0, x2 and y2 not included",
            "images": records,
        },
    )


def _finish(records: list[dict[str, Any]], out: Path | None, json_file: Path | None) -> None:
    """Say what was done, and leave with 1 if a file was bad."""
    failed = sum("error" in record for record in records)
    objects = sum(len(record.get("detections", ())) for record in records)
    written = [str(place) for place in (out, json_file) if place is not None]
    where = f"; written to {' and '.join(written)}" if written else ""
    typer.echo(f"{objects} objects in {len(records) - failed} images{where}")
    if failed:
        warn(f"{failed} of {len(records)} images could not be read")
        raise typer.Exit(1)
