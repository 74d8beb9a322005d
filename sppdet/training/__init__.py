"""Training in resumable stages: proposals, feature maps, fine-tuning, SVMs, box regression."""

from sppdet.detection.starting_model import StartingModel
from sppdet.training.config import TrainingConfig
from sppdet.training.pipeline import train

__all__ = ["StartingModel", "TrainingConfig", "train"]
