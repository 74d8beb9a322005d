"""Classification of whole images with the paper's networks (He et al. 2014, sec. 2 to 4)."""

from __future__ import annotations

from sppdet.classification.classifier import Classifier
from sppdet.classification.svm_classifier import SvmClassifier, train_svm_classifier
from sppdet.classification.train import train_classifier

__all__ = ["Classifier", "SvmClassifier", "train_classifier", "train_svm_classifier"]
