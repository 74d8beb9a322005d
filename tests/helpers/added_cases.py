"""Images of shapes with names that no made detector knows, and detections to be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sppdet.core.types import Dataset, Detections
from sppdet.datasets import load_dataset, make_synthetic_voc
from sppdet.detection.detector import Detector
from tests.helpers.made_detector import make_detector

NEW = ("circle", "hoop", "square", "star", "triangle")
SHAPES = ("circle", "ring", "square", "star", "triangle")


def shapes(folder: Path, count: int = 6) -> Dataset:
    """Images with some of five new classes each."""
    root = make_synthetic_voc(
        folder, train=count, val=0, test=0, width=120, height=90, classes=SHAPES
    )
    return replace(load_dataset(root, "train"), classes=NEW)


def only(dataset: Dataset, *names: str) -> Dataset:
    """The same images with the objects of some classes alone."""
    samples = []
    for one in dataset:
        kept = np.array([dataset.classes[label] in names for label in one.labels], np.bool_)
        labels = [names.index(dataset.classes[label]) for label in one.labels[kept]]
        samples.append(
            replace(
                one,
                boxes=one.boxes[kept],
                labels=np.array(labels, np.int64),
                difficult=one.difficult[kept],
                areas=None,
            )
        )
    return replace(dataset, classes=names, samples=tuple(samples))


def loaded_detector(folder: Path, *overrides: str) -> Detector:
    """A made detector as its file holds it: whose weights have been float16."""
    path = folder / "made.safetensors"
    make_detector(*overrides).save(path, description="made", provenance={"images": 0})
    return Detector.load(path)


def rows(found: Detections, classes: Sequence[str]) -> list[tuple[Any, ...]]:
    """What was found of some classes, to the last bit, in its order."""
    return [(one.name, one.score, one.margin, *one.box) for one in found if one.name in classes]
