"""The best boxes are regions once more: scored and moved again where the first look moved them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.boxes import flip_horizontal
from sppdet.detection import DetectionConfig, Found, select
from sppdet.detector import Detector
from sppdet.judging import RegionView, first_look, judged, second_look
from sppdet.rcnn import RcnnDetector
from sppdet.region_features import RegionFeatures
from sppdet.types import BoolArray, FloatArray, IntArray
from tests.made_detector import CLASSES, make_detector, picture

SIZE = (120, 90)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_detector("detection.mirror=true", "detection.score_threshold=-1e9")


def views_of(detector: Detector, seed: int) -> list[RegionView]:
    image = picture(*SIZE, seed=seed)
    (views,) = detector.region_views(detector.look(image), detector.propose(image)[:60])
    return views


def rules_of(detector: Detector, **changes: object) -> DetectionConfig:
    return replace(detector.config.detection, **changes)  # type: ignore[arg-type]


def rows(found: Found, chosen: BoolArray | IntArray | None = None) -> list[tuple[float, ...]]:
    """Boxes, scores and labels of some or all, to be compared as a whole."""
    table = np.concatenate([found.boxes, found.scores[:, None], found.labels[:, None]], axis=1)
    return [tuple(row) for row in (table if chosen is None else table[chosen]).tolist()]


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 20), most=st.integers(1, 200))
def test_it_judges_the_best_boxes_as_a_proposal_there_would_be(seed: int, most: int) -> None:
    detector = make_detector("detection.score_threshold=-1e9")
    rules = rules_of(detector, second_look=most)
    views = views_of(detector, seed)
    first = first_look(rules, views)
    found = second_look(rules, views, first)
    best = np.argsort(-first.scores, kind="stable")[:most]
    assert len(found.boxes) == len(best)
    # The oracle: a detection of its own on the moved boxes, all classes of each.
    maps = detector.look(picture(*SIZE, seed=seed))
    (fresh,) = detector.region_views(maps, first.boxes[best])
    every = first_look(rules_of(detector, max_candidates=10**6), fresh)
    for label in set(first.labels[best].tolist()):
        mine = np.flatnonzero(first.labels[best] == label)
        expected = (every.labels == label).nonzero()[0][mine]
        np.testing.assert_allclose(
            rows(found, found.labels == label), rows(every, expected), rtol=1e-3, atol=1e-2
        )


def test_detections_come_from_both_looks(detector: Detector) -> None:
    views, rules = views_of(detector, 3), rules_of(detector, second_look=40)
    first = first_look(rules, views)
    second = second_look(rules, views, first)
    both = judged(rules, [views])
    assert [rows(one) for one in both] == [rows(first), rows(second)]
    (once,) = judged(rules_of(detector, second_look=0), [views])
    assert rows(once) == rows(first)
    # The moved boxes are regions in their own right: their scores differ from those before.
    assert np.abs(np.sort(second.scores)[::-1] - np.sort(first.scores)[::-1][:40]).max() > 1e-3
    image = picture(*SIZE, seed=3)
    whole = detector.with_settings(replace(detector.config, detection=rules))
    found = whole.detect_regions(whole.look(image), detector.propose(image)[:60])
    expected = select(both, CLASSES, rules)
    assert np.array_equal(found.scores, expected.scores)
    assert np.array_equal(found.boxes, expected.boxes)


def test_mirrored_views_are_given_mirrored_boxes(detector: Detector) -> None:
    straight, turned = views_of(detector, 1)
    boxes = np.array([[5, 6, 50, 40], [60, 20, 110, 80]], np.float32)
    assert np.array_equal(straight.at(boxes).features.boxes, boxes)
    there = turned.at(boxes)
    assert there.mirrored
    assert np.array_equal(there.features.boxes, flip_horizontal(boxes, SIZE[0]))


def test_what_does_not_move_is_not_looked_at_twice(detector: Detector) -> None:
    views = views_of(detector, 2)
    still = rules_of(detector, second_look=10, box_regression=False)
    assert len(judged(still, [views])) == 1


def test_nothing_found_gives_nothing_again(detector: Detector) -> None:
    rules = rules_of(detector, score_threshold=1e9)
    views = views_of(detector, 2)
    first, second = judged(rules, [views])
    assert len(first.boxes) == len(second.boxes) == 0


@pytest.mark.parametrize("mode", ["maps", "crops"])
def test_other_regions_of_the_image_have_the_features_that_they_always_have(mode: str) -> None:
    detector = make_detector()
    image, some = picture(*SIZE, seed=4), detector.propose(picture(*SIZE, seed=4))[:7]
    others = some[3:] + np.float32(2)

    def features(boxes: FloatArray) -> RegionFeatures:
        if mode == "crops":
            return RcnnDetector(detector).features(image, boxes)
        return RegionFeatures(detector.head, detector.extractor(image), boxes)

    again = features(some).at(others)
    np.testing.assert_allclose(again.fc7, features(others).fc7, rtol=1e-4, atol=1e-4)
    assert np.array_equal(again.boxes, others)
