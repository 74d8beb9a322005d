"""Looking more than once: at the mirror image, to which left and right are the same, and zoomed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.batch import detect_dataset
from sppdet.boxes import flip_horizontal
from sppdet.config import Config, load_config
from sppdet.datasets import load_voc, make_synthetic_voc
from sppdet.detector import Detector
from sppdet.images import mirrored, read_image
from sppdet.judging import RegionView, judged
from sppdet.progress import NullProgress
from sppdet.region_features import RegionFeatures
from sppdet.types import Detections, FloatArray, ImageArray
from tests.made_detector import make_detector, picture

# Every region comes back as it is judged, in no order but that of the scores.
EVERYTHING = (
    "detection.mirror=true",
    "detection.score_threshold=-1e9",
    "detection.max_candidates=100000",
    "detection.max_per_class=100000",
    "detection.soft_nms=0",
    "detection.nms_iou=1",
    "detection.vote_iou=0",
    "detection.second_look=0",
)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_detector(*EVERYTHING)


def plain(detector: Detector) -> Detector:
    """The same detector, blind to mirror images."""
    return detector.with_settings(_with_mirror(detector.config, False))


def _with_mirror(config: Config, mirror: bool) -> Config:
    return replace(config, detection=replace(config.detection, mirror=mirror))


def regions(seed: int, width: int, height: int) -> FloatArray:
    """Boxes of whole pixels, whose mirror images are exact."""
    rng = np.random.default_rng(seed)
    corners = np.stack([rng.integers(0, side - 10, (40, 2)) for side in (width, height)], axis=2)
    low, high = corners.min(axis=1), corners.max(axis=1) + 10
    return np.concatenate([low, high], axis=1).astype(np.float32)


def both_ways(detector: Detector, image: ImageArray, boxes: FloatArray) -> list[Detections]:
    """The detections in the image, and those in its mirror image, mirrored back."""
    width = image.shape[1]
    here = detector.detect_regions(detector.look(image), boxes)
    other = mirrored(image)
    there = detector.detect_regions(detector.look(other), flip_horizontal(boxes, width))
    return [here, replace(there, boxes=flip_horizontal(there.boxes, width))]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 99), width=st.integers(60, 150), height=st.integers(60, 150))
def test_an_image_and_its_mirror_image_get_the_same(
    detector: Detector, seed: int, width: int, height: int
) -> None:
    image, boxes = picture(width, height, seed), regions(seed, width, height)
    here, there = both_ways(detector, image, boxes)
    assert len(here) == len(there) >= len(boxes)
    np.testing.assert_allclose(np.sort(here.scores), np.sort(there.scores), atol=1e-4)
    np.testing.assert_allclose(np.sort(here.boxes, axis=0), np.sort(there.boxes, axis=0), atol=1e-2)


def test_without_it_they_do_not(detector: Detector) -> None:
    here, there = both_ways(plain(detector), picture(), regions(0, 120, 90))
    assert np.abs(np.sort(here.scores) - np.sort(there.scores)).max() > 0.05


@pytest.mark.parametrize("regressors", ["both", "ridge", "learned"])
def test_scores_and_boxes_are_means_of_both(detector: Detector, regressors: str) -> None:
    image, boxes = picture(seed=4), regions(4, 120, 90)
    rules = replace(detector.config.detection, regressors=regressors)
    maps, turned = detector.look(image)
    here = RegionFeatures(detector.head, maps, boxes)
    there = RegionFeatures(detector.head, turned, flip_horizontal(boxes, 120))
    views = RegionView(detector.judge, here), RegionView(detector.judge, there, mirrored=True)
    (one,), (other,) = (judged(rules, [[view]]) for view in views)
    (both,) = judged(rules, [views])
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
    still = replace(detector.config.detection, box_regression=False)
    unmoved = detector.with_settings(replace(detector.config, detection=still))
    boxes = regions(1, 120, 90)
    found = unmoved.detect_regions(unmoved.look(picture()), boxes)
    assert {tuple(box) for box in found.boxes.tolist()} == {tuple(box) for box in boxes.tolist()}


def test_a_plain_detector_never_sees_the_mirror_image(detector: Detector) -> None:
    assert [view.mirrored for view in plain(detector).views] == [False]
    assert [view.mirrored for view in detector.views] == [False, True]
    assert len(plain(detector).look(picture())) == 1


def zoomed(detector: Detector, *zooms: float) -> Detector:
    changes = [f"detection.zooms={list(zooms)}", "detection.mirror=false"]
    return detector.with_settings(load_config(None, changes, base=detector.config))


@pytest.mark.parametrize("zoom", [0.8, 1.25, 1.0])
def test_a_zoom_is_another_scale(detector: Detector, zoom: float) -> None:
    (scale,) = detector.config.features.scales
    image, boxes = picture(seed=5), regions(5, 120, 90)
    one = zoomed(detector, zoom)
    changes = [f"features.scales=[{round(scale * zoom)}]", "detection.mirror=false"]
    other = detector.with_settings(load_config(None, changes, base=detector.config))
    found, expected = (each.detect_regions(each.look(image), boxes) for each in (one, other))
    assert len(found) >= len(boxes)
    assert np.array_equal(found.scores, expected.scores)
    assert np.array_equal(found.boxes, expected.boxes)


def test_zooms_and_mirror_images_are_averaged(detector: Detector) -> None:
    image, boxes = picture(seed=6), regions(6, 120, 90)
    changes = ["detection.zooms=[1, 0.8]", "detection.mirror_zooms=[1.25]"]
    every = detector.with_settings(load_config(None, changes, base=detector.config))
    scales = [view.extractor.config.scales[0] for view in every.views]
    (scale,) = detector.config.features.scales
    assert scales == [scale, round(0.8 * scale), round(1.25 * scale)]
    assert [view.mirrored for view in every.views] == [False, False, True]
    assert len({id(view.extractor.backbone) for view in every.views}) == 1
    ((*straight, turned),) = every.region_views(every.look(image), boxes)
    rules = every.config.detection
    parts = [judged(rules, [[view]])[0].scores for view in (*straight, turned)]
    (both,) = judged(rules, [[*straight, turned]])
    np.testing.assert_allclose(both.scores, np.mean(parts, axis=0), atol=1e-5)
    assert np.abs(parts[0] - parts[1]).max() > 0.01
    found = every.detect_regions(every.look(image), boxes)
    np.testing.assert_allclose(np.sort(found.scores), np.sort(both.scores), atol=1e-6)


def test_combined_models_look_both_ways(detector: Detector) -> None:
    other = make_detector(*EVERYTHING, seed=1)
    image, boxes = picture(), regions(2, 120, 90)
    together = detector.with_settings(
        load_config(None, ["detection.combination=union"], base=detector.config)
    ).combined(other)
    found = together.detect_regions(together.look(image), boxes)
    alone = [one.detect_regions(one.look(image), boxes) for one in (detector, other)]
    expected = np.sort(np.concatenate([one.scores for one in alone]))
    np.testing.assert_allclose(np.sort(found.scores), expected, atol=1e-5)


def test_a_cache_holds_both_ways(detector: Detector, tmp_path: Path) -> None:
    folder = tmp_path / "shapes"
    root = make_synthetic_voc(folder, train=2, val=0, test=0, width=120, height=90, seed=3)
    dataset, cache = load_voc(root, "train"), tmp_path / "cache"
    quiet = NullProgress()
    blind = detect_dataset(plain(detector), dataset, cache, quiet)
    assert len(list((cache / "maps").iterdir())) == 2
    for _ in range(2):
        seen = detect_dataset(detector, dataset, cache, quiet)
        assert len(list((cache / "maps").iterdir())) == 4
        for sample in dataset:
            image = read_image(sample.path)
            maps = [one.to(torch.float16) for one in detector.look(image)]
            expected = detector.detect_regions(maps, detector.propose(image))
            assert np.array_equal(seen[sample.image_id].scores, expected.scores)
            assert not np.array_equal(seen[sample.image_id].scores, blind[sample.image_id].scores)
