"""Teaching wrong regions away: they fall to where negatives are, and objects stay above them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sppdet.core.boxes import box_iou
from sppdet.core.errors import ConfigError, ImageError
from sppdet.core.images import read_image
from sppdet.core.types import Dataset, FloatArray
from sppdet.detection.added.classes import ADDED_LIMITS
from sppdet.detection.added.correct import WrongImage
from sppdet.detection.detector import Detector
from tests.helpers.added_cases import loaded_detector, only, rows, shapes
from tests.helpers.made_detector import CLASSES


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return only(shapes(tmp_path_factory.mktemp("data") / "shapes"), "star", "square")


@pytest.fixture(scope="module")
def detector(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return loaded_detector(tmp_path_factory.mktemp("model")).add_classes(data)


def margins(detector: Detector, path: Path, boxes: FloatArray, group: int = 1) -> FloatArray:
    """What an added class's SVM says of some boxes, as it learned them."""
    (view, *_) = detector.views(detector.extract(read_image(path)))
    return detector.groups[group].scorer.score(view.regions(boxes))[:, 0]


def wrong_boxes(detector: Detector, path: Path, truth: FloatArray) -> FloatArray:
    """The best boxes that are called a star and lie on none."""
    found = [one for one in detector.detect(path) if one.name == "star"]
    boxes = np.array([one.box for one in found], np.float32).reshape(-1, 4)
    away = np.flatnonzero(box_iou(boxes, truth).max(axis=1, initial=0.0) < 0.3)
    return boxes[away[:5]]


def test_wrong_regions_fall_to_the_margin_of_negatives(detector: Detector, data: Dataset) -> None:
    shown = [one for one in data if 0 in one.labels]
    wrong = []
    for one in data:
        boxes = wrong_boxes(detector, one.path, one.boxes[one.labels == 0])
        if len(boxes):
            wrong.append(WrongImage(one.path, boxes))
    better = detector.correct_class("star", wrong)
    below = float(ADDED_LIMITS["margin_threshold"])
    before, after = (
        np.concatenate([margins(d, one.path, one.boxes) for one in wrong if one.boxes is not None])
        for d in (detector, better)
    )
    assert (before > below).all()
    assert before.max() > -0.8
    assert after.mean() < before.mean()
    # At -1, up to the slack of a soft margin.
    assert np.median(after) <= -0.99
    assert after.max() < -0.8
    truth = [margins(better, one.path, one.boxes[one.labels == 0]) for one in shown]
    # The features of a made network hardly tell a star from the rest, and yet.
    assert np.concatenate(truth).min() > np.median(after)
    assert np.concatenate(truth).mean() > after.max()
    (star, square) = better.parts.added
    assert star.info["corrected"] > 0
    assert square is detector.parts.added[1]


def test_images_that_show_none_are_taught_whole(detector: Detector, data: Dataset) -> None:
    none = [one.path for one in data if 0 not in one.labels]
    better = detector.correct_class("star", [WrongImage(path) for path in none])
    for path in none:
        boxes = detector.propose(read_image(path))
        before, after = (margins(one, path, boxes).max() for one in (detector, better))
        assert after <= max(before, -0.9)
    twice = better.correct_class("star", [WrongImage(none[0])])
    assert twice.parts.added[0].info["corrected"] >= better.parts.added[0].info["corrected"]


def test_nothing_wrong_changes_next_to_nothing(detector: Detector, data: Dataset) -> None:
    (sample, *_) = data
    nothing = WrongImage(sample.path, np.zeros((0, 4), np.float32))
    same = detector.correct_class("star", [nothing])
    boxes = detector.propose(read_image(sample.path))
    # Support vectors are kept in float16, and solved to a tolerance.
    np.testing.assert_allclose(
        margins(same, sample.path, boxes), margins(detector, sample.path, boxes), atol=0.05
    )


def test_the_other_classes_stay(detector: Detector, data: Dataset) -> None:
    better = detector.correct_class("star", [WrongImage(data.samples[0].path)])
    for one in data:
        found, before = better.detect(one.path), detector.detect(one.path)
        assert rows(found, [*CLASSES, "square"]) == rows(before, [*CLASSES, "square"])


def test_only_added_classes_are_corrected(
    detector: Detector, data: Dataset, tmp_path: Path
) -> None:
    wrong = [WrongImage(data.samples[0].path)]
    for name in ("ring", "moon"):
        with pytest.raises(ConfigError, match=f"no added class '{name}'; it has star, square"):
            detector.correct_class(name, wrong)
    with pytest.raises(ImageError, match="absent"):
        detector.correct_class("star", [WrongImage(tmp_path / "absent.jpg")])
