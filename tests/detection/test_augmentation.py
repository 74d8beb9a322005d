"""Test-time augmentation: the flipped image, to which left and right are the same, and scales."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.boxes import flip
from sppdet.core.images import flip_image, read_image
from sppdet.core.progress import NullProgress
from sppdet.core.types import Detections, FloatArray, ImageArray
from sppdet.datasets import load_dataset, make_synthetic_voc
from sppdet.detection.augmentation import Augmentation, augmentations
from sppdet.detection.config import DetectionConfig
from sppdet.detection.dataset_inference import detect_dataset
from sppdet.detection.detector import Detector
from sppdet.detection.ensemble import Ensemble
from sppdet.detection.scoring import predict
from tests.helpers.made_detector import make_detector, picture

# Every region comes back as it is scored, in no order but that of the scores.
EVERYTHING = (
    "detection.flipped_scale_factors=[1]",
    "detection.margin_threshold=-1e9",
    "detection.max_candidates=100000",
    "detection.max_per_class=100000",
    "detection.soft_nms_sigma=0",
    "detection.nms_iou=1",
    "detection.vote_iou=0",
    "detection.refine_top=0",
)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_detector(*EVERYTHING)


def plain(detector: Detector) -> Detector:
    """The same detector, shown the image as it is alone."""
    return detector.configure(None, ["detection.flipped_scale_factors=[]"])


def regions(seed: int, width: int, height: int) -> FloatArray:
    """Boxes of whole pixels, whose mirror images are exact."""
    rng = np.random.default_rng(seed)
    corners = np.stack([rng.integers(0, side - 10, (40, 2)) for side in (width, height)], axis=2)
    low, high = corners.min(axis=1), corners.max(axis=1) + 10
    return np.concatenate([low, high], axis=1).astype(np.float32)


def both_ways(detector: Detector, image: ImageArray, boxes: FloatArray) -> list[Detections]:
    """The detections in the image, and those in its mirror image, mirrored back."""
    width = image.shape[1]
    here = detector.detect_regions(detector.extract(image), boxes)
    other = flip_image(image)
    there = detector.detect_regions(detector.extract(other), flip(boxes, width))
    return [here, replace(there, boxes=flip(there.boxes, width))]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 99), width=st.integers(60, 150), height=st.integers(60, 150))
def test_an_image_and_its_flipped_image_get_the_same(
    detector: Detector, seed: int, width: int, height: int
) -> None:
    image, boxes = picture(width, height, seed), regions(seed, width, height)
    here, there = both_ways(detector, image, boxes)
    assert len(here) == len(there) >= len(boxes)
    np.testing.assert_allclose(np.sort(here.margins), np.sort(there.margins), atol=1e-4)
    np.testing.assert_allclose(np.sort(here.boxes, axis=0), np.sort(there.boxes, axis=0), atol=1e-2)


def test_without_it_they_do_not(detector: Detector) -> None:
    here, there = both_ways(plain(detector), picture(), regions(0, 120, 90))
    assert np.abs(np.sort(here.margins) - np.sort(there.margins)).max() > 0.05


@pytest.mark.parametrize("regression", ["mean", "ridge", "learned"])
def test_scores_and_boxes_are_means_of_both(detector: Detector, regression: str) -> None:
    image, boxes = picture(seed=4), regions(4, 120, 90)
    detector = detector.configure(None, [f"detection.box_regression={regression}"])
    rules, views = detector.config.detection, detector.views(detector.extract(image))
    one, other = (predict([view], boxes, rules) for view in views)
    both = predict(views, boxes, rules)
    # Nothing is below the threshold, so the three know the same regions in the same order.
    assert np.array_equal(one.labels, both.labels)
    np.testing.assert_allclose(both.scores, (one.scores + other.scores) / 2, atol=1e-5)
    inside = (np.minimum(one.boxes, other.boxes) > 0.01).all(axis=1)
    inside &= (np.maximum(one.boxes, other.boxes) < np.array([120, 90] * 2) - 0.01).all(axis=1)
    assert inside.sum() > 10  # clipped boxes are clipped after the mean, the others' before
    mean = (one.boxes + other.boxes)[inside] / 2
    np.testing.assert_allclose(both.boxes[inside], mean, atol=1e-3)
    assert np.abs(one.boxes - other.boxes).max() > 0.1


def test_boxes_stay_where_regression_is_off(detector: Detector) -> None:
    unmoved = detector.configure(None, ["detection.box_regression=none"])
    boxes = regions(1, 120, 90)
    found = unmoved.detect_regions(unmoved.extract(picture()), boxes)
    assert {tuple(box) for box in found.boxes.tolist()} == {tuple(box) for box in boxes.tolist()}


def test_a_plain_detector_never_sees_the_flipped_image(detector: Detector) -> None:
    assert [request.flip for request in plain(detector).requests] == [False]
    assert [request.flip for request in detector.requests] == [False, True]
    assert len(plain(detector).extract(picture())) == 1


@pytest.mark.parametrize("factor", [0.8, 1.25, 1.0])
def test_a_scale_factor_is_another_scale(detector: Detector, factor: float) -> None:
    (scale,) = detector.config.features.scales
    image, boxes = picture(seed=5), regions(5, 120, 90)
    one = plain(detector).configure(None, [f"detection.scale_factors=[{factor}]"])
    other = plain(detector).configure(None, [f"features.scales=[{round(scale * factor)}]"])
    found, expected = (each.detect_regions(each.extract(image), boxes) for each in (one, other))
    assert len(found) >= len(boxes)
    assert np.array_equal(found.scores, expected.scores)
    assert np.array_equal(found.boxes, expected.boxes)


def test_scales_and_flipped_images_are_averaged(detector: Detector) -> None:
    image, boxes = picture(seed=6), regions(6, 120, 90)
    changes = ["detection.scale_factors=[1, 0.8]", "detection.flipped_scale_factors=[1.25]"]
    every = detector.configure(None, changes)
    (scale,) = detector.config.features.scales
    asked = [(request.scales, request.flip) for request in every.requests]
    assert asked == [
        ((scale,), False),
        ((round(0.8 * scale),), False),
        ((round(1.25 * scale),), True),
    ]
    assert len({id(request.extractor) for request in every.requests}) == 1
    maps, rules = every.extract(image), every.config.detection
    views = every.views(maps)
    parts = [predict([view], boxes, rules).scores for view in views]
    both = predict(views, boxes, rules)
    np.testing.assert_allclose(both.scores, np.mean(parts, axis=0), atol=1e-5)
    assert np.abs(parts[0] - parts[1]).max() > 0.01
    found = every.detect_regions(maps, boxes)
    np.testing.assert_allclose(np.sort(found.margins), np.sort(both.scores), atol=1e-6)


def test_members_of_an_ensemble_are_shown_both(detector: Detector) -> None:
    other = make_detector(*EVERYTHING, seed=1)
    image, boxes = picture(), regions(2, 120, 90)
    together = Ensemble([detector, other], "union")
    found = together.detect_regions(together.extract(image), boxes)
    alone = [one.detect_regions(one.extract(image), boxes) for one in (detector, other)]
    expected = np.sort(np.concatenate([one.margins for one in alone]))
    np.testing.assert_allclose(np.sort(found.margins), expected, atol=1e-5)


@given(
    seed=st.integers(0, 99),
    width=st.integers(60, 150),
    factor=st.floats(0.01, 4),
    turned=st.booleans(),
)
def test_twice_gives_boxes_and_images_back(
    seed: int, width: int, factor: float, turned: bool
) -> None:
    shown = Augmentation(factor, turned)
    boxes, image = regions(seed, width, 80), picture(width, 80, seed)
    assert np.array_equal(shown.boxes(shown.boxes(boxes, width), width), boxes)
    assert np.array_equal(shown.image(shown.image(image)), image)
    assert np.array_equal(shown.boxes(boxes, width), boxes) == (not turned)
    for scale, scaled in zip((20, 600), shown.scales((20, 600)), strict=True):
        assert scaled >= 1
        assert abs(scaled - scale * factor) <= 1


def test_plain_augmentations_come_first() -> None:
    rules = DetectionConfig(scale_factors=(1.2, 0.8), flipped_scale_factors=(1.0,))
    expected = [Augmentation(1.2), Augmentation(0.8), Augmentation(1.0, True)]
    assert augmentations(rules) == expected
    only = DetectionConfig(scale_factors=(), flipped_scale_factors=(1.0,))
    assert augmentations(only) == expected[2:]


def test_a_cache_holds_both_ways(detector: Detector, tmp_path: Path) -> None:
    folder = tmp_path / "shapes"
    root = make_synthetic_voc(folder, train=2, val=0, test=0, width=120, height=90, seed=3)
    dataset, cache = load_dataset(root, "train"), tmp_path / "cache"
    quiet = NullProgress()
    blind = detect_dataset(plain(detector), dataset, cache, quiet)
    assert len(list((cache / "maps").iterdir())) == 2
    for _ in range(2):
        seen = detect_dataset(detector, dataset, cache, quiet)
        assert len(list((cache / "maps").iterdir())) == 4
        for sample in dataset:
            image = read_image(sample.path)
            maps = [one.to(torch.float16) for one in detector.extract(image)]
            expected = detector.detect_regions(maps, detector.propose(image))
            assert np.array_equal(seen[sample.image_id].scores, expected.scores)
            assert not np.array_equal(seen[sample.image_id].scores, blind[sample.image_id].scores)
