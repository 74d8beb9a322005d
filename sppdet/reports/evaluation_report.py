"""The report of an evaluation: one page that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader

from sppdet.core.files import atomic_write_bytes
from sppdet.core.types import Dataset, Detections, IntArray
from sppdet.evaluation.calibration_error import (
    BINS,
    CalibrationResult,
    LabeledDetections,
    calibration_error,
    evaluate_calibration,
    label_detections,
)
from sppdet.evaluation.coco_ap import CocoResult
from sppdet.evaluation.confusion import confusion_matrix
from sppdet.evaluation.detection_report import coco_rows, voc_rows
from sppdet.evaluation.error_analysis import (
    CAUSES,
    Causes,
    ErrorAnalysis,
    analyze_errors,
    assign_causes,
)
from sppdet.evaluation.operating_points import best_common_point, best_points
from sppdet.evaluation.tables import figures
from sppdet.evaluation.voc_ap import VocResult, evaluate_voc
from sppdet.reports.error_pictures import ErrorPictures
from sppdet.reports.plots import plot_class, plot_reliability

MAX_PAGE_BYTES = 4_900_000
# Of all JPEGs together at first, before the third that their encoding in text adds.
PICTURE_BYTES = 2_200_000
# Classes that have curves, those with the most objects; so many are 2.5 MB.
MAX_CURVES = 100
# More classes than these have no table of confusion, whose size is their square.
MAX_CONFUSED = 40
TOP_CONFUSIONS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """All figures of detections on a data set.

    `calibration` is None where scores are no probabilities.
    """

    dataset: Dataset
    detections: Mapping[str, Detections]
    voc: VocResult
    calibration: CalibrationResult | None
    causes: Causes
    errors: ErrorAnalysis

    @classmethod
    def of(cls, dataset: Dataset, detections: Mapping[str, Detections]) -> Evaluation:
        """Evaluate `detections` (by image id); EvaluationError where they do not fit."""
        causes = assign_causes(dataset, detections)
        return cls(
            dataset,
            detections,
            evaluate_voc(dataset, detections),
            evaluate_calibration(dataset, detections),
            causes,
            analyze_errors(dataset, causes),
        )

    @property
    def threshold(self) -> float:
        """The threshold of the highest mean F1; infinite where nothing is detected."""
        best = best_common_point(self.voc).threshold
        return float("inf") if np.isnan(best) else best


def write_evaluation_report(
    path: Path,
    evaluation: Evaluation,
    *,
    coco: CocoResult | None = None,
    left_out: Sequence[str] = (),
    made: Sequence[tuple[str, str]] = (),
) -> None:
    """Write the report as one HTML file: curves, errors, confusion, calibration, pictures.

    Equal input gives equal bytes.

    Args:
        path: the file.
        evaluation: the figures.
        coco: COCO's figures, if they are asked for.
        left_out: what no figure includes, a line each.
        made: names and values of the last table, which says how it was made.
    """
    atomic_write_bytes(path, _render(evaluation, coco, left_out, made))


def _render(
    evaluation: Evaluation,
    coco: CocoResult | None,
    left_out: Sequence[str],
    made: Sequence[tuple[str, str]],
) -> bytes:
    """Fill the template; where the page is too large, with smaller pictures."""
    environment = Environment(
        loader=PackageLoader("sppdet.reports"), autoescape=True, trim_blocks=True
    )
    template = environment.get_template("evaluation.html")
    voc = evaluation.voc
    values = {
        "title": f"Evaluation on {voc.dataset}",
        "summary": f"{voc.n_images} images, {sum(one.npos for one in voc.classes)} objects of"
        f" {len(voc.classes)} classes. Mean AP at an IoU of 0.5: {figures([voc.map_area])[0]}"
        f" (area), {figures([voc.map11])[0]} (VOC2007's 11 points).",
        "left_out": left_out,
        "classes": voc_rows(voc),
        "coco": None if coco is None else coco_rows(coco),
        "threshold": figures([evaluation.threshold])[0],
        "curves": _curves(evaluation),
        "curves_left_out": max(0, len(voc.classes) - MAX_CURVES),
        "errors": _error_table(evaluation.errors),
        "confusion": _confusion_table(evaluation),
        "calibration": _calibration(evaluation.calibration),
        "made": made,
    }
    room = PICTURE_BYTES
    while True:
        drawn = ErrorPictures.draw(
            evaluation.dataset, evaluation.causes, evaluation.threshold, room
        )
        text = template.render(values, pictures=drawn)
        # A file's name may have bytes that are no characters.
        page = text.encode("utf-8", "backslashreplace")
        if len(page) <= MAX_PAGE_BYTES or not room:
            return page
        room = max(0, room - (len(page) - MAX_PAGE_BYTES))


def _curves(evaluation: Evaluation) -> list[dict[str, Any]]:
    results = evaluation.voc.classes
    by_objects = sorted(range(len(results)), key=lambda k: -results[k].npos)
    labeled = label_detections(evaluation.dataset, evaluation.detections)
    best = {point.name: point for point in best_points(evaluation.voc)}
    out = []
    for k in sorted(by_objects[:MAX_CURVES]):
        calibration = _class_calibration(evaluation, labeled, k)
        text = f"{results[k].npos} objects, AP {figures([results[k].ap_area])[0]}"
        if results[k].name in best:
            point = best[results[k].name]
            values = figures([point.f1, point.threshold, point.precision, point.recall])
            text += "; best F1 {} at {}: precision {}, recall {}".format(*values)
        if calibration is not None:
            text += f"; calibration error {figures([calibration.error])[0]}"
        bins = None if calibration is None else calibration.bins
        out.append({"name": results[k].name, "text": text, "svg": plot_class(results[k], bins)})
    return out


def _class_calibration(
    evaluation: Evaluation, labeled: LabeledDetections, label: int
) -> CalibrationResult | None:
    if evaluation.calibration is None:
        return None
    own = labeled.detections.labels == label
    return calibration_error(labeled.detections.scores[own], labeled.is_object[own])


def _calibration(result: CalibrationResult | None) -> dict[str, Any] | None:
    if result is None:
        return None
    error, of_all = figures([result.error, result.error_of_all])
    text = (
        f"Expected calibration error {error} ({BINS} bins, scores from {result.bins[1].low:g};"
        f" of all detections {of_all}). Right: an IoU of 0.5 or more with an object of the class."
    )
    return {"svg": plot_reliability(result.bins), "text": text}


def _error_table(analysis: ErrorAnalysis) -> dict[str, Any]:
    rows = []
    for each in (*analysis.classes, analysis.total):
        shades = np.clip(np.nan_to_num(each.gains), 0, 1).tolist()
        cells = zip(each.counts, figures(each.gains), shades, strict=True)
        rows.append({"name": each.name, "cells": list(cells)})
    return {"causes": CAUSES, "rows": rows}


def _confusion_table(evaluation: Evaluation) -> dict[str, Any]:
    dataset = evaluation.dataset
    matrix = confusion_matrix(dataset, evaluation.detections, evaluation.threshold)
    names = [*dataset.classes, "background"]
    shades = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True)) * 0.7
    rows = [
        (name, list(zip(counts, shade, strict=True)))
        for name, counts, shade in zip(names, matrix.tolist(), shades.tolist(), strict=True)
    ]
    is_small = len(dataset.classes) <= MAX_CONFUSED
    return {
        "names": [*dataset.classes, "missed"],
        "rows": rows if is_small else [],
        "top": _top_confusions(matrix[:-1, :-1], dataset.classes),
    }


def _top_confusions(matrix: IntArray, classes: tuple[str, ...]) -> list[str]:
    others = matrix * ~np.eye(len(matrix), dtype=np.bool_)
    order = np.argsort(-others, axis=None, kind="stable")[:TOP_CONFUSIONS]
    pairs = [divmod(int(place), len(classes)) for place in order]
    return [f"{classes[i]} as {classes[j]} ({others[i, j]})" for i, j in pairs if others[i, j]]
