"""Detection results as tables for people and as JSON-able dicts for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sppdet.evaluation.calibration_error import BINS, LEAST_SCORE, CalibrationResult
from sppdet.evaluation.coco_ap import CocoResult
from sppdet.evaluation.error_analysis import CAUSES, ClassErrors, ErrorAnalysis
from sppdet.evaluation.operating_points import OperatingPoint, best_common_point, best_points
from sppdet.evaluation.proposal_recall import ProposalRecall
from sppdet.evaluation.tables import SIZE_NAMES, figures, json_number, size_bands, table
from sppdet.evaluation.voc_ap import ClassResult, VocResult

_COCO_FIGURES = {
    "ap": "AP, IoU 0.50:0.95",
    "ap50": "AP, IoU 0.50",
    "ap75": "AP, IoU 0.75",
    "ap_small": "AP, small",
    "ap_medium": "AP, medium",
    "ap_large": "AP, large",
    "ar1": "recall, 1 detection",
    "ar10": "recall, 10 detections",
    "ar100": "recall, 100 detections",
    "ar_small": "recall, small",
    "ar_medium": "recall, medium",
    "ar_large": "recall, large",
}


def recall_by_size(results: Sequence[ClassResult]) -> tuple[float, ...]:
    """Share of objects found per size of `SIZE_NAMES`; nan where there are none."""
    bands = size_bands(
        np.concatenate([np.zeros(0, np.float32), *(r.object_areas for r in results)])
    )
    found = np.concatenate([np.zeros(0, np.bool_), *(r.found for r in results)])
    return tuple(_share(found[bands == band]) for band in range(len(SIZE_NAMES)))


class Rows(NamedTuple):
    """A table: its header, a row per class and a last one of all, and notes below it."""

    header: list[str]
    rows: list[list[str]]
    notes: list[str]


def voc_rows(result: VocResult) -> Rows:
    """Format a row per class and one of means: AP, final recall, recall by object size, counts."""
    header = [
        "class",
        "AP 11-point",
        "AP area",
        "recall",
        *(f"recall {size}" for size in SIZE_NAMES),
        "objects",
        "detections",
    ]
    rows = [
        [
            each.name,
            *figures([each.ap11, each.ap_area, each.final_recall, *recall_by_size([each])]),
            str(each.npos),
            str(each.n_detections),
        ]
        for each in result.classes
    ]
    rows.append(
        [
            "mean",
            *figures([result.map11, result.map_area, _mean_recall(result)]),
            *figures(recall_by_size(result.classes)),
            str(sum(each.npos for each in result.classes)),
            str(sum(each.n_detections for each in result.classes)),
        ]
    )
    return Rows(header, rows, _voc_notes(result))


def voc_table(result: VocResult) -> str:
    """Format `voc_rows` as text."""
    rows = voc_rows(result)
    return "\n".join([table(rows.header, rows.rows), "", *rows.notes])


def _voc_notes(result: VocResult) -> list[str]:
    notes = [
        f"{result.dataset}, {result.n_images} images, IoU >= {result.min_iou:g}; difficult objects"
        " are not counted. Sizes: small below 32 x 32 pixels, large from 96 x 96; their recall in"
        " the last row is over all objects."
    ]
    if result.left_out:
        notes.append(f"Without objects, and in no mean: {', '.join(result.left_out)}.")
    return notes


def voc_dict(result: VocResult) -> dict[str, Any]:
    """Collect the figures of `voc_table` under fixed names; None where there is none."""
    return {
        "dataset": result.dataset,
        "images": result.n_images,
        "min_iou": result.min_iou,
        "map11": json_number(result.map11),
        "map_area": json_number(result.map_area),
        "recall": json_number(_mean_recall(result)),
        "recall_by_size": _by_size(recall_by_size(result.classes)),
        "left_out": list(result.left_out),
        "classes": {
            each.name: {
                "ap11": json_number(each.ap11),
                "ap_area": json_number(each.ap_area),
                "recall": json_number(each.final_recall),
                "recall_by_size": _by_size(recall_by_size([each])),
                "objects": each.npos,
                "detections": each.n_detections,
            }
            for each in result.classes
        },
    }


def thresholds_table(result: VocResult) -> str:
    """Format a row per class and one of all: the score of the highest F1, and figures there.

    The last row is of the one threshold with the highest mean F1, and of means over the classes.
    """
    points = (*best_points(result), best_common_point(result))
    rows = [[one.name, *figures([one.threshold, *_precision_to_f1(one)])] for one in points]
    return table(["class", "threshold", "precision", "recall", "F1"], rows)


def thresholds_dict(result: VocResult) -> dict[str, Any]:
    """Collect the figures of `thresholds_table`: by class name under `classes`, and under `all`."""
    return {
        "classes": {one.name: _point_dict(one) for one in best_points(result)},
        "all": _point_dict(best_common_point(result)),
    }


def _point_dict(point: OperatingPoint) -> dict[str, float | None]:
    names = ("threshold", "precision", "recall", "f1")
    values = (point.threshold, *_precision_to_f1(point))
    return {name: json_number(value) for name, value in zip(names, values, strict=True)}


def _precision_to_f1(point: OperatingPoint) -> tuple[float, float, float]:
    return point.precision, point.recall, point.f1


def calibration_table(result: CalibrationResult, point: OperatingPoint) -> str:
    """Format a row per bin of scores, the expected error, and figures of all classes at a point."""
    rows = [
        [f"{one.low:.2f} to {one.high:.2f}", str(one.detections), *figures(one[3:])]
        for one in result.bins
    ]
    error, of_all, precision, recall = figures(
        [result.error, result.error_of_all, point.precision, point.recall]
    )
    notes = (
        f"Expected calibration error: {error} ({BINS} bins, detections that score {LEAST_SCORE} or"
        f" more; of all detections: {of_all}). Right: an IoU of 0.5 or more with an object of the"
        " class, a second box on it too.",
        f"At the threshold {point.threshold:g}: precision {precision}, recall {recall}, of all"
        " classes together; a second box on an object is wrong there.",
    )
    return "\n".join([table(["score", "detections", "mean score", "right"], rows), "", *notes])


def calibration_dict(result: CalibrationResult, point: OperatingPoint) -> dict[str, Any]:
    """Collect the figures of `calibration_table` under fixed names; None where there is none."""
    return {
        "error": json_number(result.error),
        "error_of_all": json_number(result.error_of_all),
        "bins": [
            {
                "low": one.low,
                "high": one.high,
                "detections": one.detections,
                "mean_score": json_number(one.mean_score),
                "share_right": json_number(one.share_right),
            }
            for one in result.bins
        ],
        "at_threshold": _point_dict(point),
    }


def coco_rows(result: CocoResult) -> list[list[str]]:
    """Format COCO's twelve figures, a name and a value per row."""
    return [[text, *figures([getattr(result, name)])] for name, text in _COCO_FIGURES.items()]


