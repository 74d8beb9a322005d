"""`sppdet evaluate`: average precision of a model, or of result files, on a data set."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sppdet.cli.common import format_cost, load_detector, use_threads, warn
from sppdet.cli.dataset import DataSource, OpenData, count_images, match_classes
from sppdet.cli.options import (
    THRESHOLD,
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
from sppdet.cli.result_files import read_results, write_detections

if TYPE_CHECKING:
    from sppdet.core.types import Dataset, Detections

REPORT = "report.json"


class Metric(StrEnum):
    """Whose figures."""

    VOC = "voc"
    COCO = "coco"
    BOTH = "both"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        epilog=examples(
            ("the shipped model on VOC2007", "sppdet evaluate VOCdevkit --year 2007 --split test"),
            ("yours", "sppdet evaluate my-data/ --model runs/mine/model.safetensors"),
            ("result files", "sppdet evaluate VOCdevkit --year 2007 --split test --results found/"),
            ("another tool's", "sppdet evaluate my-data/ --results runs/detect/exp/labels"),
        )
    )(evaluate)


def evaluate(
    source: DataArgument,
    model: ModelOption = "default",
    split: SplitOption = None,
    results: Annotated[
        Path | None,
        typer.Option(
            "--results",
            metavar="PATH",
            help="Use these results, not a model: a folder of comp4 files or of YOLO's text files"
            " with confidences, a COCO .json, or a .csv.",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", help=f"Gets the detections and {REPORT}."),
    ] = Path("runs/evaluate"),
    metric: Annotated[
        Metric | None,
        typer.Option("--metric", help="Whose figures.", show_default="COCO's for COCO data"),
    ] = None,
    errors: Annotated[
        bool, typer.Option("--errors", help="Also tell why detections are wrong.")
    ] = False,
    thresholds: Annotated[
        bool, typer.Option("--thresholds", help="Also tell at which scores to draw the line.")
    ] = False,
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
    """Measure average precision (AP) per class, as the Pascal VOC devkit or COCO's does, and
    whether scores are the probabilities that they claim to be.

    The classes are those that the model and the data share. With --cache, an interrupted
    evaluation goes on where it stopped; that takes about 0.6 MB of disk per image.

    Writes result files (comp4_det_*; COCO's JSON for COCO data) and a report, prints the table.
    """
    data = DataSource(source, split, format, year, images, classes, strict, limit)
    opened = open_unseen(data, None if results is not None else model)
    typer.echo(opened.describe("evaluating on"))
    if results is not None:
        dataset = opened.load()
        typer.echo(f"{count_images(dataset)}\n")
        detections = read_results(results, opened, dataset)
    else:
        from sppdet.core.jit import warm_up
        from sppdet.core.progress import terminal_progress
        from sppdet.detection.dataset_inference import detect_dataset

        use_threads(threads)
        detector = load_detector(model, device, config, changes)
        dataset = opened.load(match_classes(detector.classes, opened))
        typer.echo(count_images(dataset))
        warn_of_training_images(model, opened)
        progress = terminal_progress()
        warm_up(announce=progress.say)
        start = time.perf_counter()
        detections = detect_dataset(detector, dataset, cache, progress, workers=threads or 0)
        write_detections(out, opened, dataset, detections)
        seconds = time.perf_counter() - start
        typer.echo(f"{len(dataset)} images detected in {format_cost(seconds)}\n")
    by_data = Metric.COCO if opened.format == "coco" else Metric.VOC
    report = _report(dataset, detections, metric or by_data, errors=errors, thresholds=thresholds)
    report["source"] = model if results is None else str(results)

    from sppdet.core.files import atomic_write_json

    atomic_write_json(out / REPORT, report)
    typer.echo(f"\nwritten to {out}")


def open_unseen(
    data: DataSource, model: str | None, preferred: Sequence[str] | None = None
) -> OpenData:
    """Read the annotations; choose `val`, else `test`, else what was held out of the training.

    `preferred` are other splits to choose from.
    """
    from sppdet.datasets.splits import EVALUATION_SPLITS, HELD_OUT_FILE, select_images

    opened = data.open(EVALUATION_SPLITS if preferred is None else preferred)
    held_out = None if model is None else Path(model).parent / HELD_OUT_FILE
    if opened.is_chosen and opened.split is None and held_out is not None and held_out.is_file():
        from sppdet.core.errors import DatasetError

        try:
            select_images(opened.raw, str(held_out))
        except DatasetError:  # another data set's
            return opened
        return replace(opened, split=str(held_out))
    return opened


def warn_of_training_images(model: str, opened: OpenData) -> None:
    """Warn if one of the model's networks, or an added class, learned from the data set."""
    from sppdet.datasets.splits import HELD_OUT_FILE
    from sppdet.detection.model_zoo import training_datasets

    name, split = opened.raw.name, opened.split
    if split is not None and Path(split).name == HELD_OUT_FILE:
        return
    for trained in training_datasets(model):
        base, _, part = trained.partition(",")[0].partition(name)
        if base or (part and not part.startswith(" ")):
            continue
        part = part.strip()
        parts = ("train", "val", "trainval") if part == "trainval" else (part,)
        if not part or split is None or split in parts or part.startswith("without "):
            shown = f"{name} {split}" if split is not None else name
            warn(f"{model} was trained on {trained}: figures on {shown} say nothing of new images")


def _report(
    dataset: Dataset,
    detections: Mapping[str, Detections],
    metric: Metric,
    *,
    errors: bool,
    thresholds: bool,
) -> dict[str, Any]:
    """Print the tables that were asked for; return the same figures as a JSON-able dict."""
    from sppdet.evaluation.calibration_error import evaluate_calibration
    from sppdet.evaluation.coco_ap import evaluate_coco
    from sppdet.evaluation.detection_report import (
        calibration_dict,
        calibration_table,
        coco_dict,
        coco_table,
        errors_dict,
        errors_table,
        thresholds_dict,
        thresholds_table,
        voc_dict,
        voc_table,
    )
    from sppdet.evaluation.error_analysis import analyze_errors
    from sppdet.evaluation.operating_points import point_of_all
    from sppdet.evaluation.voc_ap import evaluate_voc

    voc = evaluate_voc(dataset, detections)
    report: dict[str, Any] = {"dataset": dataset.name, "metric": metric.value}
    if metric is not Metric.COCO:
        typer.echo(voc_table(voc))
        report["voc"] = voc_dict(voc)
    if thresholds:
        typer.echo(f"\n{thresholds_table(voc)}")
        report["thresholds"] = thresholds_dict(voc)
    if metric is not Metric.VOC:
        figures = evaluate_coco(dataset, detections)
        typer.echo(("\n" if report.keys() & {"voc", "thresholds"} else "") + coco_table(figures))
        report["coco"] = coco_dict(figures, dataset.classes)
    calibration = evaluate_calibration(dataset, detections)
    if calibration is None:
        typer.echo("\nscores outside [0, 1] are no probabilities: no calibration error")
    else:
        point = point_of_all(voc, THRESHOLD)
        typer.echo(f"\n{calibration_table(calibration, point)}")
        report["calibration"] = calibration_dict(calibration, point)
    if errors:
        analysis = analyze_errors(dataset, detections)
        typer.echo(f"\n{errors_table(analysis)}")
        report["errors"] = errors_dict(analysis)
    return report
