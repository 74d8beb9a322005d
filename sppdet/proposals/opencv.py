"""OpenCV's selective search, made a function of the image: its own order is not.

OpenCV multiplies ranks by C `rand()`, so the order (not the set) of its boxes depends on what the
process did before; and it puts small boxes first. Here the set is sorted and put in a seeded
order that favors large boxes, as OpenCV does not report where in its hierarchies a box came from.
"""

from __future__ import annotations

import cv2
import numpy as np

from sppdet.core.errors import SppdetError
from sppdet.core.types import FloatArray, ImageArray
from sppdet.proposals import ranking


def opencv_search(
    image: ImageArray,
    *,
    quality: bool = False,
    min_side: int = 12,
    max_proposals: int = 0,
    seed: int = 0,
) -> FloatArray:
    """Propose boxes `float32 (N, 4)` of an RGB image, best first; x1 y1 x2 y2, original pixels.

    At least one box, all within the image, no two alike. Boxes narrower or lower than `min_side`
    pixels are left out; should none remain, the whole image is the one proposal.

    Raises:
        SppdetError: this OpenCV has no selective search.
    """
    height, width = image.shape[:2]
    boxes = _search(image, quality)
    boxes[:, 2:] += boxes[:, :2]
    boxes = np.clip(boxes, 0, np.array([width, height, width, height]))
    boxes = np.unique(boxes, axis=0)
    sides = boxes[:, 2:] - boxes[:, :2]
    boxes = boxes[sides.min(axis=1) >= max(min_side, 1)]
    if len(boxes) == 0:
        boxes = np.array([[0, 0, width, height]])
    sides = boxes[:, 2:] - boxes[:, :2]
    priority = ranking.random_integers(len(boxes), seed, 0) / np.sqrt(sides.prod(axis=1))
    boxes = boxes[np.argsort(priority, kind="stable")]
    return boxes[: max_proposals or None].astype(np.float32)


def _search(image: ImageArray, quality: bool) -> np.ndarray:
    """Compute OpenCV's boxes `x y width height`, in no particular order."""
    try:
        return _process(image, quality)
    except cv2.error:
        # Some releases fail on long, narrow images (opencv_contrib issue 705): make it square.
        height, width = image.shape[:2]
        side = max(height, width)
        square = cv2.copyMakeBorder(image, 0, side - height, 0, side - width, cv2.BORDER_REPLICATE)
        return _process(np.asarray(square, dtype=np.uint8), quality)


def _process(image: ImageArray, quality: bool) -> np.ndarray:
    try:
        segmentation = cv2.ximgproc.segmentation
    except AttributeError:
        raise SppdetError(
            "this OpenCV has no selective search (cv2.ximgproc is missing)",
            hint="keep opencv-contrib-python and uninstall the other opencv packages",
        ) from None
    search = segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR))
    if quality:
        search.switchToSelectiveSearchQuality()
    else:
        search.switchToSelectiveSearchFast()
    return np.asarray(search.process(), dtype=np.int64).reshape(-1, 4)
