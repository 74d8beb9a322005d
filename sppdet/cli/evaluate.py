"""`sppdet evaluate`: average precision of a model, or of result files, on a data set."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sppdet.cli.common import DataSource, format_cost, load_detector, use_threads, warn
from sppdet.cli.options import (
    CacheOption,
    ClassesOption,
    ConfigOption,
    DataArgument,
    DeviceOption,
    ImagesOption,
    LimitOption,
    ModelOption,
    SetOption,
    SplitOption,
    ThreadsOption,
    YearOption,
    examples,
)

if TYPE_CHECKING:
    from sppdet.core.types import Dataset, Detections

REPORT = "report.json"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        epilog=examples(
            ("the shipped model on VOC2007", "sppdet evaluate VOCdevkit --year 2007 --split test"),
            ("yours", "sppdet evaluate data/shapes --model runs/shapes/model.safetensors"),
            ("result files", "sppdet evaluate VOCdevkit --year 2007 --split test --results found/"),
            ("a COCO file", "sppdet evaluate val.json --images photos/ --model mine.safetensors"),
        )
    )(evaluate)


def evaluate(
    source: DataArgument,
    model: ModelOption = "default",
    split: SplitOption = "val",
    results: Annotated[
        Path | None,
        typer.Option(
            "--results",
            metavar="PATH",
            help="Use these results, not a model: a folder of comp4 files, or a COCO .json.",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", help=f"Gets the detections and {REPORT}."),
    ] = Path("runs/evaluate"),
    coco: Annotated[
        bool | None,
        typer.Option("--coco/--no-coco", help="COCO's figures too.", show_default="a COCO file's"),
    ] = None,
    errors: Annotated[
        bool, typer.Option("--errors", help="Also tell why detections are wrong.")
    ] = False,
    thresholds: Annotated[
        bool, typer.Option("--thresholds", help="Also tell at which scores to draw the line.")
    ] = False,
    year: YearOption = None,
    images: ImagesOption = None,
    classes: ClassesOption = None,
    limit: LimitOption = None,
    config: ConfigOption = None,
    changes: SetOption = None,
    cache: CacheOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Measure average precision (AP), class by class, as the Pascal VOC devkit does.

    With --cache, an interrupted evaluation goes on where it stopped; that takes about 0.6 MB
    of disk per image.

    Writes VOC result files (comp4_det_*) and a report, and prints the table.
    """
    chosen = DataSource(source, split, year, images, classes, limit)
    dataset = chosen.load()
    if results is not None:
        detections = _read_results(results, chosen, dataset)
    else:
        from sppdet.core.jit import warm_up
        from sppdet.core.progress import terminal_progress
        from sppdet.detection.dataset_inference import detect_dataset

        use_threads(threads)
        detector = load_detector(model, device, config, changes)
        _warn_of_training_images(model, dataset)
        progress = terminal_progress()
        warm_up(announce=progress.say)
        start = time.perf_counter()
        detections = detect_dataset(detector, dataset, cache, progress, workers=threads or 0)
        _write_detections(out, chosen, dataset, detections)
        seconds = time.perf_counter() - start
        typer.echo(f"{len(dataset)} images detected in {format_cost(seconds)}\n")
    as_coco = chosen.is_coco if coco is None else coco
    report = _report(dataset, detections, coco=as_coco, errors=errors, thresholds=thresholds)
    report["source"] = model if results is None else str(results)

    from sppdet.core.files import atomic_write_json

    atomic_write_json(out / REPORT, report)
    typer.echo(f"\nwritten to {out}")


def _warn_of_training_images(model: str, dataset: Dataset) -> None:
    """Warn if one of the model's networks was trained on images of the data set."""
    from sppdet.detection.model_zoo import training_datasets

    name = dataset.name.partition(",")[0]
    for trained in training_datasets(model):
        whole, _, split = trained.partition(",")[0].rpartition(" ")
        parts = ("train", "val", "trainval") if split == "trainval" else (split,)
        if name in {f"{whole} {part}" for part in parts}:
            warn(f"{model} was trained on {trained}: figures on {name} say nothing of new images")


def _category_ids(source: DataSource, dataset: Dataset) -> list[int] | None:
    """List the COCO file's own category ids, in the order of the classes; None for a VOC folder."""
    if not source.is_coco:
        return None
    categories = json.loads(source.data.read_bytes())["categories"]
    ids = {category["name"]: int(category["id"]) for category in categories}
    return [ids[name] for name in dataset.classes]


def _read_results(results: Path, source: DataSource, dataset: Dataset) -> Mapping[str, Detections]:
    from sppdet.evaluation.coco_results import read_coco_detections
    from sppdet.evaluation.voc_results import read_voc_detections

    if results.suffix.lower() == ".json":
        return read_coco_detections(results, dataset, category_ids=_category_ids(source, dataset))
    return read_voc_detections(results, dataset, split=source.file_split)


def _write_detections(
    out: Path, source: DataSource, dataset: Dataset, detections: Mapping[str, Detections]
) -> None:
    from sppdet.evaluation.coco_results import write_coco_detections
    from sppdet.evaluation.voc_results import write_voc_detections

    write_voc_detections(out, dataset, detections, split=source.file_split)
    if source.is_coco:
        ids = _category_ids(source, dataset)
        write_coco_detections(out / "detections.json", dataset, detections, category_ids=ids)


def _report(
    dataset: Dataset,
    detections: Mapping[str, Detections],
    *,
    coco: bool,
    errors: bool,
    thresholds: bool,
) -> dict[str, Any]:
    """Print the tables that were asked for; return the same figures as a JSON-able dict."""
    from sppdet.evaluation.coco_ap import evaluate_coco
    from sppdet.evaluation.detection_report import (
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
    from sppdet.evaluation.voc_ap import evaluate_voc

    voc = evaluate_voc(dataset, detections)
    typer.echo(voc_table(voc))
    report: dict[str, Any] = {"voc": voc_dict(voc)}
    if thresholds:
        typer.echo(f"\n{thresholds_table(voc)}")
        report["thresholds"] = thresholds_dict(voc)
    if coco:
        figures = evaluate_coco(dataset, detections)
        typer.echo(f"\n{coco_table(figures)}")
        report["coco"] = coco_dict(figures, dataset.classes)
    if errors:
        analysis = analyze_errors(dataset, detections)
        typer.echo(f"\n{errors_table(analysis)}")
        report["errors"] = errors_dict(analysis)
    return report
