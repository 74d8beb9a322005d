"""Results as tables for people (plain text or Markdown) and as JSON-able dicts for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from sppdet.evaluation.accuracy import TOP, Accuracy
from sppdet.evaluation.classification import ClassificationResult
from sppdet.evaluation.coco import CocoResult
from sppdet.evaluation.errors import CAUSES, ClassErrors, ErrorAnalysis
from sppdet.evaluation.proposals import ProposalRecall
from sppdet.evaluation.sizes import SIZE_NAMES, size_bands
from sppdet.evaluation.voc import ClassResult, VocResult

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
    """The share found of the objects of each size of `SIZE_NAMES`; nan where there are none."""
    bands = size_bands(
        np.concatenate([np.zeros(0, np.float32), *(r.object_areas for r in results)])
    )
    found = np.concatenate([np.zeros(0, np.bool_), *(r.found for r in results)])
    return tuple(_share(found[bands == band]) for band in range(len(SIZE_NAMES)))


def voc_table(result: VocResult, *, markdown: bool = False) -> str:
    """One row a class and one of means: AP, final recall, recall by object size, counts."""
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
            *_figures([each.ap11, each.ap_area, each.final_recall, *recall_by_size([each])]),
            str(each.npos),
            str(each.n_detections),
        ]
        for each in result.classes
    ]
    rows.append(
        [
            "mean",
            *_figures([result.map11, result.map_area, _mean_recall(result)]),
            *_figures(recall_by_size(result.classes)),
            str(sum(each.npos for each in result.classes)),
            str(sum(each.n_detections for each in result.classes)),
        ]
    )
    return "\n".join([_table(header, rows, markdown), "", *_voc_notes(result)])


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
    """The figures of `voc_table` under fixed names; null (None) where there is no figure."""
    return {
        "dataset": result.dataset,
        "images": result.n_images,
        "min_iou": result.min_iou,
        "map11": _json(result.map11),
        "map_area": _json(result.map_area),
        "recall": _json(_mean_recall(result)),
        "recall_by_size": _by_size(recall_by_size(result.classes)),
        "left_out": list(result.left_out),
        "classes": {
            each.name: {
                "ap11": _json(each.ap11),
                "ap_area": _json(each.ap_area),
                "recall": _json(each.final_recall),
                "recall_by_size": _by_size(recall_by_size([each])),
                "objects": each.npos,
                "detections": each.n_detections,
            }
            for each in result.classes
        },
    }


def coco_table(result: CocoResult, *, markdown: bool = False) -> str:
    """COCO's twelve figures, one a row."""
    rows = [[text, *_figures([getattr(result, name)])] for name, text in _COCO_FIGURES.items()]
    return _table(["COCO metric", "value"], rows, markdown)


def coco_dict(result: CocoResult, classes: tuple[str, ...]) -> dict[str, Any]:
    """COCO's figures under the names of `CocoResult`; `class_ap` by class name."""
    out: dict[str, Any] = {name: _json(getattr(result, name)) for name in _COCO_FIGURES}
    out["class_ap"] = {n: _json(v) for n, v in zip(classes, result.class_ap, strict=True)}
    return out


def errors_table(analysis: ErrorAnalysis, *, markdown: bool = False) -> str:
    """One row a class and their sum: false positives by cause, missed objects of all by size."""
    header = ["class", "examined", *CAUSES, *(f"missed {size}" for size in SIZE_NAMES)]
    rows = [_error_row(each) for each in (*analysis.classes, analysis.total)]
    note = (
        "Examined: the best-scored false positives of the class. Missed: objects that no"
        " detection found, of all of that size."
    )
    return "\n".join([_table(header, rows, markdown), "", note])


def _error_row(each: ClassErrors) -> list[str]:
    missed = [f"{m} of {n}" for m, n in zip(each.missed, each.objects, strict=True)]
    return [each.name, str(each.n_examined), *(str(n) for n in each.causes), *missed]


def errors_dict(analysis: ErrorAnalysis) -> dict[str, Any]:
    """Counts by class name under `classes`, and their sum under `all`."""
    return {
        "classes": {each.name: _error_counts(each) for each in analysis.classes},
        "all": _error_counts(analysis.total),
    }


def _error_counts(each: ClassErrors) -> dict[str, Any]:
    return {
        "examined": each.n_examined,
        "causes": dict(zip(CAUSES, each.causes, strict=True)),
        "objects": dict(zip(SIZE_NAMES, each.objects, strict=True)),
        "missed": dict(zip(SIZE_NAMES, each.missed, strict=True)),
    }


