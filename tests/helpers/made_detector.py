"""A detector made, not trained: random fully connected layers, SVMs and regressors."""

from __future__ import annotations

import numpy as np

from sppdet.backbones.feature_maps import FeatureExtractor
from sppdet.core.settings import load
from sppdet.core.types import FloatArray, ImageArray
from sppdet.detection.config import DetectorConfig
from sppdet.detection.detector import Detector
from sppdet.heads.box_regression import BoxRegressors
from sppdet.heads.head import RegionFeatures, RegionHead
from sppdet.heads.image_context import ContextClassifier
from sppdet.heads.svm import LinearSvms

CLASSES = ("ring", "disc", "cross")
# The class that has no SVM and no regressor.
UNTRAINED = 2

# One small scale, as it is, narrow layers and few proposals: nothing here has to detect anything.
SMALL = (
    "features.backbone=efficientnet_lite0",
    "features.scales=[96]",
    "head.pyramid_channels=8",
    "head.fc6=32",
    "head.fc7=32",
    "proposals.max_proposals=200",
    "detection.scale_factors=[1]",
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
    config = load(DetectorConfig, None, [*SMALL, *overrides])
    extractor = FeatureExtractor(config.features)
    count = len(CLASSES)
    head = RegionHead(config.head, extractor, count, seed=seed)
    image = picture()
    boxes = np.array([[x, y, x + 30, y + 20] for x in range(0, 90, 9) for y in range(0, 70, 9)])
    features = head.regions(head.prepare(extractor(image)), boxes.astype(np.float32))
    rng = np.random.default_rng(seed)
    deep = features.layers[config.head.svm_layer]
    weights = rng.normal(size=(count, deep.shape[1]))
    margins = deep @ weights.T
    weights /= 2 * margins.std(axis=0)[:, None]
    bias = -1 - (deep @ weights.T).mean(axis=0)
    trained = np.arange(count) != UNTRAINED
    low = features.layers[config.head.regression_layer]
    moves = rng.normal(size=(count, low.shape[1], 4)) * 0.05 / np.linalg.norm(low, axis=1).mean()
    assert features.image_vector is not None
    context = rng.normal(size=(count, len(features.image_vector)))
    context /= np.linalg.norm(features.image_vector)
    context[UNTRAINED] = 0
    weights[UNTRAINED], bias[UNTRAINED], moves[UNTRAINED] = 0, 0, 0
    return Detector(
        CLASSES,
        config,
        extractor,
        head,
        LinearSvms(weights.astype(np.float32), bias.astype(np.float32), trained, trained),
        BoxRegressors(moves.astype(np.float32), np.zeros((count, 4), np.float32), trained),
        ContextClassifier(context.astype(np.float32), np.zeros(count, np.float32), trained),
    )


def region_features(detector: Detector, image: ImageArray, boxes: FloatArray) -> RegionFeatures:
    """The features of regions of an image as it is, at the extractor's own scales."""
    head = detector.head
    return head.regions(head.prepare(detector.extractor(image)), boxes)
