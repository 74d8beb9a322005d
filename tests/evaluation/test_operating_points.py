"""Thresholds against an oracle: the evaluator on nothing but the detections that are kept."""

from __future__ import annotations

import math

import pytest

from sppdet.core.types import Dataset, Detections
from sppdet.evaluation.detection_report import thresholds_dict, thresholds_table
from sppdet.evaluation.operating_points import ALL, best_common_point, best_points, point_at
from sppdet.evaluation.voc_ap import evaluate_voc
from tests.helpers.evaluation_cases import CLASSES, detections_of, random_case, sample_of

CASES = 200


def kept_figures(
    dataset: Dataset, detections: dict[str, Detections], threshold: float
) -> dict[str, tuple[float, float, float]]:
    """Precision, recall and F1 of each class with objects when only the best are handed in."""
    kept = {key: found.above(threshold) for key, found in detections.items()}
    out = {}
    for each in evaluate_voc(dataset, kept).classes:
        if each.npos:
            precision = float(each.precision[-1]) if len(each.precision) else math.nan
            recall = float(each.recall[-1]) if len(each.recall) else 0.0
            f1 = 2 * precision * recall / (precision + recall) if recall else 0.0
            out[each.name] = precision, recall, f1
    return out


def thresholds_of(detections: dict[str, Detections]) -> list[float]:
    return sorted({float(score) for found in detections.values() for score in found.scores})


def test_a_point_is_what_the_kept_detections_have() -> None:
    seen = 0
    for seed in range(CASES):
        dataset, detections = random_case(seed)
        result = evaluate_voc(dataset, detections)
        for threshold in [-9.0, *thresholds_of(detections), 9.0]:
            expected = kept_figures(dataset, detections, threshold)
            for each in result.classes:
                if each.npos:
                    point = point_at(each, threshold)
                    found = point.precision, point.recall, point.f1
                    assert found == pytest.approx(expected[each.name], nan_ok=True), seed
                    seen += 1
    assert seen > 1000


def test_no_threshold_is_better_than_the_best() -> None:
    several = 0
    for seed in range(CASES):
        dataset, detections = random_case(seed)
        result = evaluate_voc(dataset, detections)
        tried = {t: kept_figures(dataset, detections, t) for t in thresholds_of(detections)}
        points = best_points(result)
        assert [one.name for one in points] == [each.name for each in result.classes if each.npos]
        for point in points:
            f1 = {t: figures[point.name][2] for t, figures in tried.items()}
            best = max([0.0, *f1.values()])
            assert point.f1 == pytest.approx(best)
            if best:
                # The highest of those that are as good, up to scores that no detection counts at.
                assert f1[point.threshold] == pytest.approx(best)
                later = [t for t, value in f1.items() if t > point.threshold]
                assert all(f1[t] < best - 1e-12 for t in later)
            else:
                assert math.isnan(point.threshold)
        common = best_common_point(result)
        means = [
            sum(one[2] for one in figures.values()) / len(figures)
            for figures in tried.values()
            if figures
        ]
        assert common.name == ALL
        if means:
            assert common.f1 == pytest.approx(max(means))
            several += len(points) > 1
    assert several > 50


def test_nothing_to_draw_a_line_through() -> None:
    dataset = Dataset("toy val", CLASSES, (sample_of("a", [[0, 0, 20, 20]], [0]),))
    (only,) = best_points(evaluate_voc(dataset, {}))
    assert (only.name, only.recall, only.f1) == ("cat", 0, 0)
    assert math.isnan(only.threshold)
    assert math.isnan(only.precision)
    nothing = evaluate_voc(Dataset("empty", CLASSES, ()), {})
    assert best_points(nothing) == ()
    assert math.isnan(best_common_point(nothing).threshold)


def test_table_and_dict_hold_the_points() -> None:
    objects = [[0, 0, 20, 20], [100, 0, 150, 50]]
    dataset = Dataset("toy val", CLASSES, (sample_of("a", objects, [0, 1]),))
    stray = [300.0, 300.0, 400.0, 400.0]
    found = {"a": detections_of([objects[0], stray], [2, 1], [0, 0])}
    result = evaluate_voc(dataset, found)
    rows = [line.split() for line in thresholds_table(result).splitlines()]
    assert rows[1:] == [
        ["cat", "2.000", "1.000", "1.000", "1.000"],
        ["dog", "-", "-", "0.000", "0.000"],
        ["all", "2.000", "1.000", "0.500", "0.500"],
    ]
    value = thresholds_dict(result)
    assert value["classes"]["cat"] == {"threshold": 2, "precision": 1, "recall": 1, "f1": 1}
    assert value["classes"]["dog"]["threshold"] is None
    assert value["all"]["recall"] == 0.5
