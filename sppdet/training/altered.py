"""Images as fine-tuning sees them anew: mirrored, zoomed, recoloured, their maps computed then.

Stored conv maps show an image in one way only. What is altered before the network sees it differs
in every epoch, and costs one forward pass at the one scale that a step learns from.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
import torch

from sppdet.boxes import flip_horizontal
from sppdet.features import FeatureMaps, ScaledMap
from sppdet.finetune import Seen, object_scales
from sppdet.finetune_config import FineTuneConfig
from sppdet.images import mirrored, read_sample
from sppdet.projection import best_scale
from sppdet.sampling import Candidates
from sppdet.training.data import TrainingData
from sppdet.types import ImageArray

# Shares of red, green and blue in an image's grey (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)


class View(NamedTuple):
    """One showing of an image: its place in the sequence of all of them, and its number."""

    position: int
    image: int


def seen_image(data: TrainingData, config: FineTuneConfig, seed: int, view: View) -> Seen:
    """What a step sees of an image: its stored maps, or with chance `config.altered` new ones.

    A function of data, config, seed and view.
    """
    rng = np.random.default_rng([seed, 5, view.position])
    if rng.random() >= config.altered:
        return Seen(*data.load(view.image))
    return _altered(data, config, view.image, rng)


def _altered(
    data: TrainingData, config: FineTuneConfig, index: int, rng: np.random.Generator
) -> Seen:
    extractor = data.maps.extractor
    rule = extractor.config
    image = read_sample(data.dataset.samples[index])
    height, width = image.shape[:2]
    found = data.candidates(index)
    of_box = best_scale(found.boxes, width, height, rule.scales, rule.scale_rule)
    choice = object_scales(of_box, found, config.foreground_iou)
    chosen = int(rng.choice(choice)) if len(choice) else 0
    found = found.take(of_box == chosen)
    flipped = rng.random() < config.flip
    factor = math.exp(rng.uniform(-1, 1) * math.log(config.zoom))
    image = recoloured(image, config.recolour, rng)
    if flipped:
        image, found = mirrored(image), _mirrored(found, width)
    shown = extractor.at_scale(image, max(1, round(rule.scales[chosen] * factor)))
    # The scales that no region is pooled at: maps without cells hold their places.
    absent = ScaledMap(torch.empty(0, 0, shown.map.shape[2]), 1.0, 1.0)
    scaled = tuple(shown if place == chosen else absent for place in range(len(rule.scales)))
    return Seen(FeatureMaps(scaled, width, height), found, altered=True)


def recoloured(image: ImageArray, strength: float, rng: np.random.Generator) -> ImageArray:
    """The image in another light: brightness, contrast, saturation and each primary's share.

    Each is multiplied by a number between `1 - strength` and `1 + strength`, a primary's share by
    one between `1 - strength / 4` and `1 + strength / 4`; 0 leaves the image alone.
    """
    brightness, contrast, saturation = 1 + strength * rng.uniform(-1, 1, 3)
    primaries = 1 + strength / 4 * rng.uniform(-1, 1, 3)
    if strength == 0:
        return image
    grey = float(np.dot(image.reshape(-1, 3).mean(axis=0), LUMA))
    towards_grey = saturation * np.eye(3) + (1 - saturation) * np.tile(LUMA, (3, 1))
    matrix = np.empty((3, 4))
    matrix[:, :3] = contrast * towards_grey
    matrix[:, 3] = (1 - contrast) * grey
    matrix *= brightness * primaries[:, None]
    return np.asarray(cv2.transform(image, matrix), np.uint8)


def _mirrored(found: Candidates, width: int) -> Candidates:
    boxes, objects = flip_horizontal(found.boxes, width), flip_horizontal(found.objects, width)
    return Candidates(boxes, found.overlap, found.match, objects, found.labels)
