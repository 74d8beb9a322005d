"""Random data sets and detections, rich in the cases where evaluators disagree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sppdet.core.types import Dataset, Detections, Sample

CLASSES = ("cat", "dog", "person")


def sample_of(
    image_id: str,
    boxes: Sequence[Sequence[float]],
    labels: Sequence[int],
    difficult: Sequence[bool] | None = None,
) -> Sample:
    """A sample of a 500 x 500 image; no object is difficult unless said."""
    return Sample(
        image_id,
        Path(f"{image_id}.jpg"),
        500,
        500,
        np.array(boxes, np.float32),
        np.array(labels, np.int64),
        np.array([False] * len(boxes) if difficult is None else difficult, np.bool_),
    )


def detections_of(
    boxes: Sequence[Sequence[float]],
    scores: Sequence[float],
    labels: Sequence[int],
    classes: tuple[str, ...] = CLASSES,
) -> Detections:
    """Detections from plain lists."""
    return Detections(
        np.array(boxes, np.float32),
        np.array(scores, np.float32),
        np.array(labels, np.int64),
        classes,
    )


def perfect(dataset: Dataset) -> dict[str, Detections]:
    """Detections that are the objects, each with a score of 1."""
    return {
        sample.image_id: Detections(
            sample.boxes, np.ones(len(sample.boxes), np.float32), sample.labels, dataset.classes
        )
        for sample in dataset
    }


def random_case(seed: int) -> tuple[Dataset, dict[str, Detections]]:
    """A data set of 0..5 images and its detections; some images have no entry.

    Every fifth case is one image with 10 objects of one class, so that recall moves in tenths.
    Coordinates are on a coarse grid or, in every third case, arbitrary fractions. Detections copy,
    halve (IoU exactly 0.5) or shift the objects, so that hits, duplicates and ties are frequent.
    """
    rng = np.random.default_rng(seed)
    crowded = seed % 5 == 0
    samples, detections = [], {}
    for i in range(1 if crowded else int(rng.integers(0, 6))):
        n = int(rng.integers(10, 14) if crowded else rng.integers(0, 5))
        boxes = _random_boxes(rng, n, seed)
        labels = rng.integers(0, 1 if crowded else len(CLASSES), n)
        difficult = np.arange(n) >= 10 if crowded else rng.random(n) < 0.2
        samples.append(sample_of(f"{i:06d}", boxes.tolist(), labels.tolist(), difficult.tolist()))
        if rng.random() < 0.9:
            detections[f"{i:06d}"] = _random_detections(rng, boxes, labels, seed)
    return Dataset(f"case {seed}", CLASSES, tuple(samples)), detections


def _random_boxes(rng: np.random.Generator, n: int, seed: int) -> NDArray[np.float32]:
    corner = rng.integers(0, 12, (n, 2)) * 10.0
    size = rng.integers(1, 5, (n, 2)) * 20.0
    if seed % 3 == 0:
        corner, size = corner + rng.random((n, 2)), size + rng.random((n, 2))
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)


def _random_detections(
    rng: np.random.Generator,
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    seed: int,
) -> Detections:
    found, found_labels = [], []
    for box, label in zip(boxes, labels, strict=True):
        for _ in range(int(rng.integers(0, 3))):
            moved = box.copy()
            match int(rng.integers(0, 4)):
                case 1:
                    moved[2] = (box[0] + box[2]) / 2
                case 2:
                    moved[[0, 2]] += rng.integers(-3, 4) * 5
                case 3:
                    moved[[1, 3]] += rng.integers(-3, 4) * 5
            found.append(moved)
            found_labels.append(label if rng.random() < 0.9 else rng.integers(0, len(CLASSES)))
    stray = _random_boxes(rng, int(rng.integers(0, 3)), seed)
    found += list(stray)
    found_labels += rng.integers(0, len(CLASSES), len(stray)).tolist()
    shuffled = rng.permutation(len(found))
    scores = rng.choice([-1.0, -0.25, 0.0, 0.5], len(found))
    if seed % 2:
        scores = rng.normal(size=len(found))
    order = shuffled[np.argsort(-scores[shuffled], kind="stable")]
    return Detections(
        np.array(found, np.float32).reshape(-1, 4)[order],
        scores[order].astype(np.float32),
        np.array(found_labels, np.int64)[order],
        CLASSES,
    )


def sparse_case(seed: int) -> tuple[Dataset, dict[str, Detections]]:
    """A case in which all ways of matching agree: objects of one class never touch.

    Objects stand in cells of a grid, at most one per class and cell. Coordinates and scores are
    arbitrary fractions, so that nothing ties; no object is difficult.
    """
    rng = np.random.default_rng(seed)
    samples, detections = [], {}
    for i in range(int(rng.integers(1, 6))):
        boxes, labels, found, found_labels = [], [], [], []
        for cell in range(9):
            at = np.array([cell % 3, cell // 3] * 2) * 150.0
            for label in np.flatnonzero(rng.random(len(CLASSES)) < 0.3).tolist():
                boxes.append(at + _jittered(rng, 10))
                labels.append(label)
                for spread in rng.choice([2, 10, 25], int(rng.integers(0, 3))):
                    found.append(boxes[-1] + rng.normal(size=4) * spread)
                    found_labels.append(label if rng.random() < 0.7 else int(rng.integers(0, 3)))
            if rng.random() < 0.2:
                found.append(at + _jittered(rng, 30))
                found_labels.append(int(rng.integers(0, len(CLASSES))))
        samples.append(sample_of(f"{i:06d}", np.array(boxes).reshape(-1, 4).tolist(), labels))
        scores = np.sort(rng.random(len(found)))[::-1]
        order = rng.permutation(len(found))
        detections[f"{i:06d}"] = detections_of(
            np.sort(np.array(found).reshape(-1, 2, 2), axis=1).reshape(-1, 4)[order].tolist(),
            scores.tolist(),
            np.array(found_labels, np.int64)[order].tolist(),
        )
    return Dataset(f"sparse {seed}", CLASSES, tuple(samples)), detections


def _jittered(rng: np.random.Generator, spread: float) -> NDArray[np.float64]:
    return np.array([20.0, 20.0, 110.0, 110.0]) + rng.uniform(-spread, spread, 4)
