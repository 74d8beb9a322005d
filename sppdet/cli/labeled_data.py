"""Labeled images for `sppdet classify`: folders of classes, or a data set of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sppdet.cli.dataset import DataSource
from sppdet.cli.terminal.notes import say
from sppdet.core.errors import DatasetError
from sppdet.core.types import Dataset, FloatArray, IntArray
from sppdet.datasets import LabeledImages, load_class_folders
from sppdet.datasets.formats.folders import is_image, walk
from sppdet.datasets.load import locate
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
class ObjectData:
    """Images with the classes of their objects.

    Attributes:
        dataset: the images.
        result_split: the split in the names of VOC's result files; None where none are written.
    """

    dataset: Dataset
    result_split: str | None

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
        if out is not None and self.result_split is not None:
            write_voc_classification(out, self.dataset, named, split=self.result_split)
        return classification_table(result), {"voc": classification_dict(result)}


def load_labeled_data(
    source: DataSource, preferred: Sequence[str], classes: tuple[str, ...] | None = None
) -> FolderData | ObjectData:
    """Load a data set of objects if there is one, and say what of it is used; else a folder per
    class.

    Args:
        source: its split is a folder where there is a folder per class.
        preferred: the splits to choose from where none is named, as `DataSource.open` takes them.
        classes: the classes to tell apart, in their order; by default those of the data.

    Raises DatasetError or AnnotationError as the readers do.
    """
    # Options of data sets alone: what else lies there is refused by them.
    is_named = (source.format, source.year, source.images) != (None, None, None)
    if not is_named and not holds_objects(source.data):
        return FolderData(load_class_folders(source.data, source.split, classes=classes))
    opened = source.open(preferred)
    say(opened.describe("using"))
    result_split = opened.file_split if opened.format == "voc" else None
    return ObjectData(opened.load(classes), result_split)


def load_single_labels(
    source: Path, split: str | None, classes: Sequence[str] | None = None
) -> LabeledImages:
    """Load a folder per class, as `load_class_folders` does.

    Raises:
        DatasetError: as there; and a data set of objects, which names no class for an image.
    """
    if holds_objects(source):
        raise DatasetError(
            "is a data set of objects, not a folder for each class",
            path=source,
            hint=f"cut the objects out first: sppdet data crops {source} OUT",
        )
    return load_class_folders(source, split, classes=classes)


def holds_objects(source: Path) -> bool:
    """Return whether a folder or file is a data set of objects, of any format."""
    try:
        # Of many images it takes long to find that none of the formats fits.
        if source.is_dir() and all(is_image(name) for one in walk(source) for name in one.files):
            return False
        locate(source)
    except (DatasetError, OSError):
        return False
    return True
