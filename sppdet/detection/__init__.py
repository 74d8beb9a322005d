"""The whole detector: scoring, post-processing, R-CNN mode, shipped models."""

from sppdet.detection.config import DetectorConfig
from sppdet.detection.dataset_inference import detect_dataset
from sppdet.detection.detector import Detector
from sppdet.detection.ensemble import Ensemble, load_detector

__all__ = ["Detector", "DetectorConfig", "Ensemble", "detect_dataset", "load_detector"]
