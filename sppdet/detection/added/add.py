"""Adding classes to a detector: learn each, try it on images it did not see, calibrate it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any, NamedTuple

import numpy as np

from sppdet.core.boxes import areas, clip
from sppdet.core.errors import DatasetError, count_noun
from sppdet.core.progress import Progress
from sppdet.core.types import Dataset, Detections, FloatArray, Sample
from sppdet.detection.added.classes import ADDED_LIMITS, KnownClass, check_new_name
from sppdet.detection.added.learning import (
    FEATURE_NORM,
    Learned,
    Mined,
    learn_regressor,
    make_class,
    mine,
    starting_regressor,
)
from sppdet.detection.added.regions import (
    ImageRegions,
    Model,
    as_float32,
    available_features,
    collect_images,
    feature_scales,
    join_features,
)
from sppdet.detection.postprocess import Candidates, postprocess, select_candidates
from sppdet.detection.probabilities.calibration import Calibration
from sppdet.evaluation.calibration_error import label_detections
from sppdet.evaluation.voc_ap import evaluate_voc
from sppdet.heads.added.added_class import AddedClass
from sppdet.heads.head import RegionFeatures

# Parts of the images that are held out in turn, and draws of images for the interval of the AP.
FOLDS, DRAWS, INTERVAL = 5, 200, (5, 95)
# Of fewer images with the class, figures say next to nothing.
FEW_IMAGES = 10


class Trial(NamedTuple):
    """How a class does on images that it was not learned from.

    Attributes:
        ap: average precision at IoU 0.5 (area); nan where it could not be tried.
        low, high: of the AP over draws of images, the middle nine tenths.
        calibration: of its margins.
    """

    ap: float
    low: float
    high: float
    calibration: Calibration


def add_classes(
    detector: Model, dataset: Dataset, progress: Progress
) -> tuple[list[KnownClass], list[Calibration]]:
    """Learn the classes of a data set, to be added to a detector; and the calibration of each.

    Args:
        detector: is not changed.
        dataset: a few images of each class, all objects of the new classes annotated. Objects of
            other classes need not be.
        progress: shows how far it is, and says what was learned.

    Raises:
        ConfigError: the detector has one of the classes already.
        DatasetError: a class has no object.
        ImageError: an image cannot be read.
    """
    for name in dataset.classes:
        check_new_name(name, detector.parts.names.shown())
    counts = np.bincount(
        np.concatenate([np.zeros(0, np.int64), *(one.labels for one in dataset)]),
        minlength=len(dataset.classes),
    )
    for name, count in zip(dataset.classes, counts, strict=True):
        if not count:
            raise DatasetError(f"has no object of {name}", path=dataset.name, hint="annotate some")
    images = collect_images(detector, dataset, progress)
    learner = _Learner(detector, images)
    added, fitted = [], []
    with progress.task("classes", len(dataset.classes)) as advance:
        for label, name in enumerate(dataset.classes):
            model, learned, mined = learner.learn(label)
            trial = learner.trial(label, name, mined)
            info = {
                "data": dataset.name,
                "images": sum(label in one.labels for one in images),
                "objects": int(counts[label]),
                "negatives": learned.negatives,
                "bank_left_out": learned.left_out,
                "ap50": _rounded(trial.ap),
                "interval": [_rounded(trial.low), _rounded(trial.high)],
                "date": date.today().isoformat(),
            }
            progress.say(describe(name, info))
            added.append(KnownClass(name, model, info))
            fitted.append(trial.calibration)
            advance(1)
    return added, fitted


def describe(name: str, info: Mapping[str, Any]) -> str:
    """Say in a line what a class was learned from, and how it does."""
    counts = [count_noun(info[f"{one}s"], one) for one in ("object", "image")]
    text = f"{name}: {' in '.join(counts)}"
    if info["ap50"] is None:
        return f"{text}; of one image alone, how well it is found cannot be told"
    low, high = (100 * one for one in info["interval"])
    text += f"; cross-validated AP50 {100 * info['ap50']:.0f} ({low:.0f} to {high:.0f})"
    few = info["images"] < FEW_IMAGES
    return f"{text}, on too few images to rely on" if few else text


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)


class _Learner:
    """Learns classes from images that all stand in memory."""

    def __init__(self, detector: Model, images: Sequence[ImageRegions]) -> None:
        parts = detector.parts
        self.images, self.rules = images, parts.config.detection
        self.scales = feature_scales(images, available_features(parts.head), FEATURE_NORM)
        self.widths = {name: images[0].features[name].shape[1] for name in self.scales}
        bank = parts.bank
        self.bank = (
            None if bank is None else join_features(bank.features(), self.scales, slice(None))
        )
        self.start = starting_regressor(parts.head, parts.regressors)
        self.fc7_scale = feature_scales(images, ["fc7"], FEATURE_NORM)["fc7"]

    def learn(self, label: int) -> tuple[AddedClass, Learned, Mined]:
        """Learn a class; also how its SVM was learned, and from which regions."""
        mined = mine(self.images, label, self.scales, self.bank)
        learned = mined.solve()
        return self._make(learned, self.images, label), learned, mined

    def _make(self, learned: Learned, images: Sequence[ImageRegions], label: int) -> AddedClass:
        boxes = learn_regressor(images, label, self.start, self.fc7_scale)
        return make_class(learned, self.scales, self.widths, boxes)

    def trial(self, label: int, name: str, mined: Mined) -> Trial:
        """Try a class on each image, learned from the other folds.

        The regions that a fold's SVM is solved on are those that mining found, of its images: to
        mine for each fold anew takes as many times as long.
        """
        showing = [n for n, one in enumerate(self.images) if label in one.labels]
        folds = min(FOLDS, len(showing))
        if folds < 2:
            nan = float("nan")
            return Trial(nan, nan, nan, Calibration.uncalibrated(1))
        fold = np.zeros(len(self.images), np.int64)
        # Each fold has its share of the images that show the class.
        order = np.random.default_rng(0).permutation(len(self.images))
        first = np.isin(order, showing)
        fold[np.concatenate([order[first], order[~first]])] = np.arange(len(order)) % folds
        found: dict[str, Detections] = {}
        samples: list[Sample] = []
        for number in range(folds):
            rest = np.flatnonzero(fold != number).tolist()
            model = self._make(mined.solve(rest), [self.images[n] for n in rest], label)
            for n in np.flatnonzero(fold == number).tolist():
                one = self.images[n]
                sample = _sample_of_class(one, label)
                samples.append(sample)
                found[sample.image_id] = self._detect(model, one, name)
        return _figures(Dataset(name, (name,), tuple(samples)), found)

    def _detect(self, model: AddedClass, image: ImageRegions, name: str) -> Detections:
        """Detect one class among an image's proposals, from their features alone."""
        proposals = slice(len(image.labels), None)
        layers = {k: as_float32(v[proposals]) for k, v in image.features.items()}
        boxes = image.boxes[proposals]
        regions = _stored_regions(layers, boxes, (image.sample.width, image.sample.height))
        scores = model.score(regions)
        rules = self.rules.replace(**ADDED_LIMITS)
        rows, labels = select_candidates(scores, rules)
        moved = clip(model.refine(regions, rows, labels), *regions.size)
        inside = np.flatnonzero(areas(moved) > 0)
        candidates = Candidates(moved[inside], scores[rows, 0][inside], labels[inside])
        return postprocess(candidates, (name,), rules, Calibration.uncalibrated(1))


