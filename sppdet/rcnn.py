"""R-CNN mode: every region is warped to one size and runs through the network on its own.

This is what SPP-net is measured against (Girshick et al. 2014; He et al. 2014, sec. 4.3). Backbone,
fully connected layers, SVMs, box regressors and NMS are those of a trained detector; only the map
that a region is pooled from is another. It takes some eighty times as long as the detector itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from sppdet.backbones import Backbone
from sppdet.detector import Detector
from sppdet.errors import ConfigError
from sppdet.features import FeatureExtractor, FeatureMaps, ScaledMap
from sppdet.head import RegionHead
from sppdet.images import as_image
from sppdet.progress import NullProgress, Progress
from sppdet.region_features import RegionFeatures
from sppdet.types import Detections, FloatArray, ImageArray

# Side in pixels of the square that a region is warped to, and how many of them on each side show
# what is around the region (R-CNN, appendix A: 227 and 16, for its network's input).
SIDE = 224
PADDING = 16
# Crops that go through the network at once.
BATCH = 32


# Regions `(N, 4)` to their pooled vectors `float32 (N, dim)`.
Pooling = Callable[[FloatArray], FloatArray]


class CropFeatures(RegionFeatures):
    """Features of regions that are each pooled from a map of their own, one row a box."""

    def __init__(
        self, head: RegionHead, pooling: Pooling, boxes: FloatArray, size: tuple[int, int]
    ) -> None:
        self.boxes, self.size = boxes, size
        self._head, self._pooling = head.eval(), pooling
        self.pool = pooling(boxes)
        # No map shows the whole image.
        self.scene = None

    def at(self, boxes: FloatArray) -> CropFeatures:
        return CropFeatures(self._head, self._pooling, boxes, self.size)


class RcnnDetector:
    """A trained detector that looks at each region on its own, as R-CNN does.

    Attributes:
        classes, config: the detector's.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        padding: int = PADDING,
        batch: int = BATCH,
        progress: Progress | None = None,
    ) -> None:
        """`batch` crops go through the network at once; `progress` is told of an image's regions.

        Raises ConfigError for combined models, ValueError for a batch below 1 or a padding that
        leaves nothing of the crop.
        """
        if batch < 1:
            raise ValueError(f"a batch of {batch} crops")
        if detector.partners:
            raise ConfigError("combined models have no R-CNN mode", mend="name one model")
        if not 0 <= 2 * padding < SIDE:
            raise ValueError(f"a padding of {padding} in crops of {SIDE} pixels")
        self.classes, self.config = detector.classes, detector.config
        self._detector, self._padding, self._batch = detector, padding, batch
        self._progress: Progress = NullProgress() if progress is None else progress

    def detect(self, image: str | Path | ImageArray) -> Detections:
        """The objects of one image, as `Detector.detect` gives them; raises ImageError as it."""
        pixels = as_image(image)
        return self.detect_regions(pixels, self._detector.propose(pixels))

    def detect_regions(self, image: ImageArray, boxes: FloatArray) -> Detections:
        """The objects among given regions `(N, 4)` of an image `uint8 (H, W, 3)`."""
        return self._detector.detect_features(self.features(image, boxes))

    def features(self, image: ImageArray, boxes: FloatArray) -> RegionFeatures:
        """The features of regions `(N, 4)` in image pixels, each from a map of its own.

        Law: a region's features do not depend on the other regions, up to rounding.
        """
        pooling = partial(self._pooled, image)
        return CropFeatures(self._detector.head, pooling, boxes, (image.shape[1], image.shape[0]))

    def _pooled(self, image: ImageArray, boxes: FloatArray) -> FloatArray:
        """`float32 (N, dim)`: the regions' pooled vectors, batch by batch."""
        pooled = np.zeros((len(boxes), self._detector.head.layer_width("pool")), np.float32)
        with self._progress.task("regions", len(boxes)) as advance:
            for start in range(0, len(boxes), self._batch):
                part = boxes[start : start + self._batch]
                pooled[start : start + len(part)] = self._pooled_batch(image, part)
                advance(len(part))
        return pooled

    def _pooled_batch(self, image: ImageArray, boxes: FloatArray) -> FloatArray:
        """`float32 (N, dim)`: one batch through the network, then each map pooled by the head.

        The head sees a crop as an image of its own. Its window is the region's part of the crop,
        without the padding, as it was trained on tight windows; its context windows are grown as
        always and end with the crop, so that the padding is all they add. Of 137 objects of
        VOC2007 val, the SVMs of a model trained on `train` named 59 % right so, 54 % with the whole
        crop as window, and 71 % pooled from the image's map, as they were trained.
        """
        extractor, head = self._detector.extractor, self._detector.head
        padding, end = self._padding, SIDE - self._padding
        crops = [warp_region(extractor.backbone, image, box, SIDE, padding) for box in boxes]
        region = np.array([[padding, padding, end, end]], np.float32)
        # Whichever scale the head takes the region for, there is the one map.
        scales = len(extractor.config.scales)
        rows = []
        with torch.inference_mode():
            x = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).to(extractor.device)
            for cells in _joined(extractor, x):
                maps = FeatureMaps((ScaledMap(cells, 1.0, 1.0),) * scales, SIDE, SIDE)
                rows.append(head.pool(maps, region))
            pooled: FloatArray = torch.cat(rows).numpy()
        return pooled


def warp_region(
    backbone: Backbone,
    image: ImageArray,
    box: FloatArray,
    side: int = SIDE,
    padding: int = PADDING,
) -> FloatArray:
    """`float32 (side, side, 3)`: the region and its surroundings, normalised for the network.

    The box `(4,)`, in image pixels, is stretched to the square that `padding` leaves of the crop,
    whatever its aspect; the rest shows what is around it, and is 0, the network's mean, outside
    the image (R-CNN, appendix A).
    """
    crop = np.zeros((side, side, 3), np.float32)
    x1, x2, width, left = _stretch(float(box[0]), float(box[2]), image.shape[1], side, padding)
    y1, y2, height, top = _stretch(float(box[1]), float(box[3]), image.shape[0], side, padding)
    patch = np.ascontiguousarray(image[y1:y2, x1:x2])
    patch = np.asarray(cv2.resize(patch, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    patch = patch[max(0, -top) : side - top, max(0, -left) : side - left]
    rows, columns = patch.shape[:2]
    top, left = max(0, top), max(0, left)
    crop[top : top + rows, left : left + columns] = backbone.normalise(patch)
    return crop


def _stretch(low: float, high: float, length: int, side: int, padding: int) -> tuple[int, ...]:
    """One axis of the warp of `low .. high`: first and last + 1 image pixel, their new length,
    and where in the crop they begin (negative: so many of them lie before it)."""
    scale = (side - 2 * padding) / max(high - low, 1.0)
    start = low - padding / scale
    first = min(max(int(np.floor(start)), 0), length - 1)
    last = min(max(int(np.ceil(start + side / scale)), first + 1), length)
    return first, last, max(1, round((last - first) * scale)), round((first - start) * scale)


def _joined(extractor: FeatureExtractor, x: Tensor) -> Tensor:
    """`(N, h, w, C)`: the channels of all taps, as `FeatureExtractor` joins them."""
    found = extractor.forward(x)
    maps = [found[tap].permute(0, 2, 3, 1) for tap in extractor.config.taps]
    joined: Tensor = torch.cat(maps, dim=3)
    return joined.contiguous().cpu()
