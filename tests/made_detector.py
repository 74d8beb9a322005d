"""A detector made, not trained: random fully connected layers, SVMs and regressors."""

from __future__ import annotations

import numpy as np

from sppdet.config import load_config
from sppdet.detector import Detector
from sppdet.features import FeatureExtractor
from sppdet.head import RegionHead
from sppdet.region_features import RegionFeatures
from sppdet.regression import BoxRegressors
from sppdet.scene import SceneClassifier
from sppdet.svm import LinearSvms
from sppdet.types import ImageArray

CLASSES = ("ring", "disc", "cross")
# The class that has no SVM and no regressor.
UNTRAINED = 2

# One small scale, as it is, narrow layers and few proposals: nothing here has to detect anything.
SMALL = (
    "features.backbone=efficientnet_lite0",
    "features.scales=[96]",
    "head.reduce=8",
    "head.fc6=32",
    "head.fc7=32",
    "proposals.max_proposals=200",
    "detection.zooms=[1]",
)


def picture(width: int = 120, height: int = 90, seed: int = 0) -> ImageArray:
    """Bright rectangles on noise."""
    rng = np.random.default_rng(seed)
    image = rng.integers(90, 120, (height, width, 3), dtype=np.uint8)
    for _ in range(4):
        x, y = rng.integers(0, width - 30), rng.integers(0, height - 30)
        w, h = rng.integers(15, 30, 2)
        image[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return image


def make_detector(*overrides: str, seed: int = 0) -> Detector:
    """A detector that finds plenty: on `picture()`, margins have mean -1 and deviation 1/2."""
    config = load_config(None, [*SMALL, *overrides])
    extractor = FeatureExtractor(config.features)
    count = len(CLASSES)
    head = RegionHead(config.head, extractor, count, seed=seed)
    image = picture()
    boxes = np.array([[x, y, x + 30, y + 20] for x in range(0, 90, 9) for y in range(0, 70, 9)])
    features = RegionFeatures(head, extractor(image), boxes.astype(np.float32))
    rng = np.random.default_rng(seed)
    deep = features.layer(config.svm.layer)
    weights = rng.normal(size=(count, deep.shape[1]))
    margins = deep @ weights.T
    weights /= 2 * margins.std(axis=0)[:, None]
    bias = -1 - (deep @ weights.T).mean(axis=0)
    trained = np.arange(count) != UNTRAINED
    low = features.layer(config.regression.layer)
    moves = rng.normal(size=(count, low.shape[1], 4)) * 0.05 / np.linalg.norm(low, axis=1).mean()
    assert features.scene is not None
    scenes = rng.normal(size=(count, len(features.scene))) / np.linalg.norm(features.scene)
    scenes[UNTRAINED] = 0
    weights[UNTRAINED], bias[UNTRAINED], moves[UNTRAINED] = 0, 0, 0
    return Detector(
        CLASSES,
        config,
        extractor,
        head,
        LinearSvms(weights.astype(np.float32), bias.astype(np.float32), trained, trained),
        BoxRegressors(moves.astype(np.float32), np.zeros((count, 4), np.float32), trained),
        SceneClassifier(scenes.astype(np.float32), np.zeros(count, np.float32), trained),
    )
