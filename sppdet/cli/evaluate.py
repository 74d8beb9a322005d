"""`sppdet evaluate`: average precision of a model, or of result files, on a data set."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sppdet.cli.dataset import DataSource, count_images
from sppdet.cli.evaluation.detections import (
    ModelOptions,
    detect_with_model,
    find_results,
)
from sppdet.cli.evaluation.provenance import describe_command, describe_data
from sppdet.cli.evaluation.unseen import open_unseen
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
from sppdet.cli.terminal.notes import say
from sppdet.outputs.places import check_folder

if TYPE_CHECKING:
    from sppdet.evaluation.coco_ap import CocoResult
    from sppdet.reports.evaluation_report import Evaluation

TABLES = "report.json"
PAGE = "report.html"


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
    context: typer.Context,
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
        typer.Option(
            "--out", "-o", metavar="DIR", help=f"Gets the detections, {TABLES}, and {PAGE}."
        ),
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

    The classes are those that the model and the data share. An interrupted evaluation goes on where
    it stopped when the same command is given again. --cache keeps proposals and feature maps for
    other models of the same backbone, in about 0.6 MB of disk per image.

    Writes result files (comp4_det_*; COCO's JSON for COCO data), the figures, and a page to look
    at: curves, errors by cause, confusion, the worst images, likely errors of annotation.
    An image that cannot be used is named and left out of all figures; the exit code is then 1.
    """
    from sppdet.core.files import atomic_write_json
    from sppdet.evaluation.coco_ap import evaluate_coco
    from sppdet.reports.evaluation_report import Evaluation, write_evaluation_report

    check_folder(out)
    data = DataSource(source, split, format, year, images, classes, strict, limit)
    opened = open_unseen(data, None if results is not None else model)
    say(opened.describe("evaluating on"))
    if results is not None:
        found = find_results(results, opened)
        say(f"{count_images(found.dataset)}\n")
    else:
        options = ModelOptions(model, config, changes, cache, device, threads)
        found = detect_with_model(options, opened, out)
    evaluation = Evaluation.of(found.dataset, found.detections)
    asked = metric or (Metric.COCO if opened.format == "coco" else Metric.VOC)
    coco = None if asked is Metric.VOC else evaluate_coco(found.dataset, found.detections)
    tables = _report(evaluation, asked, coco, errors=errors, thresholds=thresholds)
    tables["source"] = model if results is None else str(results)
    tables["left_out"] = list(found.left_out)
    atomic_write_json(out / TABLES, tables)
    made = [("command", describe_command(context)), *found.made, *describe_data(opened, found)]
    write_evaluation_report(out / PAGE, evaluation, coco=coco, left_out=found.left_out, made=made)
    say(f"\nwritten to {out}; look at {out / PAGE}")
    found.finish()


def _report(
    evaluation: Evaluation,
    metric: Metric,
    coco: CocoResult | None,
    *,
    errors: bool,
    thresholds: bool,
) -> dict[str, Any]:
    """Print the tables that were asked for; return the same figures as a JSON-able dict."""
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
    from sppdet.evaluation.operating_points import point_of_all

    dataset, voc, calibration = evaluation.dataset, evaluation.voc, evaluation.calibration
    report: dict[str, Any] = {"dataset": dataset.name, "metric": metric.value}
    if metric is not Metric.COCO:
        say(voc_table(voc))
        report["voc"] = voc_dict(voc)
    if thresholds:
        say(f"\n{thresholds_table(voc)}")
        report["thresholds"] = thresholds_dict(voc)
    if coco is not None:
        say(("\n" if report.keys() & {"voc", "thresholds"} else "") + coco_table(coco))
        report["coco"] = coco_dict(coco, dataset.classes)
    if calibration is None:
        say("\nscores outside [0, 1] are no probabilities: no calibration error")
    else:
        point = point_of_all(voc, THRESHOLD)
        say(f"\n{calibration_table(calibration, point)}")
        report["calibration"] = calibration_dict(calibration, point)
    if errors:
        say(f"\n{errors_table(evaluation.errors)}")
        report["errors"] = errors_dict(evaluation.errors)
    return report
