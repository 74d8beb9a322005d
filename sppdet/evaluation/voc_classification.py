"""The VOC classification task: AP per class of the classes in an image, and result files.

An image is a positive of a class if it holds an object of it that is not difficult, and left out
of that class's figures if it holds difficult ones only (VOC devkit documentation, classification
task). A result file, `comp2_cls_<split>_<class>.txt`, has a line `<image id> <score>` for
every image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sppdet.core.errors import EvaluationError
from sppdet.core.files import atomic_write_text
from sppdet.core.types import Dataset, FloatArray, IntArray
from sppdet.evaluation.voc_ap import area_ap, eleven_point_ap

# Trained on anything but VOC test, as is everything pretrained on ImageNet.
COMPETITION = "comp2"

PRESENT, ONLY_DIFFICULT, ABSENT = 1, 0, -1


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """Average precision of one class, and the images that count.

    Attributes:
        name: the class.
        ap11, ap_area: average precision in [0, 1]; nan where no image is a positive.
        positives, negatives: images with an object that is not difficult, and without any.
        left_out: images with difficult objects only.
    """

    name: str
    ap11: float
    ap_area: float
    positives: int
    negatives: int
    left_out: int


@dataclass(frozen=True, slots=True)
class ClassificationResult:
    """Average precision of a data set, per class and mean.

    Attributes:
        dataset: the data set's name.
        n_images: images evaluated.
        classes: one entry per class, in the data set's order.
        map11, map_area: means over the classes that have positives; nan if none has.
    """

    dataset: str
    n_images: int
    classes: tuple[ClassFigures, ...]
    map11: float
    map_area: float


def class_labels(dataset: Dataset) -> IntArray:
    """`int64 (N, K)`: 1 where an image holds a class, 0 where only difficult objects, else -1.

    The 0 marks what the VOC protocol leaves out, in testing; training may count it as it likes.
    """
    labels = np.full((len(dataset), len(dataset.classes)), ABSENT, np.int64)
    for row, sample in zip(labels, dataset, strict=True):
        row[sample.labels[sample.difficult]] = ONLY_DIFFICULT
        row[sample.labels[~sample.difficult]] = PRESENT
    return labels


def evaluate_voc_classification(
    dataset: Dataset, scores: Mapping[str, FloatArray]
) -> ClassificationResult:
    """Compute the VOC figures of `scores`: by image id, `float (K,)` in the order of the classes.

    An image without scores ranks behind all others, as in the devkit. Equal scores keep the order
    of the data set.

    Raises:
        EvaluationError: an image that the data set lacks, scores of another shape, or a score
            that is nan or plus infinity.
    """
    table = _score_table(dataset, scores)
    labels = class_labels(dataset)
    classes = tuple(
        _class_figures(name, labels[:, k], table[:, k]) for k, name in enumerate(dataset.classes)
    )
    scored = [each for each in classes if each.positives]
    return ClassificationResult(
        dataset=dataset.name,
        n_images=len(dataset),
        classes=classes,
        map11=float(np.mean([each.ap11 for each in scored])) if scored else math.nan,
        map_area=float(np.mean([each.ap_area for each in scored])) if scored else math.nan,
    )


def _class_figures(name: str, labels: IntArray, scores: FloatArray) -> ClassFigures:
    counted = labels != ONLY_DIFFICULT
    order = np.argsort(-scores[counted], kind="stable")
    present = labels[counted][order] == PRESENT
    tp = np.cumsum(present, dtype=np.int64)
    positives = int(present.sum())
    return ClassFigures(
        name=name,
        ap11=eleven_point_ap(tp, positives),
        ap_area=area_ap(tp, positives),
        positives=positives,
        negatives=len(present) - positives,
        left_out=len(labels) - len(present),
    )


def _score_table(dataset: Dataset, scores: Mapping[str, FloatArray]) -> FloatArray:
    """Check scores and stack them, `float32 (N, K)`; minus infinity for images without."""
    unknown = scores.keys() - {sample.image_id for sample in dataset}
    if unknown:
        raise EvaluationError(
            f"image {min(unknown)} is not in the data set",
            path=dataset.name,
            hint="evaluate on the split that the scores are of",
        )
    table = np.full((len(dataset), len(dataset.classes)), -np.inf, np.float32)
    for row, sample in zip(table, dataset, strict=True):
        if sample.image_id not in scores:
            continue
        values = np.asarray(scores[sample.image_id], np.float32)
        if values.shape != row.shape:
            raise EvaluationError(
                f"image {sample.image_id} has scores of shape {values.shape}",
                path=dataset.name,
                hint=f"give one score for each of the {len(row)} classes",
            )
        if np.isnan(values).any() or (values == np.inf).any():
            raise EvaluationError(
                f"image {sample.image_id} has a score that is nan or infinite",
                path=dataset.name,
                hint="check the model that gave it",
            )
        row[:] = values
    return table


def write_voc_classification(
    folder: Path, dataset: Dataset, scores: Mapping[str, FloatArray], *, split: str
) -> tuple[Path, ...]:
    """Write a result file per class, a line for every image with scores; their paths.

    Raises EvaluationError as `evaluate_voc_classification`, and for a name that does not fit.
    """
    table = _score_table(dataset, scores)
    for part in (split, *dataset.classes, *(sample.image_id for sample in dataset)):
        if part.split() != [part] or set(part) & set("/\\\0"):
            raise EvaluationError(
                f"{part!r} cannot stand in a VOC result file", path=dataset.name, hint="rename it"
            )
    paths = []
    for k, name in enumerate(dataset.classes):
        lines = [
            f"{sample.image_id} {np.format_float_positional(value, unique=True, min_digits=6)}\n"
            for sample, value in zip(dataset, table[:, k], strict=True)
            if value > -np.inf
        ]
        paths.append(folder / f"{COMPETITION}_cls_{split}_{name}.txt")
        atomic_write_text(paths[-1], "".join(lines))
    return tuple(paths)
