"""R-CNN mode: every region is warped to one size and runs through the network on its own.

This is what SPP-net is measured against (Girshick et al. 2014; He et al. 2014, sec. 4.3). Backbone,
fully connected layers, SVMs, box regressors and NMS are those of a trained detector; only the map
that a region is pooled from is another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import overload

import cv2
import numpy as np
import torch
from torch import Tensor

from sppdet.backbones import Backbone
from sppdet.backbones.feature_maps import FeatureExtractor, FeatureMap, FeatureMaps
from sppdet.core.progress import NullProgress, Progress
from sppdet.core.types import Detections, FloatArray, ImageArray, IntArray
from sppdet.detection.detector import Detector
from sppdet.detection.postprocess import postprocess
from sppdet.detection.scoring import ClassGroup, ClassRefiner, detect_candidates
from sppdet.heads.head import RegionFeatures
from sppdet.media.image_inputs import ImageInput, as_image, is_single

# Side in pixels of the square that a region is warped to, and how many of them on each side show
# what is around the region (R-CNN, appendix A: 227 and 16, for its network's input).
SIDE = 224
PADDING = 16
# Crops that go through the network at once.
BATCH = 32


class RcnnDetector:
    """A trained detector that sees each region on its own, as R-CNN does.

    Attributes:
        classes, config, is_calibrated: the detector's.
    """

    def __init__(self, detector: Detector, *, progress: Progress | None = None) -> None:
        """`progress` shows how far an image's regions are."""
        self.classes, self.config = detector.classes, detector.config
        self.is_calibrated = detector.is_calibrated
        self._detector = detector
        self._progress: Progress = NullProgress() if progress is None else progress

    @overload
    def detect(self, image: ImageInput) -> Detections: ...  # type: ignore[overload-overlap]
    @overload
    def detect(self, image: Iterable[ImageInput]) -> list[Detections]: ...
    def detect(self, image: ImageInput | Iterable[ImageInput]) -> Detections | list[Detections]:
        """Detect the objects of an image, or of each image of a list, as `Detector.detect` does."""
        if not is_single(image):
            return [self.detect(one) for one in image]
        pixels = as_image(image)
        return self.detect_regions(pixels, self._detector.propose(pixels))

    def detect_regions(self, image: ImageArray, boxes: FloatArray) -> Detections:
        """Detect the objects among regions `(N, 4)` of an image `uint8 (H, W, 3)`."""
        rules, view = self.config.detection, WarpedImage(self._detector, image, self._progress)
        found = detect_candidates([view], boxes, rules)
        return postprocess(found, self.classes, rules, self._detector.calibration)


@dataclass(frozen=True, slots=True, eq=False)
class WarpedImage:
    """An image whose regions are each pooled from a map of their own (a `RegionView`).

    Attributes:
        detector: the model.
        image: `uint8 (H, W, 3)`.
        progress: shows how far the regions are.
    """

    detector: Detector
    image: ImageArray
    progress: Progress

    @property
    def groups(self) -> tuple[ClassGroup, ...]:
        """The model's."""
        return self.detector.groups

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image in pixels."""
        return self.image.shape[1], self.image.shape[0]

    def regions(self, boxes: FloatArray) -> RegionFeatures:
        """Compute the features of regions `(N, 4)`, each from a map of its own.

        Invariant: a region's features do not depend on the other regions, up to rounding.
        """
        head = self.detector.head
        pooled = torch.zeros(len(boxes), head.pooler.dim)
        with self.progress.task("regions", len(boxes)) as advance, torch.inference_mode():
            for start in range(0, len(boxes), BATCH):
                part = boxes[start : start + BATCH]
                pooled[start : start + len(part)] = self._pool(part)
                advance(len(part))
            return head.regions_from_pooled(pooled, boxes, self.size)

    def refine(
        self, refiner: ClassRefiner, regions: RegionFeatures, rows: IntArray, labels: IntArray
    ) -> FloatArray:
        """`float32 (M, 4)`: the boxes of some of the regions, moved for some classes of a group."""
        return refiner.refine(regions, rows, labels)

    def _pool(self, boxes: FloatArray) -> Tensor:
        """`float32 (N, dim)`: one batch through the network, then each map pooled by the head.

        The head sees a crop as an image of its own. Its window is the region's part of the crop,
        without the padding, as it was trained on tight windows; its larger windows end with the
        crop, so that the padding is all they add (docs/experiments.md has the figures).
        """
        extractor, pooler = self.detector.extractor, self.detector.head.pooler
        end = SIDE - PADDING
        crops = [warp_region(extractor.backbone, self.image, box, SIDE, PADDING) for box in boxes]
        region = np.array([[PADDING, PADDING, end, end]], np.float32)
        x = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).to(extractor.device)
        rows = []
        for values in _joined_layers(extractor, x):
            maps = FeatureMaps((FeatureMap(values, 1.0, 1.0, SIDE),), SIDE, SIDE)
            rows.append(pooler.pool(pooler.prepare(maps), region))
        return torch.cat(rows)


def warp_region(
    backbone: Backbone,
    image: ImageArray,
    box: FloatArray,
    side: int = SIDE,
    padding: int = PADDING,
) -> FloatArray:
    """`float32 (side, side, 3)`: the region and its surroundings, normalized for the network.

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
    crop[top : top + rows, left : left + columns] = backbone.normalize(patch)
    return crop


def _stretch(low: float, high: float, length: int, side: int, padding: int) -> tuple[int, ...]:
    """One axis of the warp of `low .. high`: first and last + 1 image pixel, their new length,
    and where in the crop they begin (negative: so many of them lie before it)."""
    scale = (side - 2 * padding) / max(high - low, 1.0)
    start = low - padding / scale
    first = min(max(int(np.floor(start)), 0), length - 1)
    last = min(max(int(np.ceil(start + side / scale)), first + 1), length)
    return first, last, max(1, round((last - first) * scale)), round((first - start) * scale)


def _joined_layers(extractor: FeatureExtractor, x: Tensor) -> Tensor:
    """`(N, h, w, C)`: the channels of all layers, as `FeatureExtractor` joins them."""
    found = extractor.forward(x)
    maps = [found[layer].permute(0, 2, 3, 1) for layer in extractor.config.layers]
    channels: Tensor = torch.cat(maps, dim=3)
    return channels.contiguous().cpu()
