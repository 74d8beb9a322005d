"""Metrics of VOC and COCO, error analysis, proposal recall, accuracy, and their reports."""

from __future__ import annotations

from sppdet.evaluation.accuracy import evaluate_accuracy
from sppdet.evaluation.coco_ap import evaluate_coco
from sppdet.evaluation.confusion import confusion_matrix
from sppdet.evaluation.error_analysis import analyze_errors, assign_causes
from sppdet.evaluation.proposal_recall import proposal_recall
from sppdet.evaluation.voc_ap import evaluate_voc
from sppdet.evaluation.voc_classification import evaluate_voc_classification

__all__ = [
    "analyze_errors",
    "assign_causes",
    "confusion_matrix",
    "evaluate_accuracy",
    "evaluate_coco",
    "evaluate_voc",
    "evaluate_voc_classification",
    "proposal_recall",
]
