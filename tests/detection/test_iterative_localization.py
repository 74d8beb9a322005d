"""The best boxes are regions once more: scored and moved again where they were moved to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.boxes import flip
from sppdet.core.types import BoolArray, FloatArray, IntArray
from sppdet.detection.detector import Detector
from sppdet.detection.postprocess import Candidates, postprocess
from sppdet.detection.scoring import AugmentedImage, detect_candidates, predict
from tests.helpers.made_detector import CLASSES, make_detector, picture

SIZE = (120, 90)
# Every region passes.
ALL = "detection.margin_threshold=-1e9"


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_detector("detection.flipped_scale_factors=[1]", ALL)


def case(detector: Detector, seed: int) -> tuple[list[AugmentedImage], FloatArray]:
    """The views of a picture, and some of its proposals."""
    image = picture(*SIZE, seed=seed)
    return detector.views(detector.extract(image)), detector.propose(image)[:60]


def rows(found: Candidates, chosen: BoolArray | IntArray | None = None) -> list[tuple[float, ...]]:
    """Boxes, scores and labels of some or all, to be compared as a whole."""
    table = np.concatenate([found.boxes, found.scores[:, None], found.labels[:, None]], axis=1)
    return [tuple(row) for row in (table if chosen is None else table[chosen]).tolist()]


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 20), most=st.integers(1, 200))
def test_the_best_boxes_are_scored_as_a_proposal_there_would_be(seed: int, most: int) -> None:
    detector = MADE.configure(None, [f"detection.refine_top={most}"])
    views, boxes = case(detector, seed)
    rules = detector.config.detection
    first = predict(views, boxes, rules)
    both = detect_candidates(views, boxes, rules)
    again = np.arange(len(first.scores), len(both.scores))
    found = Candidates(both.boxes[again], both.scores[again], both.labels[again])
    top = first.top(most)
    assert len(found.boxes) == len(top.boxes)
    # The oracle: a detection of its own on the moved boxes, all classes of each.
    every = predict(views, top.boxes, rules.replace(max_candidates=10**6))
    for label in set(top.labels.tolist()):
        mine = np.flatnonzero(top.labels == label)
        expected = (every.labels == label).nonzero()[0][mine]
        np.testing.assert_allclose(
            rows(found, found.labels == label), rows(every, expected), rtol=1e-3, atol=1e-2
        )


MADE = make_detector(ALL)


def test_detections_come_from_both_rounds(detector: Detector) -> None:
    detector = detector.configure(None, ["detection.refine_top=40"])
    (views, boxes), rules = case(detector, 3), detector.config.detection
    first = predict(views, boxes, rules)
    top = first.top(40)
    second = predict(views, top.boxes, rules, top.labels)
    both = detect_candidates(views, boxes, rules)
    assert rows(both) == rows(first) + rows(second)
    assert rows(detect_candidates(views, boxes, rules.replace(refine_top=0))) == rows(first)
    # The moved boxes are regions in their own right: their scores differ from those before.
    assert np.abs(np.sort(second.scores)[::-1] - np.sort(first.scores)[::-1][:40]).max() > 1e-3
    found = detector.detect_regions(detector.extract(picture(*SIZE, seed=3)), boxes)
    expected = postprocess(both, CLASSES, rules, detector.calibration)
    assert np.array_equal(found.scores, expected.scores)
    assert np.array_equal(found.boxes, expected.boxes)


def test_flipped_views_are_given_flipped_boxes(detector: Detector) -> None:
    straight, turned = case(detector, 1)[0]
    boxes = np.array([[5, 6, 50, 40], [60, 20, 110, 80]], np.float32)
    assert np.array_equal(straight.regions(boxes).boxes, boxes)
    assert np.array_equal(turned.regions(boxes).boxes, flip(boxes, SIZE[0]))


def test_what_does_not_move_is_scored_once(detector: Detector) -> None:
    changes = ["detection.refine_top=10", "detection.box_regression=none"]
    still = detector.configure(None, changes)
    (views, boxes), rules = case(still, 2), still.config.detection
    assert rows(detect_candidates(views, boxes, rules)) == rows(predict(views, boxes, rules))


def test_nothing_found_gives_nothing_again(detector: Detector) -> None:
    views, boxes = case(detector, 2)
    rules = detector.config.detection.replace(margin_threshold=1e9)
    assert len(detect_candidates(views, boxes, rules).boxes) == 0
