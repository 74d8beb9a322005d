"""From vectors to scores and box deltas: fully connected layers, SVMs, box regression."""

from sppdet.heads.box_regression import BoxRegressors
from sppdet.heads.head import RegionHead
from sppdet.heads.image_context import ContextClassifier
from sppdet.heads.svm import LinearSvms

__all__ = ["BoxRegressors", "ContextClassifier", "LinearSvms", "RegionHead"]
