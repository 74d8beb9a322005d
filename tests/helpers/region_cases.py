"""Feature maps, regions and heads that the tests of the head and of fine-tuning share."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from sppdet.backbones.feature_maps import FeatureConfig, FeatureExtractor, FeatureMap, FeatureMaps
from sppdet.core.types import FloatArray
from sppdet.heads.config import HeadConfig
from sppdet.heads.head import RegionHead

# EfficientNet-Lite0 has a pretrained 1x1 head and stages that can be trained above `stage5`,
# ZF-5 has neither.
LAYERS = ("bottleneck", "stage5")
PRETRAINED = FeatureConfig(layers=LAYERS, scales=(96,))
CUT = FeatureConfig(layers=("stage5",), scales=(96,))
PLAIN = FeatureConfig(backbone="zf5", pretrained=False, layers=("conv",), scales=(96,))
SEVERAL = FeatureConfig(layers=LAYERS, scales=(160, 480, 280))
PAPER = FeatureConfig(layers=LAYERS, scales=(96,), projection_rule="paper", scale_rule="paper")
NARROW = HeadConfig(
    pyramid_levels=(2, 1),
    pyramid_channels=8,
    context_scales=(1.0, 2.0),
    fc6=16,
    fc7=12,
    train_top_stages=False,
)
# Ratios of bins, kinds of pooling and windows, with narrow layers.
FORMS = {
    "pyramid": (PLAIN, NARROW.replace(pyramid_levels=(6, 3, 2, 1), context_scales=())),
    "unreduced": (PLAIN, NARROW.replace(pyramid_channels=0, context_scales=())),
    "averages": (
        PRETRAINED,
        NARROW.replace(pyramid_levels=(), pyramid_channels=0, context_scales=(1.0,)),
    ),
    "context": (PRETRAINED, NARROW.replace(pyramid_levels=(3, 1), context_scales=(1.0, 1.5, 3.0))),
    "scales": (SEVERAL, NARROW),
    "paper": (PAPER, NARROW.replace(pyramid_levels=(4, 2, 1))),
    "top": (CUT, NARROW.replace(train_top_stages=True)),
    "top, pyramid alone": (CUT, NARROW.replace(train_top_stages=True, context_scales=())),
}


@cache
def extractor(config: FeatureConfig = PRETRAINED) -> FeatureExtractor:
    return FeatureExtractor(config)


def head_of(form: str, *, statistics: bool = True, seed: int = 0) -> RegionHead:
    """A head of one of the forms that nothing trains, by default with statistics of its own."""
    features, config = FORMS[form]
    head = RegionHead(config, extractor(features), 3, seed=seed).eval()
    if statistics:
        generator = torch.Generator().manual_seed(7)
        channels = len(head.pooler.mean)
        head.pooler.set_statistics(
            torch.randn(channels, generator=generator),
            torch.rand(channels, generator=generator) + 0.5,
        )
    return head.requires_grad_(False)


def random_maps(
    config: FeatureConfig, width: int, height: int, seed: int = 0, spread: float = 3.0
) -> FeatureMaps:
    """Signed maps of noise, as large as those of an image of this size would be."""
    features = extractor(config)
    generator = torch.Generator().manual_seed(seed)
    maps = []
    for scale in config.scales:
        factor = features.resized_side(width, height, scale) / min(width, height)
        stride = features.receptive_field.stride
        cells = [max(1, round(side * factor / stride)) for side in (height, width)]
        values = torch.randn(*cells, sum(features.channels.values()), generator=generator)
        maps.append(FeatureMap(values * spread, factor, factor, scale))
    return FeatureMaps(tuple(maps), width, height)


def random_boxes(count: int, width: int, height: int, seed: int = 0) -> FloatArray:
    """Boxes of positive area inside the image, whole pixels."""
    rng = np.random.default_rng(seed)
    sides = rng.integers(1, [width + 1, height + 1], (count, 2))
    first = rng.integers(0, np.array([width, height]) - sides + 1)
    return np.concatenate([first, first + sides], axis=1).astype(np.float32)
