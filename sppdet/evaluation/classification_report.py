"""Classification results as tables for people and as JSON-able dicts for programs."""

from __future__ import annotations

import math
from typing import Any

from sppdet.evaluation.accuracy import TOP, Accuracy
from sppdet.evaluation.tables import figures, json_number, table
from sppdet.evaluation.voc_classification import ClassificationResult


def classification_table(result: ClassificationResult) -> str:
    """Format a row per class and one of means: both APs, and the images counted and left out."""
    header = ["class", "AP 11-point", "AP area", "positives", "negatives", "left out"]
    rows = [
        [
            each.name,
            *figures([each.ap11, each.ap_area]),
            *(str(count) for count in (each.positives, each.negatives, each.left_out)),
        ]
        for each in result.classes
    ]
    rows.append(["mean", *figures([result.map11, result.map_area]), "", "", ""])
    note = (
        f"{result.dataset}, {result.n_images} images; those with only difficult objects of a class"
        " are left out of its figures."
    )
    return "\n".join([table(header, rows), "", note])


def classification_dict(result: ClassificationResult) -> dict[str, Any]:
    """Collect the figures of `classification_table` under fixed names; None where there is none."""
    return {
        "dataset": result.dataset,
        "images": result.n_images,
        "map11": json_number(result.map11),
        "map_area": json_number(result.map_area),
        "classes": {
            each.name: {
                "ap11": json_number(each.ap11),
                "ap_area": json_number(each.ap_area),
                "positives": each.positives,
                "negatives": each.negatives,
                "left_out": each.left_out,
            }
            for each in result.classes
        },
    }


def accuracy_table(result: Accuracy) -> str:
    """Format a row per class and one of all: images, those it comes first in, and their share."""
    rows = [
        [name, str(count), str(right), *figures([right / count if count else math.nan])]
        for name, count, right in zip(result.classes, result.images, result.right, strict=True)
    ]
    rows.append(["all", str(sum(result.images)), str(sum(result.right)), *figures([result.top1])])
    rendered = table(["class", "images", "right", "share"], rows)
    if result.top5 is None:
        return rendered
    return f"{rendered}\n\nAmong the best {TOP}: {figures([result.top5])[0]}"


def accuracy_dict(result: Accuracy) -> dict[str, Any]:
    """Collect the figures of `accuracy_table` under fixed names; None where there is none."""
    return {
        "dataset": result.dataset,
        "images": sum(result.images),
        "top1": json_number(result.top1),
        "top5": None if result.top5 is None else json_number(result.top5),
        "classes": {
            name: {"images": count, "right": right}
            for name, count, right in zip(result.classes, result.images, result.right, strict=True)
        },
    }
