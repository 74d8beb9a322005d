"""Labeled images for `sppdet classify`: folders of classes, or a VOC data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sppdet.core.types import Dataset, FloatArray, IntArray
from sppdet.datasets import LabeledImages, load_class_folders, load_voc
from sppdet.evaluation.accuracy import evaluate_accuracy
from sppdet.evaluation.classification_report import (
    accuracy_dict,
    accuracy_table,
    classification_dict,
    classification_table,
)
from sppdet.evaluation.voc_classification import (
    class_labels,
    evaluate_voc_classification,
    write_voc_classification,
)

DEFAULT_VOC_SPLIT = "val"


@dataclass(frozen=True)
class FolderData:
    """Images with one class each."""

    images: LabeledImages

    @property
    def name(self) -> str:
        """Name in reports."""
        return self.images.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of scores and labels."""
        return self.images.classes

    @property
    def paths(self) -> tuple[Path, ...]:
        """The image files."""
        return self.images.paths

    def labels(self) -> IntArray:
        """`int64 (N, K)`: 1 for the image's class, else -1."""
        out = np.full((len(self.images), len(self.classes)), -1, np.int64)
        out[np.arange(len(out)), self.images.labels] = 1
        return out

    def evaluate(
        self, scores: Mapping[int, FloatArray], out: Path | None
    ) -> tuple[str, dict[str, Any]]:
        """Measure accuracy: a table for people, and the same for programs."""
        result = evaluate_accuracy(self.images, scores)
        return accuracy_table(result), {"accuracy": accuracy_dict(result)}


@dataclass(frozen=True)
class VocData:
    """Images with any number of classes each."""

    dataset: Dataset
    split: str

    @property
    def name(self) -> str:
        """Name in reports."""
        return self.dataset.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of scores and labels."""
        return self.dataset.classes

    @property
    def paths(self) -> tuple[Path, ...]:
        """The image files."""
        return tuple(sample.path for sample in self.dataset)

    def labels(self) -> IntArray:
        """`int64 (N, K)`: 1, 0 or -1, as `class_labels` gives them."""
        return class_labels(self.dataset)

    def evaluate(
        self, scores: Mapping[int, FloatArray], out: Path | None
    ) -> tuple[str, dict[str, Any]]:
        """Measure AP: a table for people, and the same for programs; result files go to `out`."""
        named = {self.dataset.samples[index].image_id: row for index, row in scores.items()}
        result = evaluate_voc_classification(self.dataset, named)
        if out is not None:
            write_voc_classification(out, self.dataset, named, split=Path(self.split).stem)
        return classification_table(result), {"voc": classification_dict(result)}


def load_labeled_data(
    source: Path, split: str | None, year: int | None, classes: tuple[str, ...] | None = None
) -> FolderData | VocData:
    """Load a folder: a VOC data set if it looks like one, else a folder per class.

    Raises DatasetError or AnnotationError as the readers do, also for classes that are not among
    `classes`.
    """
    if not is_voc(source):
        return FolderData(load_class_folders(source, split, classes=classes))
    split = DEFAULT_VOC_SPLIT if split is None else split
    return VocData(load_voc(source, split, year=year, classes=classes), split)


def is_voc(folder: Path) -> bool:
    """Tell whether a folder, or a folder of a year in it, holds VOC annotations."""
    return any(
        next(folder.glob(pattern), None) is not None
        for pattern in ("Annotations", "VOC*/Annotations", "VOCdevkit/VOC*/Annotations")
    )
