"""Training images as fine-tuning sees them: from the cache, or augmented and computed anew.

Cached feature maps show an image in one way only. What is augmented before the network sees it
differs in every epoch, and costs one forward pass at the one scale that a step learns from.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np

from sppdet.backbones.feature_maps import FeatureMaps
from sppdet.core.boxes import flip
from sppdet.core.images import flip_image, read_sample
from sppdet.core.types import ImageArray
from sppdet.spp.projection import select_scale
from sppdet.training.config import FineTuneConfig
from sppdet.training.data import TrainingData
from sppdet.training.finetune import TrainingImage
from sppdet.training.region_sampling import RegionTargets

# Shares of red, green and blue in an image's gray (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)


class BatchSlot(NamedTuple):
    """One image of a batch: its place in the sequence of all batches, and its number."""

    position: int
    image: int


def load_training_image(
    data: TrainingData, config: FineTuneConfig, seed: int, slot: BatchSlot
) -> TrainingImage:
    """Load an image's cached maps, or with `config.augment_prob` compute those of an augmented one.

    Both are of one scale, drawn among those at which there are objects: of all scales a step would
    cost their sum, and learn from as many regions. A function of data, config, seed and slot.
    """
    rng = np.random.default_rng([seed, 5, slot.position])
    augmented = rng.random() < config.augment_prob
    targets = data.targets(slot.image)
    sample, rules = data.dataset.samples[slot.image], data.maps.extractor.config
    size = (sample.width, sample.height)
    scale_of = select_scale(targets.boxes, *size, rules.scales, rules.scale_rule)
    choice = targets.scales_with_objects(scale_of, config.foreground_iou)
    chosen = int(rng.choice(choice)) if len(choice) else 0
    targets = targets.take(scale_of == chosen)
    if not augmented:
        return TrainingImage(data.load_maps(slot.image).only(chosen), targets)
    image = read_sample(sample)
    flipped = rng.random() < config.flip_prob
    factor = math.exp(rng.uniform(-1, 1) * math.log(config.scale_jitter))
    image = color_jitter(image, config.color_jitter, rng)
    if flipped:
        image, targets = flip_image(image), _flip(targets, sample.width)
    scale = max(1, round(rules.scales[chosen] * factor))
    return TrainingImage(FeatureMaps((data.maps.extractor.at_scale(image, scale),), *size), targets)


def color_jitter(image: ImageArray, strength: float, rng: np.random.Generator) -> ImageArray:
    """Show an image in another light: brightness, contrast, saturation, each primary's share.

    Each is multiplied by a number between `1 - strength` and `1 + strength`, a primary's share by
    one between `1 - strength / 4` and `1 + strength / 4`; 0 leaves the image alone.
    """
    brightness, contrast, saturation = 1 + strength * rng.uniform(-1, 1, 3)
    primaries = 1 + strength / 4 * rng.uniform(-1, 1, 3)
    if strength == 0:
        return image
    gray = float(np.dot(image.reshape(-1, 3).mean(axis=0), LUMA))
    towards_gray = saturation * np.eye(3) + (1 - saturation) * np.tile(LUMA, (3, 1))
    matrix = np.empty((3, 4))
    matrix[:, :3] = contrast * towards_gray
    matrix[:, 3] = (1 - contrast) * gray
    matrix *= brightness * primaries[:, None]
    return np.asarray(cv2.transform(image, matrix), np.uint8)


def _flip(targets: RegionTargets, width: int) -> RegionTargets:
    boxes, gt_boxes = flip(targets.boxes, width), flip(targets.gt_boxes, width)
    return replace(targets, boxes=boxes, gt_boxes=gt_boxes)
