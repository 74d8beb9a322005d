"""From a detector and labeled images that it was not trained on to its calibration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sppdet.core.progress import Progress
from sppdet.core.types import Dataset, Detections
from sppdet.detection.dataset_inference import detect_dataset
from sppdet.detection.detector import Detector
from sppdet.detection.ensemble import Ensemble
from sppdet.detection.probabilities.calibration import Calibration, cross_fitted
from sppdet.evaluation.calibration_error import LEAST_SCORE, calibration_error, label_detections
from sppdet.evaluation.voc_ap import evaluate_voc


class FittedCalibration(NamedTuple):
    """A calibration, and what it comes from.

    Attributes:
        calibration: the fit to all detections.
        images: images with and without detections.
        detections: how many score `LEAST_SCORE` or more; the others tell little.
        error: expected calibration error of these, each scored by a fit to other images; nan where
            there are none.
        ap50: mean AP at IoU 0.5 (area under the curve) on the images, 0 to 1, which a calibration
            does not change; nan where there are no objects.
    """

    calibration: Calibration
    images: int
    detections: int
    error: float
    ap50: float

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Name its values as arrays, for a file."""
        figures = np.array([self.images, self.detections, self.error, self.ap50])
        return {**self.calibration.tensors(), "figures": figures}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> FittedCalibration:
        """Make it of what `arrays` gives."""
        slope, intercept = (arrays[f"calibration.{name}"] for name in ("slope", "intercept"))
        images, detections, error, ap50 = arrays["figures"].tolist()
        return cls(Calibration(slope, intercept), int(images), int(detections), error, ap50)

    def provenance(self, dataset: Dataset) -> dict[str, object]:
        """Collect what a model file says of it."""
        counts = {"images": self.images, "detections": self.detections}
        figures = {"error": self.error, "ap50": self.ap50}
        known = {name: None if np.isnan(value) else value for name, value in figures.items()}
        return {"dataset": dataset.name, **counts, **known}

    def describe(self) -> str:
        """Say in one line what was done."""
        error = "" if np.isnan(self.error) else f"; expected calibration error {self.error:.3f}"
        return (
            f"scores calibrated on {self.images} held-out images,"
            f" {self.detections} detections of score {LEAST_SCORE} or more{error}"
        )


def calibrate(
    detector: Detector | Ensemble,
    dataset: Dataset,
    cache_dir: Path | None,
    progress: Progress,
    *,
    workers: int = 0,
) -> FittedCalibration:
    """Fit the calibration of a detector to its detections on a data set.

    The images should be new to it: on those that it was trained on, margins are higher than they
    will ever be again. Classes that the data set lacks get the common function. Arguments, and what
    is raised, as for `detect_dataset`; EvaluationError for class names that do not fit.
    """
    found = detect_dataset(detector, dataset, cache_dir, progress, workers=workers)
    return fit_detections(detector.classes, dataset, found)


def fit_detections(
    classes: tuple[str, ...], dataset: Dataset, found: Mapping[str, Detections]
) -> FittedCalibration:
    """Fit the calibration of a detector of `classes` to detections (by image id) on a data set."""
    (flat, is_object), count = label_detections(dataset, found), len(classes)
    known = {name: label for label, name in enumerate(classes)}
    own = np.array([known.get(name, -1) for name in dataset.classes], np.int64)[flat.labels]
    data = (flat.margins, own, is_object)
    scores = cross_fitted(*data, flat.images, count)
    return FittedCalibration(
        Calibration.fit(*data, count),
        len(dataset),
        int((scores >= LEAST_SCORE).sum()),
        calibration_error(scores, is_object).error,
        evaluate_voc(dataset, found).map_area,
    )
