"""R-CNN mode: the warp shows what it should, and features differ from SPP's by the map alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.boxes import box_iou
from sppdet.core.errors import ImageError
from sppdet.core.progress import Advance, NullProgress
from sppdet.core.types import FloatArray, ImageArray
from sppdet.detection.detector import Detector
from sppdet.detection.modes import rcnn as rcnn_mode
from sppdet.detection.modes.rcnn import PADDING, SIDE, RcnnDetector, WarpedImage, warp_region
from sppdet.heads.head import RegionFeatures
from tests.helpers.made_detector import (
    CLASSES,
    UNTRAINED,
    make_detector,
    picture,
    region_features,
)
from tests.helpers.region_cases import random_boxes

INNER = SIDE - 2 * PADDING
# Pooled vectors are among a region's features.
POOLED = "head.regression_layer=pool"


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_detector("proposals.max_proposals=6")


def warp(detector: Detector, image: ImageArray, *box: float) -> FloatArray:
    return warp_region(detector.extractor.backbone, image, np.array(box, np.float32))


def features(detector: Detector, image: ImageArray, boxes: FloatArray) -> RegionFeatures:
    """The features of regions in R-CNN mode."""
    return WarpedImage(detector, image, NullProgress()).regions(boxes)


def gray(pixels: FloatArray) -> ImageArray:
    """Three equal channels."""
    return np.repeat(pixels.round().astype(np.uint8)[..., None], 3, axis=2)


def test_no_regions_give_no_detections(detector: Detector) -> None:
    rcnn, none = RcnnDetector(detector), np.zeros((0, 4), np.float32)
    pooled = features(detector, picture(), none).layers["pool"]
    assert pooled.shape == (0, detector.head.pooler.dim)
    found = rcnn.detect_regions(picture(), none)
    assert len(found) == 0
    assert found.classes == CLASSES


def test_the_region_fills_all_but_the_padding(detector: Detector) -> None:
    image = np.zeros((100, 150, 3), np.uint8)
    image[30:70, 40:60] = 255
    backbone = detector.extractor.backbone
    dark, bright = backbone.normalize(np.array([[[0] * 3, [255] * 3]], np.uint8))[0]
    crop = warp(detector, image, 40, 30, 60, 70)
    # A pixel of the image is 9.6 of the crop wide: bilinear edges are that much blurred.
    edge = 6
    inner = slice(PADDING + edge, SIDE - PADDING - edge)
    np.testing.assert_allclose(crop[inner, inner], np.broadcast_to(bright, (180, 180, 3)))
    for outside in (slice(0, PADDING - edge), slice(SIDE - PADDING + edge, SIDE)):
        assert (crop[outside] == dark).all()
        assert (crop[:, outside] == dark).all()


def test_what_lies_outside_the_image_is_the_mean(detector: Detector) -> None:
    image = np.full((60, 80, 3), 250, np.uint8)
    value = detector.extractor.backbone.normalize(image)[0, 0]
    crop = warp(detector, image, 0, 0, 80, 60)
    inner = slice(PADDING, SIDE - PADDING)
    assert (crop[inner, inner] == value).all()
    crop[inner, inner] = 0
    assert (crop == 0).all()
    corner = warp(detector, image, 0, 0, 20, 20)
    assert (corner[:PADDING] == 0).all()
    assert (corner[:, :PADDING] == 0).all()
    assert (corner[PADDING:, PADDING:] == value).all()


@given(st.integers(0, 70), st.integers(0, 70), st.integers(8, 60), st.booleans())
@settings(max_examples=30, deadline=None)
def test_the_warp_is_linear_in_each_axis(x: int, y: int, size: int, across: bool) -> None:
    detector = made()
    ramp = np.broadcast_to(np.arange(20, 170), (150, 150)).astype(np.float32)
    x, y = x + 10, y + 10
    crop = warp(detector, gray(ramp if across else ramp.T), x, y, x + size, y + size)
    # The image coordinate of each inner pixel's center; values of pixels belong to their centers.
    at = (x if across else y) + (np.arange(INNER) + 0.5) * size / INNER
    zero, hundred = detector.extractor.backbone.normalize(gray(np.array([[0.0, 100.0]])))[0, :, 0]
    inner = crop[PADDING:-PADDING, PADDING:-PADDING, 0]
    line = inner[INNER // 2] if across else inner[:, INNER // 2]
    found = (line - zero) / (hundred - zero) * 100
    # Half a crop pixel of rounding in place and in length, and a gray level in fixed point.
    np.testing.assert_allclose(found, at - 0.5 + 20, atol=size / INNER + 0.75)


MADE: list[Detector] = []


def made() -> Detector:
    """The detector, for tests that hypothesis calls many times."""
    if not MADE:
        MADE.append(make_detector())
    return MADE[0]


@pytest.mark.parametrize("size", [(1, 1), (1, 60), (60, 1), (300, 30), (7, 500)], ids=str)
def test_images_of_any_shape_are_looked_at(detector: Detector, size: tuple[int, int]) -> None:
    width, height = size
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = RcnnDetector(detector).detect(image)
    assert np.isfinite(found.scores).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes[:, 2:] <= (width, height)).all()


def test_every_region_gives_finite_features(detector: Detector) -> None:
    image = picture()
    boxes = np.concatenate([random_boxes(4, 120, 90), [[119, 89, 120, 90], [5, 5, 5, 5]]])
    found = features(detector, image, boxes.astype(np.float32))
    assert set(found.layers) == {"pool", "fc6", "fc7"}
    for layer, values in found.layers.items():
        assert values.shape == (len(boxes), detector.head.layer_width(layer))
        assert np.isfinite(values).all()


@pytest.mark.parametrize("batch", [1, 3])
def test_a_region_does_not_depend_on_the_others(
    detector: Detector, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, boxes = picture(), random_boxes(7, 120, 90)
    every = features(detector, image, boxes)
    monkeypatch.setattr(rcnn_mode, "BATCH", batch)
    again = features(detector, image, boxes[::-1])
    for layer in ("pool", "fc7"):
        found, expected = again.layers[layer][::-1], every.layers[layer]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def likeness(a: FloatArray, b: FloatArray) -> float:
    """The cosine of the angle between two feature vectors."""
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("scales", [f"[{SIDE}]", f"[96, {SIDE}]"])
def test_the_whole_image_is_the_same_in_both_modes_without_padding(
    scales: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The paper's rule looks at a region of 224 x 224 pixels at the scale that leaves it so.
    monkeypatch.setattr(rcnn_mode, "PADDING", 0)
    detector = make_detector(f"features.scales={scales}", "features.scale_rule='paper'", POOLED)
    image, box = picture(SIDE, SIDE, seed=2), np.array([[0, 0, SIDE, SIDE]], np.float32)
    spp, rcnn = region_features(detector, image, box), features(detector, image, box)
    for layer in ("pool", "fc6", "fc7"):
        np.testing.assert_allclose(rcnn.layers[layer], spp.layers[layer], rtol=1e-4, atol=1e-4)


def test_the_whole_image_looks_nearly_the_same_in_both_modes() -> None:
    # At a short side of 192 the image is as large for the network as it is within the crop; the
    # padding, and that the network rounds off its borders elsewhere, makes the difference.
    detector = make_detector(f"features.scales=[{INNER}]", POOLED)
    image, box = picture(INNER, INNER, seed=2), np.array([[0, 0, INNER, INNER]], np.float32)
    spp = region_features(detector, image, box).layers["pool"]
    same = likeness(features(detector, image, box).layers["pool"], spp)
    assert same > 0.8
    for seed in range(6, 9):
        other = features(detector, picture(INNER, INNER, seed=seed), box)
        assert likeness(other.layers["pool"], spp) < same


def test_detections_keep_their_promises(detector: Detector) -> None:
    rcnn, image = RcnnDetector(detector), picture(seed=7)
    assert (rcnn.classes, rcnn.config) == (detector.classes, detector.config)
    found = rcnn.detect_regions(image, random_boxes(24, 120, 90))
    assert len(found) > 5
    assert found.classes == CLASSES
    assert UNTRAINED not in found.labels
    assert (np.diff(found.scores) <= 0).all()
    assert (found.boxes[:, :2] >= 0).all()
    assert (found.boxes[:, 2:] <= (120, 90)).all()
    for label in np.unique(found.labels):
        boxes = found.boxes[found.labels == label]
        overlaps, most = box_iou(boxes, boxes), detector.config.detection.nms_iou
        assert overlaps[~np.eye(len(boxes), dtype=bool)].max(initial=0.0) <= most + 1e-6


def test_it_looks_at_the_detectors_own_proposals(detector: Detector) -> None:
    rcnn, image = RcnnDetector(detector), picture(seed=4)
    found = rcnn.detect(image)
    same = rcnn.detect_regions(image, detector.propose(image))
    assert np.array_equal(found.boxes, same.boxes)
    assert np.array_equal(found.scores, same.scores)


def test_the_detector_itself_is_left_as_it_was(detector: Detector) -> None:
    image = picture(seed=5)
    before = detector.detect(image)
    RcnnDetector(detector).detect(image)
    after = detector.detect(image)
    assert np.array_equal(before.boxes, after.boxes)
    assert np.array_equal(before.scores, after.scores)


def test_an_array_that_is_no_image_is_refused(detector: Detector) -> None:
    wrong: Any = np.zeros((10, 0), np.uint8)
    with pytest.raises(ImageError, match="without pixels"):
        RcnnDetector(detector).detect(cast(ImageArray, wrong))


class Told(NullProgress):
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int]] = []
        self.done: list[int] = []

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        self.stages.append((label, total))
        yield self.done.append

    def say(self, text: str) -> None:
        raise AssertionError(text)


def test_progress_counts_regions(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    monkeypatch.setattr(rcnn_mode, "BATCH", 2)
    boxes = random_boxes(5, 120, 90)
    rules = "detection.refine_top=0"
    RcnnDetector(detector.configure(None, [rules]), progress=told).detect_regions(picture(), boxes)
    assert told.stages == [("regions", 5)]
    assert told.done == [2, 2, 1]


def test_crops_are_joined_as_the_extractor_joins_its_maps(detector: Detector) -> None:
    # An image as large as a crop, and its own crop without padding: the same map, bit for bit.
    square = make_detector(f"features.scales=[{SIDE}]")
    image = picture(SIDE, SIDE, seed=6)
    whole = np.array([0, 0, SIDE, SIDE], np.float32)
    crop = warp_region(square.extractor.backbone, image, whole, SIDE, 0)
    x = square.extractor.backbone.preprocess(image, SIDE)[0]
    assert torch.equal(torch.from_numpy(crop).permute(2, 0, 1)[None], x)