def coco_table(result: CocoResult) -> str:
    """Format `coco_rows` as text."""
    return table(["COCO metric", "value"], coco_rows(result))


def coco_dict(result: CocoResult, classes: tuple[str, ...]) -> dict[str, Any]:
    """Collect COCO's figures under the names of `CocoResult`; `class_ap` by class name."""
    out: dict[str, Any] = {name: json_number(getattr(result, name)) for name in _COCO_FIGURES}
    out["class_ap"] = {n: json_number(v) for n, v in zip(classes, result.class_ap, strict=True)}
    return out


def errors_table(analysis: ErrorAnalysis) -> str:
    """Format a row per class and one of all: errors by cause, and what AP would gain without."""
    rows = [
        [
            each.name,
            *(f"{n} ({g})" for n, g in zip(each.counts, figures(each.gains), strict=True)),
        ]
        for each in (*analysis.classes, analysis.total)
    ]
    note = (
        "Errors by cause, and in brackets what AP (area) would gain without them (TIDE). Missed:"
        " objects that nothing finds, nor would if it were of the right class or place."
    )
    return "\n".join([table(["class", *CAUSES], rows), "", note])


def errors_dict(analysis: ErrorAnalysis) -> dict[str, Any]:
    """Collect counts and gains in AP by cause: by class name under `classes`, and under `all`."""
    return {
        "classes": {each.name: _error_figures(each) for each in analysis.classes},
        "all": _error_figures(analysis.total),
    }


def _error_figures(each: ClassErrors) -> dict[str, Any]:
    return {
        cause: {"count": count, "ap_gain": json_number(gain)}
        for cause, count, gain in zip(CAUSES, each.counts, each.gains, strict=True)
    }


def proposal_table(results: Sequence[ProposalRecall]) -> str:
    """Format a row per result: limit, mean proposals, recall at each threshold, ABO, MABO.

    The results share their thresholds.
    """
    thresholds = results[0].thresholds if results else ()
    header = ["limit", "proposals", *(f"recall {t:g}" for t in thresholds), "ABO", "MABO"]
    rows = [
        [
            "all" if each.limit is None else str(each.limit),
            f"{each.mean_proposals:.0f}",
            *figures([*each.recall, each.abo, each.mabo]),
        ]
        for each in results
    ]
    return table(header, rows)


def _mean_recall(result: VocResult) -> float:
    """Mean over the classes that have objects, as the mean AP is."""
    return _share(np.array([each.final_recall for each in result.classes if each.npos]))


def _share(values: np.ndarray[tuple[int, ...], np.dtype[Any]]) -> float:
    return float(values.mean()) if values.size else float("nan")


def _by_size(values: tuple[float, ...]) -> dict[str, float | None]:
    return {size: json_number(value) for size, value in zip(SIZE_NAMES, values, strict=True)}