def _stored_regions(
    layers: Mapping[str, FloatArray], boxes: FloatArray, size: tuple[int, int]
) -> RegionFeatures:
    import torch

    average = None
    if "averages" in layers:
        values = torch.from_numpy(layers["averages"])

        def average(weights: torch.Tensor | None) -> torch.Tensor:
            return values if weights is None else values @ weights

    return RegionFeatures(boxes, size, layers, None, average)


def _sample_of_class(image: ImageRegions, label: int) -> Sample:
    """An image with its objects of one class alone."""
    sample, own = image.sample, image.sample.labels == label
    labels = np.zeros(int(own.sum()), np.int64)
    return replace(
        sample, boxes=sample.boxes[own], labels=labels, difficult=sample.difficult[own], areas=None
    )


def _figures(dataset: Dataset, found: Mapping[str, Detections]) -> Trial:
    ap = evaluate_voc(dataset, found).map_area
    rng, drawn = np.random.default_rng(0), []
    for _ in range(DRAWS):
        chosen = rng.integers(len(dataset), size=len(dataset))
        samples, detections = [], {}
        for number, index in enumerate(chosen.tolist()):
            sample = dataset.samples[index]
            samples.append(replace(sample, image_id=str(number)))
            detections[str(number)] = found[sample.image_id]
        one = evaluate_voc(Dataset(dataset.name, dataset.classes, tuple(samples)), detections)
        drawn.append(one.map_area)
    low, high = np.nanpercentile(drawn, INTERVAL)
    flat, is_object = label_detections(dataset, found)
    calibration = Calibration.fit(flat.margins, flat.labels, is_object, 1)
    return Trial(ap, float(low), float(high), calibration)
