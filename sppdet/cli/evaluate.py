"""`sppdet evaluate`: how good a model, or a set of result files, is on a data set."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sppdet.cli.common import (
    CacheOption,
    ClassesOption,
    ConfigOption,
    DataArgument,
    DataSource,
    DeviceOption,
    ImagesOption,
    LimitOption,
    ModelOption,
    SetOption,
    SplitOption,
    ThreadsOption,
    YearOption,
    costs,
    examples,
    load_detector,
    use_threads,
    warn,
)

if TYPE_CHECKING:
    from sppdet.detector import Detector
    from sppdet.types import Dataset, Detections

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
    of disk an image.

    Writes VOC result files (comp4_det_*) and a report, and prints the table.
    """
    chosen = DataSource(source, split, year, images, classes, limit)
    dataset = chosen.load()
    if results is not None:
        detections = _read_results(results, chosen, dataset)
    else:
        use_threads(threads)
        detector = load_detector(model, device, config, changes)
        _warn_of_known_images(model, dataset)
        start = time.perf_counter()
        detections = _detect(detector, dataset, cache, threads or 0)
        _write_detections(out, chosen, dataset, detections)
        typer.echo(f"{len(dataset)} images detected in {costs(time.perf_counter() - start)}\n")
    as_coco = chosen.is_coco if coco is None else coco
    report = _report(dataset, detections, coco=as_coco, errors=errors, thresholds=thresholds)
    report["source"] = model if results is None else str(results)

    from sppdet.files import atomic_write_json

    atomic_write_json(out / REPORT, report)
    typer.echo(f"\nwritten to {out}")


def _warn_of_known_images(model: str, dataset: Dataset) -> None:
    """Says so if the model has been trained on the images that are to judge it."""
    from sppdet.modelnames import training_sets

    name = dataset.name.partition(",")[0]
    for trained in training_sets(model):
        whole, _, split = trained.partition(",")[0].rpartition(" ")
        parts = ("train", "val", "trainval") if split == "trainval" else (split,)
        if name in {f"{whole} {part}" for part in parts}:
            warn(f"{model} was trained on {trained}: figures on {name} say nothing of new images")


def _detect(
    detector: Detector, dataset: Dataset, cache: Path | None, workers: int
) -> Mapping[str, Detections]:
    from sppdet.batch import detect_dataset
    from sppdet.progress import terminal_progress
    from sppdet.warmup import warm_up

    progress = terminal_progress()
    warm_up(announce=progress.say)
    return detect_dataset(detector, dataset, cache, progress, workers=workers)


def _file_split(source: DataSource) -> str:
    """What the split is called in the names of result files."""
    return source.data.stem if source.is_coco else Path(source.split).stem


def _category_ids(source: DataSource, dataset: Dataset) -> list[int] | None:
    """The COCO file's own category ids, in the order of the classes; None for a VOC folder."""
    if not source.is_coco:
        return None
    categories = json.loads(source.data.read_bytes())["categories"]
    ids = {category["name"]: int(category["id"]) for category in categories}
    return [ids[name] for name in dataset.classes]


def _read_results(results: Path, source: DataSource, dataset: Dataset) -> Mapping[str, Detections]:
    from sppdet.evaluation.coco_files import read_coco_detections
    from sppdet.evaluation.voc_files import read_voc_detections

    if results.suffix.lower() == ".json":
        return read_coco_detections(results, dataset, category_ids=_category_ids(source, dataset))
    return read_voc_detections(results, dataset, split=_file_split(source))


def _write_detections(
    out: Path, source: DataSource, dataset: Dataset, detections: Mapping[str, Detections]
) -> None:
    from sppdet.evaluation.coco_files import write_coco_detections
    from sppdet.evaluation.voc_files import write_voc_detections

    write_voc_detections(out, dataset, detections, split=_file_split(source))
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
    """Prints the tables that were asked for; the same figures as a JSON-able dict."""
    from sppdet.evaluation.coco import evaluate_coco
    from sppdet.evaluation.errors import analyse_errors
    from sppdet.evaluation.report import (
        coco_dict,
        coco_table,
        errors_dict,
        errors_table,
        thresholds_dict,
        thresholds_table,
        voc_dict,
        voc_table,
    )
    from sppdet.evaluation.voc import evaluate_voc

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
        analysis = analyse_errors(dataset, detections)
        typer.echo(f"\n{errors_table(analysis)}")
        report["errors"] = errors_dict(analysis)
    return report
