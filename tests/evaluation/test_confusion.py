"""The confusion matrix: by hand, and hotcoco's on random cases."""

from __future__ import annotations

import numpy as np
import pytest

from sppdet.core.types import Dataset
from sppdet.evaluation.confusion import confusion_matrix
from tests.helpers.evaluation_cases import CLASSES, detections_of, sample_of, sparse_case
from tests.helpers.hotcoco_oracle import hotcoco_evaluator


def test_confusion_of_nothing() -> None:
    assert not confusion_matrix(Dataset("empty", CLASSES, ()), {}, 0.5).any()


def test_objects_are_taken_best_first_and_difficult_ones_do_not_count() -> None:
    objects = [[0, 0, 20, 20], [100, 0, 120, 20], [200, 0, 220, 20], [300, 0, 320, 20]]
    sample = sample_of("a", objects, [0, 1, 2, 2], [False, False, True, True])
    boxes = [objects[0], objects[0], objects[1], objects[2], objects[1]]
    found = {"a": detections_of(boxes, [0.9, 0.8, 0.7, 0.6, 0.1], [0, 1, 0, 0, 1])}
    matrix = confusion_matrix(Dataset("d", CLASSES, (sample,)), found, 0.5)
    assert matrix.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    nothing = confusion_matrix(Dataset("d", CLASSES, (sample,)), found, np.inf)
    assert nothing.tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [0] * 4, [0] * 4]


@pytest.mark.parametrize("seed", range(100))
def test_the_matrix_is_hotcoco_s(seed: int) -> None:
    dataset, detections = sparse_case(seed)
    theirs = hotcoco_evaluator(dataset, detections).confusion_matrix(iou_thr=0.5, min_score=0.3)
    assert (confusion_matrix(dataset, detections, 0.3) == theirs["matrix"].astype(np.int64)).all()
