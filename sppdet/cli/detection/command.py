"""`sppdet detect`: find objects in images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from sppdet.cli.common import Failures, find_inputs, load_detector, say, use_threads, warn
from sppdet.cli.detection.options import (
    CropsOption,
    CsvOption,
    Mode,
    ModeOption,
    OutFormatOption,
    OutOption,
    ThresholdOption,
    TilesOption,
    make_results,
)
from sppdet.cli.options import (
    THRESHOLD,
    ConfigOption,
    DeviceOption,
    ImagesArgument,
    MaxPixelsOption,
    ModelOption,
    RecursiveOption,
    SetOption,
    ThreadsOption,
    examples,
)
from sppdet.cli.recording import JsonlOption, JsonOption, recording
from sppdet.core.errors import ConfigError

if TYPE_CHECKING:
    from sppdet.cli.detection.batch import Batch
    from sppdet.core.progress import Progress
    from sppdet.detection.detector import Detector
    from sppdet.detection.ensemble import Ensemble
    from sppdet.detection.modes.rcnn import RcnnDetector
    from sppdet.detection.modes.tiles import TiledDetector
    from sppdet.media.sources import ImageSource
    from sppdet.outputs.journal import Run


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        epilog=examples(
            ("one photo, drawn", "sppdet detect cat.jpg --out found/"),
            ("many, and what is done stays done", "sppdet detect photos/ --jsonl found.jsonl"),
            ("as one file", "sppdet detect photos/ 'more/*.png' --json found.json"),
            ("", "sppdet detect photos/ --csv found.csv"),
            ("to correct by hand", "sppdet detect photos/ --out boxes/ --format yolo"),
            ("only what the detector is sure of", "sppdet detect photos/ --threshold 0.9"),
            ("quicker, or better", "sppdet detect photos/ --model fast"),
            ("", "sppdet detect photos/ --model balanced"),
            ("small objects in large photos", "sppdet detect aerial.jpg --tiles 640"),
            ("your own model", "sppdet detect photos/ --model runs/shapes/model.safetensors"),
            ("as R-CNN would, for comparison", "sppdet detect cat.jpg --mode rcnn"),
        )
    )(detect)


def detect(
    inputs: ImagesArgument,
    recursive: RecursiveOption = False,
    model: ModelOption = "default",
    out: OutOption = None,
    format: OutFormatOption = None,
    crops: CropsOption = None,
    jsonl_file: JsonlOption = None,
    json_file: JsonOption = None,
    csv_file: CsvOption = None,
    threshold: ThresholdOption = THRESHOLD,
    max_pixels: MaxPixelsOption = None,
    tiles: TilesOption = None,
    mode: ModeOption = Mode.SPP,
    config: ConfigOption = None,
    changes: SetOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Find objects in images; print them, draw them, or write them in a format of your choice.

    A file that cannot be read is named, the others are done, and the exit code is 1.
    """
    from sppdet.cli.detection.batch import Batch
    from sppdet.cli.terminal.progress import terminal_progress
    from sppdet.core.images import MAX_PIXELS
    from sppdet.core.jit import warm_up
    from sppdet.outputs.records import BOX

    results = make_results(
        out=out, format=format, crops=crops, jsonl=jsonl_file, json=json_file, csv=csv_file
    )
    failures: Failures[ImageSource] = Failures()
    sources = find_inputs(inputs, recursive, failures)
    results.check(sources)
    use_threads(threads)
    progress = terminal_progress()
    loaded = load_detector(model, device, config, changes)
    how = [mode.value, *([] if tiles is None else [f"tiles {tiles}"])]
    run = _identify(loaded, model, how, threshold)
    header = {"model": model, "threshold": threshold, "classes": list(loaded.classes), "box": BOX}
    detector = _in_mode(mode, tiles, loaded, progress)
    batch = Batch(detector, results, threshold, max_pixels or MAX_PIXELS, failures)
    with recording(results, run, sources, header):
        warm_up()
        batch.run(sources, progress)
    _finish(batch, sources, loaded.is_calibrated, model)


def _in_mode(
    mode: Mode, tiles: int | None, detector: Detector | Ensemble, progress: Progress
) -> Detector | Ensemble | RcnnDetector | TiledDetector:
    """Wrap a model for `--tiles` or `--mode rcnn`.

    Raises ConfigError for both at once, and for R-CNN by several models in one.
    """
    if mode is Mode.SPP:
        from sppdet.detection.modes.tiles import TiledDetector

        return detector if tiles is None else TiledDetector(detector, tiles)
    if tiles is not None:
        raise ConfigError("--mode rcnn has no tiles", hint="leave one of them out")
    from sppdet.detection.detector import Detector
    from sppdet.detection.modes.rcnn import RcnnDetector

    if not isinstance(detector, Detector):
        raise ConfigError("--mode rcnn takes one model", hint="name a single one with --model")
    return RcnnDetector(detector, progress=progress)


def _identify(detector: Detector | Ensemble, model: str, how: list[str], threshold: float) -> Run:
    """Say what results depend on: weights, settings and probabilities of each model, and options.

    Where it runs (device, threads) and the cap on pixels are left out: they change no result that
    is worth telling apart.
    """
    from sppdet.detection.kept_detections import detector_key
    from sppdet.outputs.journal import Run

    shown = {"model": model, "threshold": threshold}
    return Run.of(shown, detector_key(model, detector), list(detector.classes), *how)


def _finish(
    batch: Batch, sources: tuple[ImageSource, ...], is_calibrated: bool, model: str
) -> None:
    """Print what was done; leave with exit code 1 where not all of it was."""
    written = [str(place) for place in batch.results.places]
    where = f"; written to {' and '.join(written)}" if written else ""
    before = f" ({batch.before} of them done before)" if batch.before else ""
    say(f"{batch.objects} objects in {batch.done} images{before}{where}")
    if not batch.objects and batch.best > 0:
        warn(
            f"nothing has a score of {batch.threshold:g} or more; the best that there is has"
            f" {batch.best:.2g}: lower --threshold to see it"
        )
    if not is_calibrated:
        say(f"{model} is not calibrated: scores are no probabilities; see sppdet calibrate")
    if batch.undrawn.errors:
        warn(f"pictures of {len(batch.undrawn.errors)} images could not be written")
    batch.unread.finish(f"of {len(sources)} images could not be read")
    if batch.undrawn.errors:
        raise typer.Exit(1)
