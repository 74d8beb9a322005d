from __future__ import annotations

import cv2
import numpy as np
import pytest

from sppdet.core.errors import SppdetError
from sppdet.proposals.opencv import opencv_search
from tests.helpers.proposal_cases import check, scene


def test_the_boxes_are_those_of_opencv() -> None:
    image = scene(90, 120)
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[:, :, ::-1]))
    search.switchToSelectiveSearchFast()
    theirs = {(x, y, x + w, y + h) for x, y, w, h in np.array(search.process()).tolist()}
    assert {tuple(b) for b in opencv_search(image, min_side=1).astype(int).tolist()} == theirs


def test_small_boxes_go_and_the_list_is_cut() -> None:
    image = scene(90, 120)
    boxes = opencv_search(image, min_side=30)
    assert (boxes[:, 2:] - boxes[:, :2]).min() >= 30
    np.testing.assert_array_equal(opencv_search(image, min_side=30, max_proposals=3), boxes[:3])
    assert opencv_search(image, min_side=500).tolist() == [[0, 0, 120, 90]]


def test_an_opencv_that_fails_on_narrow_images_gets_a_square(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sppdet.proposals import opencv

    process = opencv._process

    def fussy(image: np.ndarray, quality: bool) -> np.ndarray:
        if image.shape[0] != image.shape[1]:
            raise cv2.error("narrow")
        return process(image, quality)

    monkeypatch.setattr(opencv, "_process", fussy)
    image = scene(30, 100)
    check(opencv_search(image), image)


def test_an_opencv_without_ximgproc_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "ximgproc")
    with pytest.raises(SppdetError, match="opencv-contrib-python"):
        opencv_search(scene(8, 8))
