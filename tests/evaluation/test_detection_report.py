"""Reports: what the tables hold, and dicts that strict JSON takes."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from sppdet.core.types import Dataset, Detections
from sppdet.evaluation.coco_ap import evaluate_coco
from sppdet.evaluation.detection_report import (
    coco_dict,
    coco_table,
    errors_dict,
    errors_table,
    proposal_table,
    recall_by_size,
    voc_dict,
    voc_table,
)
from sppdet.evaluation.error_analysis import ErrorAnalysis, analyze_errors, assign_causes
from sppdet.evaluation.proposal_recall import proposal_recall
from sppdet.evaluation.voc_ap import evaluate_voc
from tests.helpers.evaluation_cases import CLASSES, detections_of, sample_of

OBJECTS = [[0, 0, 20, 20], [100, 0, 150, 50], [200, 0, 300, 100], [300, 300, 400, 400]]
DATASET = Dataset("toy val", CLASSES, (sample_of("a", OBJECTS, [0, 0, 0, 1]),))
FOUND = {"a": detections_of([OBJECTS[0], OBJECTS[2]], [2, 1], [0, 0])}
EMPTY = Dataset("empty", CLASSES, ())


def _errors(dataset: Dataset, found: dict[str, Detections]) -> ErrorAnalysis:
    return analyze_errors(dataset, assign_causes(dataset, found))


def strict(value: dict[str, Any]) -> Any:
    """The value after a trip through JSON, which has no nan."""
    return json.loads(json.dumps(value, allow_nan=False))


def test_reports_of_nothing() -> None:
    result = evaluate_voc(EMPTY, {})
    assert all(math.isnan(value) for value in recall_by_size([]))
    assert "Without objects, and in no mean: cat, dog, person." in voc_table(result)
    assert strict(voc_dict(result))["map11"] is None
    assert strict(coco_dict(evaluate_coco(EMPTY, {}), CLASSES))["ap"] is None
    assert "-" in coco_table(evaluate_coco(EMPTY, {}))
    assert strict(errors_dict(_errors(EMPTY, {})))["all"]["missed"] == {"count": 0, "ap_gain": None}
    assert proposal_table([]).split() == ["limit", "proposals", "ABO", "MABO"]


def test_voc_table_has_a_row_a_class_and_one_of_means() -> None:
    lines = voc_table(evaluate_voc(DATASET, FOUND)).splitlines()
    assert lines[0].split("  ")[0] == "class"
    assert [" ".join(line.split()) for line in lines[1:5]] == [
        "cat 0.636 0.667 0.667 1.000 0.000 1.000 3 2",
        "dog 0.000 0.000 0.000 - - 0.000 1 0",
        "person - - - - - - 0 0",
        "mean 0.318 0.333 0.333 1.000 0.000 0.500 4 2",
    ]
    assert lines[6].startswith("toy val, 1 images, IoU >= 0.5")
    assert lines[7] == "Without objects, and in no mean: person."


def test_tables_are_rectangular() -> None:
    recall = proposal_recall(DATASET, {"a": DATASET.samples[0].boxes}, limit=2)
    tables = [
        voc_table(evaluate_voc(DATASET, FOUND)).split("\n\n")[0],
        coco_table(evaluate_coco(DATASET, FOUND)),
        errors_table(_errors(DATASET, FOUND)).split("\n\n")[0],
        proposal_table([recall]),
    ]
    for table in tables:
        lines = table.splitlines()
        assert len({len(line) for line in lines}) == 1


def test_voc_dict_holds_the_figures() -> None:
    value = strict(voc_dict(evaluate_voc(DATASET, FOUND)))
    assert value["map_area"] == pytest.approx(1 / 3)
    assert value["left_out"] == ["person"]
    assert value["classes"]["cat"]["recall_by_size"] == {"small": 1, "medium": 0, "large": 1}
    assert value["classes"]["dog"]["recall_by_size"]["small"] is None
    assert value["classes"]["person"]["ap11"] is None
    assert value["classes"]["cat"]["objects"] == 3


def test_other_dicts_hold_the_figures() -> None:
    coco = strict(coco_dict(evaluate_coco(DATASET, FOUND), CLASSES))
    assert coco["class_ap"]["dog"] == 0
    assert coco["class_ap"]["person"] is None
    errors = strict(errors_dict(_errors(DATASET, FOUND)))
    assert errors["classes"]["cat"]["missed"] == {"count": 1, "ap_gain": pytest.approx(1 / 3)}
    assert errors["classes"]["dog"]["missed"] == {"count": 1, "ap_gain": 1}
    assert errors["all"]["missed"] == {"count": 2, "ap_gain": pytest.approx(2 / 3)}
