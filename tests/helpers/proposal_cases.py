"""Images to propose boxes for, and what holds for every list of proposals."""

from __future__ import annotations

import numpy as np

from sppdet.core.types import FloatArray, ImageArray


def scene(height: int, width: int, seed: int = 0) -> ImageArray:
    """Random rectangles of flat color with a little noise."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 90, np.float64)
    for _ in range(12):
        x1, x2 = np.sort(rng.integers(0, width + 1, 2))
        y1, y2 = np.sort(rng.integers(0, height + 1, 2))
        image[y1:y2, x1:x2] = rng.integers(0, 256, 3)
    noisy: ImageArray = np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
    return noisy


def check(boxes: FloatArray, image: ImageArray) -> None:
    """What holds for every list of proposals."""
    height, width = image.shape[:2]
    assert boxes.dtype == np.float32
    assert boxes.ndim == 2
    assert boxes.shape[1] == 4
    assert len(boxes) >= 1
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= [width, height]).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert len(np.unique(boxes, axis=0)) == len(boxes)
    np.testing.assert_array_equal(boxes, np.rint(boxes))
