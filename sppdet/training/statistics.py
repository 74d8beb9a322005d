"""Measurements on a sample of the training images, before and after fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from sppdet.backbones.feature_maps import FeatureMaps
from sppdet.core.parallel import prefetch
from sppdet.core.types import FloatArray
from sppdet.heads.head import RegionHead
from sppdet.heads.svm import feature_scale
from sppdet.training.data import TrainingData
from sppdet.training.region_sampling import RegionTargets

# Images whose maps give the channels' mean and deviation, and the features' mean norm (release:
# 200 images, at most 200 regions of each).
STATISTICS_IMAGES = 200
STATISTICS_REGIONS = 200
# Images that tell how much quantization changes.
QUANTIZATION_IMAGES = 20


@torch.no_grad()
def map_statistics(head: RegionHead, data: TrainingData) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `(C,)` of the pooler's map channels over evenly spaced images."""
    total = squares = torch.zeros(())
    cells = 0
    for maps, _ in sampled_maps(data):
        for one in maps.maps:
            values = head.pooler.joined_map(one).double().flatten(0, 1)
            total = total + values.sum(dim=0)
            squares = squares + values.square().sum(dim=0)
            cells += len(values)
    mean = total / cells
    variance = (squares / cells - mean.square()).clamp_min(1e-6)
    return mean.float(), variance.sqrt().float()


def sampled_images(data: TrainingData) -> list[int]:
    """List the numbers of at most `STATISTICS_IMAGES` images, evenly spaced."""
    count = len(data.dataset)
    chosen = np.unique(np.linspace(0, count - 1, min(count, STATISTICS_IMAGES)).astype(int))
    return [int(index) for index in chosen]


def sampled_maps(data: TrainingData) -> Iterator[tuple[FeatureMaps, RegionTargets]]:
    """Yield feature maps and regions of the sampled images."""
    for _, loaded in prefetch(sampled_images(data), data.load):
        yield loaded


def sampled_regions(data: TrainingData, seed: int) -> Iterator[tuple[FeatureMaps, FloatArray]]:
    """Yield some regions `(n, 4)` of each sampled image, with its maps."""
    for number, (maps, targets) in enumerate(sampled_maps(data)):
        rng = np.random.default_rng([seed, 3, number])
        chosen = rng.permutation(len(targets.boxes))[:STATISTICS_REGIONS]
        yield maps, targets.boxes[chosen]


@torch.no_grad()
def quantization_error(head: RegionHead, data: TrainingData) -> float:
    """By how much of their norm 8-bit integers change the maps of the frozen top stages.

    0 without such stages, and where the head computes in floats.
    """
    stages = head.pooler.top_stages
    if stages is None or not head.pooler.is_quantized:
        return 0.0
    change = norm = 0.0
    for maps, _ in islice(sampled_maps(data), QUANTIZATION_IMAGES):
        for one in maps.maps:
            values = one.values.to(torch.float32)
            exact = stages(values).double()
            change += float((stages(values, quantize=True) - exact).square().sum())
            norm += float(exact.square().sum())
    return (change / norm) ** 0.5 if norm else 0.0


def measure_feature_scale(
    head: RegionHead, layer: str, data: TrainingData, norm: float, seed: int
) -> float:
    """What features of `layer` are multiplied by so that their mean L2 norm is `norm`."""
    norms = []
    for maps, boxes in sampled_regions(data, seed):
        features = head.regions(head.prepare(maps), boxes).layers[layer]
        norms.append(np.linalg.norm(features, axis=1))
    return feature_scale(np.concatenate(norms), norm)
