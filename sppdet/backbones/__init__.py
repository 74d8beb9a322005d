"""From an image to feature maps: convolutional networks, and their quantized inference."""

from sppdet.backbones.base import Backbone
from sppdet.backbones.feature_maps import FeatureExtractor, FeatureMaps
from sppdet.backbones.registry import BACKBONES, load_backbone

__all__ = ["BACKBONES", "Backbone", "FeatureExtractor", "FeatureMaps", "load_backbone"]
