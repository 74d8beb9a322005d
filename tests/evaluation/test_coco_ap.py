"""COCO metrics against pycocotools called directly, on dicts that this file builds by itself."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sppdet.core.errors import EvaluationError
from sppdet.core.types import Dataset, Detections
from sppdet.evaluation.coco_ap import evaluate_coco
from tests.helpers.evaluation_cases import CLASSES, detections_of, random_case, sample_of


def direct(dataset: Dataset, detections: Mapping[str, Detections]) -> list[float]:
    """The twelve figures and each class's AP, the way COCO's own demonstration gets them."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for i, sample in enumerate(dataset):
        images.append({"id": 500 + 3 * i, "width": sample.width, "height": sample.height})
        for box, label, hard in zip(sample.boxes, sample.labels, sample.difficult, strict=True):
            # In double precision: many IoUs lie at a threshold, where float32 would tip them.
            x, y, right, bottom = (float(v) for v in box)
            w, h = right - x, bottom - y
            annotations.append(
                {
                    "id": 9000 + len(annotations),
                    "image_id": 500 + 3 * i,
                    "category_id": 11 + 7 * int(label),
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": int(hard),
                }
            )
        for found in detections.get(sample.image_id, ()):
            x1, y1, x2, y2 = found.box
            results.append(
                {
                    "image_id": 500 + 3 * i,
                    "category_id": 11 + 7 * CLASSES.index(found.name),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": found.score,
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 11 + 7 * k, "name": name} for k, name in enumerate(CLASSES)],
        }
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
        figures = list(evaluator.stats)
        for k in range(len(CLASSES)):
            evaluator.params.catIds = [11 + 7 * k]
            evaluator.evaluate()
            evaluator.accumulate()
            evaluator.summarize()
            figures.append(evaluator.stats[0])
    return [math.nan if value == -1 else float(value) for value in figures]


def flat(dataset: Dataset, detections: Mapping[str, Detections]) -> list[float]:
    *figures, class_ap = astuple(evaluate_coco(dataset, detections))
    return [*figures, *class_ap]


def test_evaluate_coco_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(math.isnan(v) for v in flat(Dataset("empty", CLASSES, ()), {}))
    dataset = Dataset("d", CLASSES, (sample_of("a", [], []),))
    assert all(math.isnan(v) for v in flat(dataset, {}))
    assert capsys.readouterr().out == ""


def test_no_detections_score_0() -> None:
    dataset = Dataset("d", CLASSES, (sample_of("a", [[0, 0, 50, 50]], [0]),))
    result = evaluate_coco(dataset, {})
    assert (result.ap, result.ap50, result.ap_medium, result.ar100) == (0, 0, 0, 0)
    assert math.isnan(result.ap_small)
    assert result.class_ap == pytest.approx((0, math.nan, math.nan), nan_ok=True)


def test_evaluate_coco_equals_pycocotools() -> None:
    compared = 0
    for seed in range(40):
        dataset, detections = random_case(seed)
        if not any(len(found) for found in detections.values()):
            continue
        expected = direct(dataset, detections)
        assert flat(dataset, detections) == pytest.approx(expected, abs=1e-9, nan_ok=True)
        compared += 1
    assert compared > 25


def test_a_difficult_object_is_a_crowd() -> None:
    sample = sample_of("a", [[0, 0, 50, 50], [100, 100, 200, 200]], [0, 0], [False, True])
    dataset = Dataset("d", CLASSES, (sample,))
    inside = [[100, 100, 200, 200], [110, 110, 130, 130], [0, 0, 50, 50]]
    assert evaluate_coco(dataset, {"a": detections_of(inside, [3, 2, 1], [0, 0, 0])}).ap == (
        pytest.approx(1)
    )


def test_detections_that_do_not_fit_are_refused() -> None:
    dataset = Dataset("d", CLASSES, (sample_of("a", [], []),))
    with pytest.raises(EvaluationError, match="image b, which is not in the data set"):
        evaluate_coco(dataset, {"b": detections_of([], [], [])})
