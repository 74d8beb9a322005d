"""The images that a class is learned from, as a model sees them: regions with their features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from sppdet.backbones.feature_maps import FeatureMaps
from sppdet.core.boxes import areas, box_iou
from sppdet.core.images import read_sample
from sppdet.core.parallel import prefetch
from sppdet.core.progress import Progress
from sppdet.core.types import BoolArray, Dataset, FloatArray, IntArray, Sample
from sppdet.detection.augmentation import MapRequest
from sppdet.detection.detector_parts import DetectorParts
from sppdet.heads.added.added_class import FEATURES
from sppdet.heads.head import RegionFeatures, RegionHead
from sppdet.heads.region_averages import has_averages
from sppdet.proposals import Proposer

# Proposals kept of an image: of few images many, of many images fewer, 0.3 GB of them in all.
MOST_PROPOSALS, FEWEST_PROPOSALS, ALL_PROPOSALS = 1000, 100, 48_000

Features = Mapping[str, NDArray[Any]]


class Model(Protocol):
    """A detector, as far as classes are added to it."""

    parts: DetectorParts
    requests: tuple[MapRequest, ...]
    propose: Proposer


@dataclass(frozen=True, slots=True, eq=False)
class ImageRegions:
    """An image's regions: its objects first, then its proposals.

    Attributes:
        sample: the image.
        boxes: `float32 (N, 4)`.
        features: `float16 (N, D)` by name, those of `FEATURES` that the model has.
        overlaps: `float32 (N, G)`, IoU with each object.
        labels: `int64 (G,)`, the objects' classes in the data set.
    """

    sample: Sample
    boxes: FloatArray
    features: Features
    overlaps: FloatArray
    labels: IntArray

    def overlap(self, label: int) -> FloatArray:
        """`float32 (N,)`: each region's highest IoU with an object of a class; 0 without one."""
        own = self.overlaps[:, self.labels == label]
        best: FloatArray = own.max(axis=1, initial=0.0).astype(np.float32)
        return best

    def join(self, scales: Mapping[str, float], rows: IntArray | BoolArray | slice) -> FloatArray:
        """`float32 (M, D)`: features of some regions side by side, each kind times its scale."""
        return join_features(self.features, scales, rows)


def join_features(
    features: Features, scales: Mapping[str, float], rows: IntArray | BoolArray | slice
) -> FloatArray:
    """`float32 (M, D)`: the features that have a scale, side by side in the scales' order."""
    parts = [as_float32(features[name][rows]) * np.float32(s) for name, s in scales.items()]
    return np.concatenate(parts, axis=1)


def as_float32(values: NDArray[Any]) -> FloatArray:
    """Copy as `float32`, by torch: numpy takes ten times as long for `float16`."""
    return np.asarray(torch.from_numpy(np.ascontiguousarray(values)).float().numpy())


def available_features(head: RegionHead) -> tuple[str, ...]:
    """Name the features of `FEATURES` that a head has."""
    return FEATURES if has_averages(head.pooler) else FEATURES[:2]


def region_features(
    head: RegionHead, regions: RegionFeatures, names: Sequence[str]
) -> dict[str, NDArray[np.float16]]:
    """`float16 (N, D)` by name: what an added class may read of regions."""
    found = {}
    for name in names:
        if name == "averages":
            assert regions.average is not None
            values = regions.average(None).numpy()
        else:
            values = regions.layers[name]
        found[name] = values.astype(np.float16)
    return found


def collect_images(detector: Model, dataset: Dataset, progress: Progress) -> list[ImageRegions]:
    """Compute the regions of all images, as the detector's first augmentation shows them.

    Raises ImageError for an image that cannot be read.
    """
    head = detector.parts.head
    names = available_features(head)
    count = int(np.clip(ALL_PROPOSALS / max(1, len(dataset)), FEWEST_PROPOSALS, MOST_PROPOSALS))
    request = detector.requests[0]

    def load(sample: Sample) -> tuple[FloatArray, FeatureMaps]:
        image = read_sample(sample)
        return detector.propose(image)[:count], request.compute(image)

    found = []
    # A thread that torch has not met yet would take its number of threads for its own.
    torch.get_num_threads()
    with progress.task("features", len(dataset)) as advance:
        for sample, (proposals, maps) in prefetch(dataset, load):
            real = areas(sample.boxes) > 0
            objects = sample.boxes[real]
            boxes = np.concatenate([objects, proposals]).astype(np.float32)
            prepared = head.prepare(maps)
            features = region_features(head, head.regions(prepared, boxes), names)
            overlaps = box_iou(boxes, objects)
            found.append(ImageRegions(sample, boxes, features, overlaps, sample.labels[real]))
            advance(1)
    return found


def feature_scales(
    images: Sequence[ImageRegions], names: Sequence[str], norm: float
) -> dict[str, float]:
    """What each kind of feature is multiplied by, so that all have equal shares of a mean norm."""
    scales = {}
    for name in names:
        rows = np.concatenate([one.features[name][::7] for one in images]).astype(np.float32)
        mean = float(np.linalg.norm(rows, axis=1).mean())
        scales[name] = norm / (len(names) ** 0.5 * mean) if mean > 0 else 1.0
    return scales
