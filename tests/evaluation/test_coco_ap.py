"""COCO metrics against pycocotools called directly, on dicts that this file builds by itself."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sppdet.core.errors import EvaluationError
from sppdet.core.types import Dataset, Detections
from sppdet.datasets.formats.coco import category_ids, load_coco
from sppdet.evaluation.coco_ap import evaluate_coco
from sppdet.evaluation.result_files.coco_results import read_coco_detections
from tests.helpers.evaluation_cases import CLASSES, detections_of, random_case, sample_of
from tests.helpers.made_annotations import write_image


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


def test_sizes_are_those_of_the_masks_where_they_are_stated(tmp_path: Path) -> None:
    """COCO's file and results, read by us and by pycocotools: the same twelve figures."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        truth, results = _mask_case(rng, with_crowds=seed % 2 == 1)
        for image in truth["images"]:
            write_image(tmp_path / image["file_name"])
        paths = [tmp_path / name for name in ("gt.json", "dt.json")]
        for path, document in zip(paths, (truth, results), strict=True):
            path.write_text(json.dumps(document), encoding="utf-8")
        with contextlib.redirect_stdout(io.StringIO()):
            official = COCO(str(paths[0]))
            evaluator = COCOeval(official, official.loadRes(str(paths[1])), "bbox")
            evaluator.evaluate()
            evaluator.accumulate()
            evaluator.summarize()
        expected = [math.nan if v == -1 else float(v) for v in evaluator.stats]
        dataset = load_coco(paths[0], tmp_path)
        ids = category_ids(paths[0], dataset.classes)
        found = read_coco_detections(paths[1], dataset, category_ids=ids)
        figures = flat(dataset, found)[: len(expected)]
        assert figures == pytest.approx(expected, abs=1e-9, nan_ok=True)


def _mask_case(
    rng: np.random.Generator, *, with_crowds: bool
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Objects whose masks are smaller than their boxes, often of another size band; results."""
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for number in range(1, 25):
        image, category = int(rng.integers(1, 5)), int(rng.choice([1, 7]))
        x, y, w, h = (int(v) for v in rng.integers((0, 0, 10, 10), (80, 60, 80, 60)))
        annotations.append(
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "bbox": [x, y, w, h],
                "area": float(rng.choice([w * h / 2, w * h / 3, 1024, 40.5])),
                "iscrowd": int(with_crowds and number % 5 == 0),
            }
        )
        moved = [int(v) for v in np.maximum(np.array([x, y, w, h]) + rng.integers(-4, 5, 4), 0)]
        scored = {"image_id": image, "category_id": category, "score": float(rng.random())}
        results.append({**scored, "bbox": moved})
    document = {
        "images": [
            {"id": n, "file_name": f"{n}.jpg", "width": 160, "height": 120} for n in range(1, 5)
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    return document, results


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
