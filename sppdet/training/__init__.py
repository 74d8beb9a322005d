"""Training in resumable stages: proposals, conv maps, fine-tuning, SVMs, box regressors."""

from sppdet.training.run import train

__all__ = ["train"]
