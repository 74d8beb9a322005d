"""Calibrated detectors: fitted to labeled images, kept in files, as presets and as ensembles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sppdet.core.errors import ModelFormatError
from sppdet.core.model_file import load_model, save_model
from sppdet.core.progress import NullProgress
from sppdet.core.types import Dataset, Detections, Sample
from sppdet.detection.dataset_inference import detect_dataset
from sppdet.detection.detector import Detector
from sppdet.detection.ensemble import Ensemble
from sppdet.detection.model_zoo import Member
from sppdet.detection.modes.rcnn import RcnnDetector
from sppdet.detection.probabilities.calibrate import FittedCalibration, calibrate
from sppdet.detection.probabilities.calibration import Calibration
from sppdet.evaluation.calibration_error import evaluate_calibration
from sppdet.evaluation.coco_ap import evaluate_coco
from sppdet.evaluation.voc_ap import evaluate_voc
from tests.helpers.made_detector import CLASSES, make_detector, picture

MADE = make_detector("detection.max_per_class=20")
OWN = Calibration(np.array([0.5, 3, 1], np.float32), np.array([1, 0, -1], np.float32))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Pictures whose objects are, by chance, some of the boxes that the detector finds."""
    truth = Calibration(np.full(3, 3, np.float32), np.full(3, 4, np.float32))
    folder, samples, rng = tmp_path_factory.mktemp("pictures"), [], np.random.default_rng(0)
    for seed in range(6):
        path = folder / f"{seed}.png"
        Image.fromarray(picture(seed=seed)).save(path)
        found = MADE.detect(path)
        right = np.flatnonzero(
            rng.random(len(found)) < truth.probabilities(found.margins, found.labels)
        )
        boxes, labels = found.boxes[right], found.labels[right]
        samples.append(
            Sample(str(seed), path, 120, 90, boxes, labels, np.zeros(len(labels), np.bool_))
        )
    return Dataset("pictures", CLASSES, tuple(samples))


@pytest.fixture(scope="module")
def fitted(dataset: Dataset) -> FittedCalibration:
    return calibrate(MADE, dataset, None, NullProgress())


def same(a: Calibration, b: Calibration) -> bool:
    return np.array_equal(a.slope, b.slope) and np.array_equal(a.intercept, b.intercept)


def test_a_made_detector_is_not_calibrated_and_scores_lie_between_0_and_1() -> None:
    assert not MADE.is_calibrated
    found = MADE.detect(picture())
    assert 0 <= found.scores.min() < found.scores.max() <= 1
    again = MADE.calibration.probabilities(found.margins, found.labels)
    assert np.array_equal(found.scores, again)


def test_calibrating_changes_scores_alone(dataset: Dataset, fitted: FittedCalibration) -> None:
    after = MADE.with_calibration(fitted.calibration)
    assert after.is_calibrated
    before, now = (detect_dataset(one, dataset, None, NullProgress()) for one in (MADE, after))

    def rows(found: Detections) -> list[tuple[object, ...]]:
        return sorted((one.name, one.margin, one.box) for one in found)

    for name, found in now.items():
        assert rows(found) == rows(before[name])
        assert (np.diff(found.scores) <= 0).all()
        assert np.array_equal(
            found.scores, fitted.calibration.probabilities(found.margins, found.labels)
        )
    # AP is of ranks within a class.
    ours, theirs = evaluate_voc(dataset, now), evaluate_voc(dataset, before)
    np.testing.assert_array_equal(
        [one.ap_area for one in ours.classes], [one.ap_area for one in theirs.classes]
    )
    assert evaluate_coco(dataset, now).ap == evaluate_coco(dataset, before).ap
    here, there = (evaluate_calibration(dataset, found) for found in (now, before))
    assert here is not None
    assert there is not None
    assert here.error < 0.05 < there.error


def test_what_is_fitted_says_what_it_is_of(dataset: Dataset, fitted: FittedCalibration) -> None:
    assert fitted.images == len(dataset)
    assert fitted.detections > 20
    assert 0 < fitted.error < 0.2
    line = f"calibrated on 6 held-out images, {fitted.detections} detections"
    assert line in fitted.describe()
    again = FittedCalibration.from_arrays(fitted.arrays())
    assert again[1:] == fitted[1:]
    assert same(again.calibration, fitted.calibration)
    nothing = calibrate(MADE, replace(dataset, samples=()), None, NullProgress())
    assert (nothing.images, nothing.detections) == (0, 0)
    assert nothing.describe().endswith("or more")
    assert same(FittedCalibration.from_arrays(nothing.arrays()).calibration, nothing.calibration)


