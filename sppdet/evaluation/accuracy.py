"""Top-1 and top-5 accuracy of whole images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sppdet.core.errors import EvaluationError
from sppdet.core.types import FloatArray, IntArray
from sppdet.datasets import LabeledImages

# The paper's second figure: the right class is among this many best ones.
TOP = 5


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Accuracy on images with one class each.

    Attributes:
        dataset: the images' name.
        classes: class names.
        images, right: number of images per class, and of those in which it comes first.
        top1, top5: shares in [0, 1] of all images; nan where there are none. `top5` is None where
            five are all the classes, or more.
    """

    dataset: str
    classes: tuple[str, ...]
    images: tuple[int, ...]
    right: tuple[int, ...]
    top1: float
    top5: float | None


def evaluate_accuracy(images: LabeledImages, scores: Mapping[int, FloatArray]) -> Accuracy:
    """Compute the accuracy of `scores`: by image index, `float (K,)` in the order of classes.

    An image without scores counts as wrong. Of equal scores the earlier class ranks first.
    Raises EvaluationError for an index that the images lack, scores of another shape, or nan.
    """
    ranks = np.full(len(images), len(images.classes), np.int64)
    for index, found in scores.items():
        if not 0 <= index < len(images):
            raise EvaluationError(f"there is no image {index}", path=images.name)
        if found.shape != (len(images.classes),) or np.isnan(found).any():
            raise EvaluationError(
                f"the scores of {images.paths[index]} are not one number for each class",
                path=images.name,
                hint="check the model that gave them",
            )
        ranks[index] = rank_of(found, int(images.labels[index]))
    counts = np.bincount(images.labels, minlength=len(images.classes))
    right = np.bincount(images.labels[ranks == 0], minlength=len(images.classes))
    return Accuracy(
        dataset=images.name,
        classes=images.classes,
        images=tuple(counts.tolist()),
        right=tuple(right.tolist()),
        top1=_share(ranks, 1),
        top5=_share(ranks, TOP) if len(images.classes) > TOP else None,
    )


def rank_of(scores: FloatArray, label: int) -> int:
    """Count the classes that rank before `label`."""
    earlier = scores[:label] == scores[label]
    return int((scores > scores[label]).sum() + earlier.sum())


def _share(ranks: IntArray, top: int) -> float:
    return float((ranks < top).mean()) if ranks.size else float("nan")
