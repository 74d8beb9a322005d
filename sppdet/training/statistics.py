"""What a training measures on a sample of its images before and after fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from sppdet.features import FeatureMaps
from sppdet.head import RegionHead
from sppdet.prefetch import ahead
from sppdet.region_features import RegionFeatures
from sppdet.sampling import Candidates
from sppdet.svm import feature_scale
from sppdet.training.data import TrainingData
from sppdet.types import FloatArray

# Images whose maps give the channels' mean and deviation, and the features' mean norm (release:
# 200 images, at most 200 regions of each).
STATISTICS_IMAGES = 200
STATISTICS_REGIONS = 200
# Images that tell what 8-bit integers change.
ROUNDED_IMAGES = 20


@torch.no_grad()
def map_statistics(head: RegionHead, data: TrainingData) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `(C,)` of the head's map channels over evenly spaced images."""
    total = squares = torch.zeros(())
    cells = 0
    for maps, _ in sampled_maps(data):
        for scaled in maps.scaled:
            values = head.joined(scaled.map).whole().double().flatten(0, 1)
            total = total + values.sum(dim=0)
            squares = squares + values.square().sum(dim=0)
            cells += len(values)
    mean = total / cells
    variance = (squares / cells - mean.square()).clamp_min(1e-6)
    return mean.float(), variance.sqrt().float()


def sampled_images(data: TrainingData) -> list[int]:
    """The numbers of at most `STATISTICS_IMAGES` images, evenly spaced."""
    count = len(data.dataset)
    chosen = np.unique(np.linspace(0, count - 1, min(count, STATISTICS_IMAGES)).astype(int))
    return [int(index) for index in chosen]


def sampled_maps(data: TrainingData) -> Iterator[tuple[FeatureMaps, Candidates]]:
    """Maps and candidate regions of the sampled images."""
    for _, loaded in ahead(sampled_images(data), data.load):
        yield loaded


def sampled_regions(data: TrainingData, seed: int) -> Iterator[tuple[FeatureMaps, FloatArray]]:
    """Some regions `(n, 4)` of each sampled image, with its maps."""
    for number, (maps, found) in enumerate(sampled_maps(data)):
        rng = np.random.default_rng([seed, 3, number])
        chosen = rng.permutation(len(found.boxes))[:STATISTICS_REGIONS]
        yield maps, found.boxes[chosen]


@torch.no_grad()
def rounding_error(head: RegionHead, data: TrainingData) -> float:
    """By how much of their norm 8-bit integers change the maps of the head's upper stages.

    They are frozen. 0 without such stages, and where the head computes in floats.
    """
    upper = head.upper
    if upper is None or not head.features.eight_bits:
        return 0.0
    change = norm = 0.0
    for maps, _ in islice(sampled_maps(data), ROUNDED_IMAGES):
        for scaled in maps.scaled:
            values = scaled.map.to(torch.float32)
            exact = upper(values).double()
            change += float((upper(values, eight_bits=True) - exact).square().sum())
            norm += float(exact.square().sum())
    return (change / norm) ** 0.5 if norm else 0.0


def norm_scale(head: RegionHead, layer: str, data: TrainingData, norm: float, seed: int) -> float:
    """What features of `layer` are multiplied by so that their mean L2 norm is `norm`."""
    norms = []
    for maps, boxes in sampled_regions(data, seed):
        features = RegionFeatures(head, maps, boxes).layer(layer)
        norms.append(np.linalg.norm(features, axis=1))
    return feature_scale(np.concatenate(norms), norm)
