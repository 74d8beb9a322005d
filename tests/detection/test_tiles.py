"""Tiles: they cover the image, what an edge cuts is dropped, and each object is found once."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.boxes import box_iou, clip
from sppdet.core.errors import ConfigError
from sppdet.core.images import read_image
from sppdet.core.types import Detections, FloatArray
from sppdet.detection.config import DetectionConfig
from sppdet.detection.detector import Detector
from sppdet.detection.ensemble import Ensemble, load_detector
from sppdet.detection.modes.tiles import CUT, TiledDetector, is_whole, windows
from sppdet.detection.postprocess import Candidates, postprocess
from sppdet.detection.probabilities.calibration import Calibration
from tests.helpers.made_detector import CLASSES, make_detector, picture

DEMO = Path(__file__).parents[2] / "docs" / "demo.jpg"
ONE = make_detector()

sides = st.integers(1, 300)
overlaps = st.floats(0, 0.9)


def equal(found: Detections, expected: Detections) -> bool:
    return all(
        np.array_equal(getattr(found, name), getattr(expected, name))
        for name in ("boxes", "scores", "labels", "margins")
    )


@given(sides, sides, st.integers(1, 120), overlaps)
@settings(deadline=None)
def test_tiles_cover_the_image_and_overlap(w: int, h: int, size: int, overlap: float) -> None:
    first, *tiles = windows(w, h, size, overlap)
    assert first == (0, 0, w, h)
    assert bool(tiles) == (max(w, h) > size)
    for axis, length in ((0, w), (1, h)):
        spans = sorted({(tile[axis], tile[axis + 2]) for tile in tiles})
        if spans:
            assert spans[0][0] == 0
            assert spans[-1][1] == length
        for (start, end), (after, _) in pairwise(spans):
            assert end - start == size
            assert end - after >= overlap * size - 1


@given(st.integers(100, 300), st.data())
@settings(deadline=None)
def test_an_object_no_larger_than_the_overlap_is_whole_in_some_tile(
    length: int, data: st.DataObject
) -> None:
    size, overlap = data.draw(st.integers(50, 99)), data.draw(st.floats(0.1, 0.8))
    most = overlap * size - 2 * CUT * size - 1
    box = []
    for _ in range(2):
        side = data.draw(st.floats(0.5, max(0.5, most)))
        start = data.draw(st.floats(0, length - side))
        box.append((start, start + side))
    (x1, x2), (y1, y2) = box
    boxes = np.array([[x1, y1, x2, y2]], np.float32)
    _, *tiles = windows(length, length, size, overlap)
    inside = [
        window
        for window in tiles
        if window[0] <= x1 and window[1] <= y1 and x2 <= window[2] and y2 <= window[3]
    ]
    assert most < 0.5 or any(is_whole(boxes, one, length, length)[0] for one in inside)


def seen(objects: FloatArray, smallest: float, shown: tuple[int, int, int, int]) -> FloatArray:
    """What a detector finds in a window: the visible part of each object that is large enough."""
    parts = clip(
        objects - np.array(shown[:2] * 2, np.float32), shown[2] - shown[0], shown[3] - shown[1]
    )
    large = (parts[:, 2:] - parts[:, :2]).min(axis=1) >= smallest
    moved: FloatArray = parts[large] + np.array(shown[:2] * 2, np.float32)
    return moved


def test_every_object_is_found_once_wherever_the_seams_are() -> None:
    w, h, size, overlap = 500, 400, 200, 0.3
    rng = np.random.default_rng(0)
    none = DetectionConfig()
    for _ in range(200):
        # The whole image shows objects of 45 pixels and more, tiles those of 8.
        side = rng.uniform(8, 150, 2)
        corner = rng.uniform(0, [w - side[0], h - side[1]])
        objects = np.array([[*corner, *(corner + side)]], np.float32)
        found = []
        for n, window in enumerate(windows(w, h, size, overlap)):
            own = seen(objects, 45 if n == 0 else 8, window)
            own = own[is_whole(own, window, w, h)]
            found.append(
                Candidates(own, np.ones(len(own), np.float32), np.zeros(len(own), np.int64))
            )
        joined = Candidates.concat(found)
        detections = postprocess(joined, ("a",), none, Calibration.uncalibrated(1))
        # Only what is flat as well as long is too small for one and too long for the other.
        if side.min() >= 45 or side.max() <= overlap * size - 2 * CUT * size - 1:
            assert len(detections) == 1
        if len(detections):
            assert len(detections) == 1
            np.testing.assert_allclose(detections.boxes, objects, atol=1e-3)


@pytest.mark.parametrize("size", [120, 121, 5000])
@pytest.mark.parametrize("detector", [ONE, Ensemble([ONE, make_detector(seed=1)], "union")])
def test_an_image_no_larger_than_a_tile_gives_what_the_detector_gives(
    detector: Detector | Ensemble, size: int
) -> None:
    image = picture()
    plain = detector.detect(image)
    assert len(plain)
    assert equal(TiledDetector(detector, size).detect(image), plain)


@pytest.mark.parametrize(("w", "h"), [(200, 90), (61, 170), (60, 60), (300, 1)])
def test_boxes_lie_in_the_image_and_scores_are_calibrated_once(w: int, h: int) -> None:
    detector = Ensemble([ONE])
    tiled = TiledDetector(detector, 60, 0.25)
    found = tiled.detect(picture(max(w, 40), max(h, 40))[:h, :w])
    assert tiled.classes == found.classes == CLASSES
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [w, h, w, h]).all()
    expected = ONE.calibration.probabilities(found.margins, found.labels)
    np.testing.assert_array_equal(found.scores, expected)
    rules = tiled.config.detection
    for label in range(len(CLASSES)):
        own = found.boxes[found.labels == label]
        assert len(own) <= rules.max_per_class
        assert (np.triu(box_iou(own, own), 1) <= rules.nms_iou).all()


def test_small_objects_of_a_large_photo_are_found_once_each() -> None:
    photo = read_image(DEMO)
    small = cv2.resize(photo, (328, 219), interpolation=cv2.INTER_AREA)
    image = np.full((460, 760, 3), 128, np.uint8)
    image[120:339, 200:528] = small
    detector = load_detector("fast")
    found = TiledDetector(detector, 460, 0.5).detect(image).above(0.5)
    people = found.boxes[[one.name == "person" for one in found]]
    # As the demo's own picture has them.
    places = np.array([[683, 345, 947, 652], [12, 363, 207, 640], [674, 39, 902, 332]]) / 3
    expected = np.add(places, [200, 120, 200, 120]).astype(np.float32)
    overlaps = box_iou(expected, people)
    assert ((overlaps > 0.5).sum(axis=1) == 1).all()


@pytest.mark.parametrize(
    ("size", "overlap"), [(0, 0.2), (100, 1.0), (100, -0.1), (100, float("nan"))]
)
def test_tiles_that_cannot_be_are_refused(size: int, overlap: float) -> None:
    with pytest.raises(ConfigError, match="tiles of"):
        TiledDetector(ONE, size, overlap)