def test_classes_are_matched_by_name(dataset: Dataset, fitted: FittedCalibration) -> None:
    turned = replace(
        dataset,
        classes=CLASSES[::-1],
        samples=tuple(replace(one, labels=2 - one.labels) for one in dataset),
    )
    other = calibrate(MADE, turned, None, NullProgress()).calibration
    np.testing.assert_allclose(other.slope, fitted.calibration.slope, rtol=1e-3)
    np.testing.assert_allclose(other.intercept, fitted.calibration.intercept, rtol=1e-3, atol=1e-3)
    first = replace(
        dataset,
        classes=CLASSES[:1],
        samples=tuple(
            replace(one, boxes=one.boxes[own], labels=one.labels[own], difficult=one.difficult[own])
            for one in dataset
            for own in [one.labels == 0]
        ),
    )
    alone = calibrate(MADE, first, None, NullProgress()).calibration
    assert len(alone) == len(CLASSES)
    assert alone.slope[1] == pytest.approx(alone.slope[2], rel=1e-3)


def test_files_keep_it_and_those_without_are_not_calibrated(tmp_path: Path) -> None:
    plain, own = tmp_path / "plain.safetensors", tmp_path / "own.safetensors"
    MADE.save(plain, description="", provenance={})
    MADE.with_calibration(OWN).save(own, description="", provenance={})
    assert not Detector.load(plain).is_calibrated
    assert same(Detector.load(plain).calibration, Calibration.uncalibrated(3))
    read = Detector.load(own)
    assert read.is_calibrated
    assert same(read.calibration, OWN)
    again = tmp_path / "again.safetensors"
    read.save(again, description="", provenance={})
    assert again.read_bytes() == own.read_bytes()
    assert load_model(own)[1].keys() - load_model(plain)[1].keys() == OWN.tensors().keys()
    changed = read.configure(None, ["detection.nms_iou=0.5"])
    assert same(changed.calibration, OWN)
    assert changed.is_calibrated
    assert RcnnDetector(read).is_calibrated


@pytest.mark.parametrize("slope", [[1.0, 2.0], [1.0, 2.0, 0.0], [[1.0, 2.0, 3.0]]])
def test_a_calibration_that_does_not_fit_its_model_is_refused(
    tmp_path: Path, slope: list[float]
) -> None:
    path = tmp_path / "odd.safetensors"
    MADE.with_calibration(OWN).save(path, description="", provenance={})
    header, tensors = load_model(path)
    tensors["calibration.slope"] = np.array(slope, np.float32)
    save_model(path, header, tensors)
    with pytest.raises(ModelFormatError, match="do not fit its config"):
        Detector.load(path)
    with pytest.raises(ValueError, match="2 classes, not 3"):
        MADE.with_calibration(Calibration(OWN.slope[:2], OWN.intercept[:2]))


def test_files_from_before_scores_were_probabilities_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    MADE.save(path, description="", provenance={})
    header, tensors = load_model(path)
    rules = header.config["detection"]
    rules |= {"score_threshold": -1.25, "display_threshold": -0.5}
    del rules["margin_threshold"]
    save_model(path, header, tensors)
    assert Detector.load(path).config.detection.margin_threshold == -1.25
    del rules["display_threshold"]
    save_model(path, header, tensors)
    with pytest.raises(ModelFormatError, match="score_threshold"):
        Detector.load(path)


def test_an_ensemble_has_the_mean_unless_its_preset_has_one(tmp_path: Path) -> None:
    path, plain = tmp_path / "own.safetensors", tmp_path / "plain.safetensors"
    MADE.with_calibration(OWN).save(path, description="", provenance={})
    MADE.save(plain, description="", provenance={})
    both = Ensemble.load(f"{path}+{path}")
    assert same(both.calibration, OWN)
    assert both.is_calibrated
    mixed = Ensemble.load(f"{path}+{plain}")
    assert same(mixed.calibration, Calibration.mean([OWN, Calibration.uncalibrated(3)]))
    assert not mixed.is_calibrated
    other = Calibration(OWN.slope + 1, OWN.intercept)
    preset = Ensemble.load_members([Member(one, (), other) for one in (path, plain)])
    assert same(preset.calibration, other)
    found = preset.detect(picture())
    assert np.array_equal(found.scores, other.probabilities(found.margins, found.labels))
    assert same(both.with_calibration(other).calibration, other)
