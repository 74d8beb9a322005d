"""Large photos with small objects: the image as it is, and overlapping tiles of it.

A network is shown every image at about the same size, so that in a large one small objects become
too small to be proposed and scored. A tile is an image of its own: proposals, feature maps, scores
and box regression, as for any other. The candidates of all go through one post-processing (Akyon
et al. 2022, "Slicing aided hyper inference").
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from sppdet.core.errors import ConfigError
from sppdet.core.types import BoolArray, Detections, FloatArray
from sppdet.detection.detector import Detector
from sppdet.detection.ensemble import Ensemble
from sppdet.detection.postprocess import Candidates, postprocess
from sppdet.media.image_inputs import ImageInput, as_image

# Side of a tile in pixels and share of it that neighbors have in common (those of SAHI and
# supervision's InferenceSlicer).
SIZE, OVERLAP = 640, 0.2
# A box that comes so near to an inner edge of its tile, as a share of the side, may have been cut:
# box regression moves edges by a few percent.
CUT = 0.02

# Left, top, right and bottom of a part of an image, in pixels.
Window = tuple[int, int, int, int]


class TiledDetector:
    """A trained detector that sees an image as a whole and in overlapping tiles.

    A box at an inner edge of a tile is dropped, since the object may go on beyond it: the
    neighbor has it whole, or else the whole image. So an object on a seam is found once.

    Probabilities are made of margins once, after all candidates have been through NMS. They were
    fitted on whole images: in a tile the same objects are larger, the image context is the tile's,
    and every tile has its own false detections. Where that matters, set a higher threshold, or fit
    a calibration to what tiles find (`probabilities.calibrate.fit_detections`).

    Invariants: an image no larger than a tile gives what the detector gives, to the last bit; all
    boxes lie in the image.

    Args:
        detector: a model or several.
        size: side of a tile in pixels.
        overlap: share of a side, from 0 to below 1, that neighbors have in common at least.
            Objects larger than that, less `CUT` at either end, may be seen only in the whole image.

    Raises ConfigError for a size below 1 and an overlap outside [0, 1).

    Attributes:
        classes, config, is_calibrated: the detector's.
    """

    def __init__(
        self, detector: Detector | Ensemble, size: int = SIZE, overlap: float = OVERLAP
    ) -> None:
        if size < 1 or not 0 <= overlap < 1:
            raise ConfigError(
                f"tiles of {size} pixels that overlap by {overlap:g}",
                hint="give a side of 1 or more, and an overlap from 0 to below 1, such as 0.2",
            )
        self.classes, self.config = detector.classes, detector.config
        self.is_calibrated = detector.is_calibrated
        self._detector, self._size, self._overlap = detector, size, overlap

    def detect(self, image: ImageInput) -> Detections:
        """Detect the objects of one image, as `Detector.detect`; raises ImageError as it.

        `detection.max_candidates` holds in each tile, `max_per_class` in the whole image.
        """
        pixels, detector = as_image(image), self._detector
        height, width = pixels.shape[:2]
        found = []
        for window in windows(width, height, self._size, self._overlap):
            left, top, right, bottom = window
            part = np.ascontiguousarray(pixels[top:bottom, left:right])
            own = detector.candidates(detector.extract(part), detector.propose(part))
            boxes = own.boxes + np.array([left, top, left, top], np.float32)
            kept = np.flatnonzero(is_whole(boxes, window, width, height))
            found.append(Candidates(boxes[kept], own.scores[kept], own.labels[kept]))
        rules = self.config.detection
        return postprocess(Candidates.concat(found), self.classes, rules, detector.calibration)


def windows(width: int, height: int, size: int, overlap: float) -> Iterator[Window]:
    """Yield the whole image, then its tiles row by row; no tiles where it is no larger than one.

    Tiles are `size` x `size` pixels, or as long as the image is, evenly spaced, the first and the
    last at the image's edges. Invariant: neighbors share `overlap * size` pixels or more, less one
    for rounding.
    """
    yield 0, 0, width, height
    if max(width, height) <= size:
        return
    for top, bottom in _spans(height, size, overlap):
        for left, right in _spans(width, size, overlap):
            yield left, top, right, bottom


def _spans(length: int, size: int, overlap: float) -> list[tuple[int, int]]:
    """Cover one side of an image by so many tiles as the overlap takes."""
    if length <= size:
        return [(0, length)]
    step = max(1.0, size * (1 - overlap))
    count = math.ceil((length - size) / step) + 1
    starts = np.rint(np.linspace(0, length - size, count)).astype(int).tolist()
    return [(start, start + size) for start in starts]


def is_whole(boxes: FloatArray, window: Window, width: int, height: int) -> BoolArray:
    """`bool (N,)`: whether boxes keep clear of their window's edges inside the image."""
    left, top, right, bottom = window
    across, down = CUT * (right - left), CUT * (bottom - top)
    whole: BoolArray = (
        ((boxes[:, 0] >= left + across) | (left == 0))
        & ((boxes[:, 1] >= top + down) | (top == 0))
        & ((boxes[:, 2] <= right - across) | (right == width))
        & ((boxes[:, 3] <= bottom - down) | (bottom == height))
    )
    return whole
