"""Detection in lists and streams of images equals detection one by one, to the last bit."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sppdet.core.errors import ImageError, SppdetError
from sppdet.core.parallel import AHEAD
from sppdet.core.types import Detections
from sppdet.detection.detector import Detector
from sppdet.detection.ensemble import Ensemble
from sppdet.detection.modes.rcnn import RcnnDetector
from tests.helpers.made_detector import make_detector, picture

PICTURES = [picture(seed=seed) for seed in range(5)]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_detector()


def assert_same(found: Detections | SppdetError, expected: Detections) -> None:
    assert isinstance(found, Detections)
    assert len(expected) > 0
    for field in ("boxes", "scores", "labels", "margins"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))


def test_no_images(detector: Detector) -> None:
    assert detector.detect([]) == []
    assert list(detector.detect_many([])) == []


def test_every_kind_of_input_detects_the_same(detector: Detector, tmp_path: Path) -> None:
    pixels = PICTURES[0]
    expected = detector.detect(pixels)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    opaque = np.dstack([pixels, np.full_like(pixels[..., :1], 255)])
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    kinds: dict[str, Any] = {
        "path": path,
        "str": str(path),
        "bytes": path.read_bytes(),
        "file object": io.BytesIO(path.read_bytes()),
        "Pillow": Image.fromarray(pixels),
        "RGBA": opaque,
        "float": pixels / 255,
        "tensor": tensor,
        "float tensor": tensor / 255,
    }
    for kind, value in kinds.items():
        if kind != "file object":
            assert_same(detector.detect(value), expected)
    for kind, found in zip(kinds, detector.detect_many(kinds.values(), workers=3), strict=True):
        assert isinstance(found, Detections), kind
        assert_same(found, expected)
    gray = pixels[:, :, 0]
    assert_same(detector.detect(gray), detector.detect(np.repeat(gray[:, :, None], 3, axis=2)))


@pytest.mark.parametrize("workers", [1, 2])
def test_many_equal_one_by_one(detector: Detector, workers: int) -> None:
    ensemble = Ensemble([detector, make_detector(seed=1)])
    for model in (detector, ensemble):
        expected = [model.detect(one) for one in PICTURES]
        for found in (model.detect_many(iter(PICTURES), workers=workers), model.detect(PICTURES)):
            for one, by_itself in zip(found, expected, strict=True):
                assert_same(one, by_itself)


def test_rcnn_takes_lists(detector: Detector) -> None:
    few = RcnnDetector(make_detector("proposals.max_proposals=5"))
    found = few.detect((PICTURES[0], Image.fromarray(PICTURES[0])))
    assert len(found) == 2
    assert_same(found[1], found[0])


def test_errors_stand_in_their_place(detector: Detector, tmp_path: Path) -> None:
    absent = tmp_path / "absent.jpg"
    images: list[Any] = [None, PICTURES[0], absent, PICTURES[1], np.zeros((3, 4, 5, 6)), b"no"]
    found = list(detector.detect_many(images))
    assert [isinstance(one, ImageError) for one in found] == [True, False, True, False, True, True]
    assert str(found[2]) == f"{absent}: no such image file; check the path"
    for place in (1, 3):
        assert_same(found[place], detector.detect(images[place]))
    with pytest.raises(ImageError, match=r"^image 1 \(.*absent\.jpg\): no such image file; check"):
        detector.detect(images[1:3])
    with pytest.raises(ImageError, match=r"^image 0: an image of type NoneType; give a path"):
        detector.detect(images)


def test_few_images_are_taken_ahead_and_none_after_the_end(detector: Detector) -> None:
    taken = 0

    def source() -> Iterator[Any]:
        nonlocal taken
        while taken < 99:
            taken += 1
            yield PICTURES[0]

    stream = detector.detect_many(source())
    assert taken == 0
    for count in range(1, 4):
        next(stream)
        assert taken <= count + AHEAD
    stream.close()  # type: ignore[attr-defined]
    assert taken < 99


def test_an_error_of_the_source_is_not_hidden(detector: Detector) -> None:
    def source() -> Iterator[Any]:
        yield PICTURES[0]
        raise RuntimeError("the camera is off")

    with pytest.raises(RuntimeError, match="the camera is off"):
        list(detector.detect_many(source()))
