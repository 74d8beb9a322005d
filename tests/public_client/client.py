"""A program as users write it: under mypy strict, with nothing but what `sppdet` offers."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import sppdet
from sppdet import (
    Classifier,
    Dataset,
    Detection,
    Detections,
    Detector,
    Ensemble,
    Sample,
    SpatialPyramidPooling,
    SppdetError,
)


def count_objects(photos: list[Path], threshold: float = 0.5) -> dict[str, int]:
    """Count what the shipped model finds in photos, by class."""
    detector = Detector.load()
    counts = dict.fromkeys(detector.classes, 0)
    for photo in photos:
        try:
            found = detector.detect(photo)
        except SppdetError as error:
            print(f"left out: {error.path}: {error.message}")
            continue
        assert_type(found, Detections)
        for one in found.above(threshold):
            assert_type(one, Detection)
            assert_type(one.score, float)
            counts[one.name] += 1
    return counts


def classify(model: Path, photo: Path) -> str:
    """Name the likeliest class of a photo."""
    best = Classifier.load(model).classify(photo)[0]
    assert_type(best.probability, float)
    return best.name


def paths(dataset: Dataset) -> list[Path]:
    """List the images of a data set."""

    def path(sample: Sample) -> Path:
        return sample.path

    return [path(sample) for sample in dataset]


def pooled_size(layer: SpatialPyramidPooling, models: Ensemble) -> tuple[str, int]:
    """Tell the version, and how many classes several models have in common."""
    return f"{sppdet.__version__} {layer}", len(models.classes)