def proposal_table(results: Sequence[ProposalRecall], *, markdown: bool = False) -> str:
    """One row a result: limit, mean proposals, recall at each threshold, ABO, MABO.

    The results share their thresholds.
    """
    thresholds = results[0].thresholds if results else ()
    header = ["limit", "proposals", *(f"recall {t:g}" for t in thresholds), "ABO", "MABO"]
    rows = [
        [
            "all" if each.limit is None else str(each.limit),
            f"{each.mean_proposals:.0f}",
            *_figures([*each.recall, each.abo, each.mabo]),
        ]
        for each in results
    ]
    return _table(header, rows, markdown)


def proposal_dict(result: ProposalRecall, classes: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a `ProposalRecall`, `recall` by threshold and `class_abo` by class name."""
    out = {
        key: _json(value) if isinstance(value, float) else value
        for key, value in asdict(result).items()
        if key not in ("thresholds", "recall", "class_abo")
    }
    pairs = zip(result.thresholds, result.recall, strict=True)
    out["recall"] = {f"{t:g}": _json(value) for t, value in pairs}
    out["class_abo"] = {n: _json(v) for n, v in zip(classes, result.class_abo, strict=True)}
    return out


def classification_table(result: ClassificationResult, *, markdown: bool = False) -> str:
    """One row a class and one of means: both APs, and the images counted and left out."""
    header = ["class", "AP 11-point", "AP area", "positives", "negatives", "left out"]
    rows = [
        [
            each.name,
            *_figures([each.ap11, each.ap_area]),
            *(str(count) for count in (each.positives, each.negatives, each.left_out)),
        ]
        for each in result.classes
    ]
    rows.append(["mean", *_figures([result.map11, result.map_area]), "", "", ""])
    note = (
        f"{result.dataset}, {result.n_images} images; those with only difficult objects of a class"
        " are left out of its figures."
    )
    return "\n".join([_table(header, rows, markdown), "", note])


def classification_dict(result: ClassificationResult) -> dict[str, Any]:
    """The figures of `classification_table` under fixed names; null (None) where there is none."""
    return {
        "dataset": result.dataset,
        "images": result.n_images,
        "map11": _json(result.map11),
        "map_area": _json(result.map_area),
        "classes": {
            each.name: {
                "ap11": _json(each.ap11),
                "ap_area": _json(each.ap_area),
                "positives": each.positives,
                "negatives": each.negatives,
                "left_out": each.left_out,
            }
            for each in result.classes
        },
    }


def accuracy_table(result: Accuracy, *, markdown: bool = False) -> str:
    """One row a class and one of all: images, those it comes first in, and their share."""
    rows = [
        [name, str(count), str(right), *_figures([right / count if count else math.nan])]
        for name, count, right in zip(result.classes, result.images, result.right, strict=True)
    ]
    rows.append(["all", str(sum(result.images)), str(sum(result.right)), *_figures([result.top1])])
    table = _table(["class", "images", "right", "share"], rows, markdown)
    if result.top5 is None:
        return table
    return f"{table}\n\nAmong the best {TOP}: {_figures([result.top5])[0]}"


def accuracy_dict(result: Accuracy) -> dict[str, Any]:
    """The figures of `accuracy_table` under fixed names; null (None) where there is none."""
    return {
        "dataset": result.dataset,
        "images": sum(result.images),
        "top1": _json(result.top1),
        "top5": None if result.top5 is None else _json(result.top5),
        "classes": {
            name: {"images": count, "right": right}
            for name, count, right in zip(result.classes, result.images, result.right, strict=True)
        },
    }


def _mean_recall(result: VocResult) -> float:
    """Mean over the classes that have objects, as the mean AP is."""
    return _share(np.array([each.final_recall for each in result.classes if each.npos]))


def _share(values: np.ndarray[tuple[int, ...], np.dtype[Any]]) -> float:
    return float(values.mean()) if values.size else float("nan")


def _by_size(values: tuple[float, ...]) -> dict[str, float | None]:
    return {size: _json(value) for size, value in zip(SIZE_NAMES, values, strict=True)}


def _json(value: float) -> float | None:
    return None if math.isnan(value) else value


def _figures(values: Sequence[float]) -> list[str]:
    return ["-" if math.isnan(value) else f"{value:.3f}" for value in values]


def _table(header: list[str], rows: list[list[str]], markdown: bool) -> str:
    """The first column flush left, the others flush right."""
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    lines = [
        [cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(pairs)]
        for pairs in (list(zip(line, widths, strict=True)) for line in (header, *rows))
    ]
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in lines)
    rule = ["-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))
