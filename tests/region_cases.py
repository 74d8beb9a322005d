"""Feature maps and regions that the tests of the head and of fine-tuning share."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from sppdet.features import FeatureConfig, FeatureExtractor, FeatureMaps, ScaledMap
from sppdet.types import FloatArray

# EfficientNet-Lite0 has a pretrained 1x1 head and stages that can be trained above `stage5`,
# ZF-5 has neither.
PRETRAINED = FeatureConfig(taps=("bottleneck", "stage5"), scales=(96,))
CUT = FeatureConfig(taps=("stage5",), scales=(96,))
PLAIN = FeatureConfig(backbone="zf5", pretrained=False, taps=("conv",), scales=(96,))


@cache
def extractor(config: FeatureConfig = PRETRAINED) -> FeatureExtractor:
    return FeatureExtractor(config)


def random_maps(
    config: FeatureConfig, width: int, height: int, seed: int = 0, spread: float = 3.0
) -> FeatureMaps:
    """Signed maps of noise, as large as those of an image of this size would be."""
    features = extractor(config)
    generator = torch.Generator().manual_seed(seed)
    scaled = []
    for scale in config.scales:
        factor = features.short_side(width, height, scale) / min(width, height)
        cells = [
            max(1, round(side * factor / features.geometry.stride)) for side in (height, width)
        ]
        values = torch.randn(*cells, sum(features.channels.values()), generator=generator)
        scaled.append(ScaledMap(values * spread, factor, factor))
    return FeatureMaps(tuple(scaled), width, height)


def random_boxes(count: int, width: int, height: int, seed: int = 0) -> FloatArray:
    """Boxes of positive area inside the image, whole pixels."""
    rng = np.random.default_rng(seed)
    sides = rng.integers(1, [width + 1, height + 1], (count, 2))
    first = rng.integers(0, np.array([width, height]) - sides + 1)
    return np.concatenate([first, first + sides], axis=1).astype(np.float32)
