"""The VOC classification protocol against an oracle: the devkit's VOCevalcls, line by line."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.errors import EvaluationError
from sppdet.core.types import Dataset, FloatArray
from sppdet.evaluation.classification_report import classification_dict, classification_table
from sppdet.evaluation.voc_classification import (
    class_labels,
    evaluate_voc_classification,
    write_voc_classification,
)
from tests.helpers.evaluation_cases import CLASSES, sample_of

BOX = [10.0, 10.0, 60.0, 60.0]


def dataset_of(truth: list[list[tuple[int, bool]]]) -> Dataset:
    """One image for each list of (label, difficult)."""
    samples = [
        sample_of(f"{i:03}", [BOX] * len(objects), [k for k, _ in objects], [d for _, d in objects])
        for i, objects in enumerate(truth)
    ]
    return Dataset("made", CLASSES, tuple(samples))


def random_case(seed: int) -> tuple[Dataset, dict[str, FloatArray]]:
    """Up to 30 images with few distinct scores, so that ties are frequent; some have none."""
    rng = np.random.default_rng(seed)
    truth = [
        [(int(k), bool(rng.random() < 0.4)) for k in rng.integers(0, 3, rng.integers(0, 4))]
        for _ in range(rng.integers(0, 31))
    ]
    dataset = dataset_of(truth)
    scores = {
        sample.image_id: rng.integers(-3, 4, 3).astype(np.float32)
        for sample in dataset
        if rng.random() < 0.9
    }
    return dataset, scores


def devkit_ap(dataset: Dataset, scores: dict[str, FloatArray], label: int) -> tuple[float, float]:
    """VOCevalcls in plain loops and exact fractions: ground truth 1, 0 (difficult only) or -1."""
    rows: list[tuple[float, int]] = []
    for sample in dataset:
        mine = [bool(d) for k, d in zip(sample.labels, sample.difficult, strict=True) if k == label]
        truth = -1 if not mine else 0 if all(mine) else 1
        score = float(scores[sample.image_id][label]) if sample.image_id in scores else -math.inf
        rows.append((score, truth))
    npos = sum(truth == 1 for _, truth in rows)
    if npos == 0:
        return math.nan, math.nan
    points: list[tuple[Fraction, Fraction]] = []
    tp = fp = 0
    for _, truth in sorted(rows, key=lambda row: -row[0]):
        tp, fp = tp + (truth == 1), fp + (truth == -1)
        if tp + fp:
            points.append((Fraction(tp, npos), Fraction(tp, tp + fp)))
    eleven = [
        max((p for r, p in points if r >= Fraction(t, 10)), default=Fraction(0)) for t in range(11)
    ]
    area, last = Fraction(0), Fraction(0)
    for recall, _ in points:
        if recall > last:
            area += (recall - last) * max(p for r, p in points if r >= recall)
            last = recall
    return float(sum(eleven) / 11), float(area)


def same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, abs_tol=1e-12)


def test_an_empty_data_set_has_no_figures() -> None:
    result = evaluate_voc_classification(dataset_of([]), {})
    assert result.n_images == 0
    assert math.isnan(result.map11)
    assert all(math.isnan(each.ap11) for each in result.classes)
    assert classification_dict(result)["map11"] is None
    assert "-" in classification_table(result)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32))
def test_figures_are_the_devkits(seed: int) -> None:
    dataset, scores = random_case(seed)
    result = evaluate_voc_classification(dataset, scores)
    for label, each in enumerate(result.classes):
        ap11, area = devkit_ap(dataset, scores, label)
        assert same(each.ap11, ap11)
        assert same(each.ap_area, area)
        assert each.positives + each.negatives + each.left_out == len(dataset)
    known = [each.ap11 for each in result.classes if each.positives]
    assert same(result.map11, float(np.mean(known)) if known else math.nan)


def test_labels_tell_difficult_from_absent() -> None:
    dataset = dataset_of([[(0, True)], [(0, True), (0, False), (2, True)], []])
    assert class_labels(dataset).tolist() == [[0, -1, -1], [1, -1, 0], [-1, -1, -1]]


def test_images_with_only_difficult_objects_are_left_out() -> None:
    dataset = dataset_of([[(0, True)], [(0, False)], []])
    best_is_difficult = {"000": [9, 0, 0], "001": [5, 0, 0], "002": [1, 0, 0]}
    scores = {k: np.array(v, np.float32) for k, v in best_is_difficult.items()}
    first = evaluate_voc_classification(dataset, scores).classes[0]
    assert (first.ap11, first.positives, first.negatives, first.left_out) == (1.0, 1, 1, 1)


def test_equal_scores_keep_the_order_of_the_data_set() -> None:
    truth: list[list[tuple[int, bool]]] = [[], [(0, False)], [(0, False)]]
    scores = {f"{i:03}": np.zeros(3, np.float32) for i in range(3)}
    for order, area in ((truth, 2 / 3), (truth[::-1], 1.0)):
        first = evaluate_voc_classification(dataset_of(order), scores).classes[0]
        assert first.ap_area == pytest.approx(area)


@pytest.mark.parametrize(
    ("scores", "problem"),
    [
        ({"999": np.zeros(3, np.float32)}, "999 is not in the data set"),
        ({"000": np.zeros(2, np.float32)}, r"shape \(2,\)"),
        ({"000": np.array([0, np.nan, 0], np.float32)}, "nan or infinite"),
        ({"000": np.array([0, np.inf, 0], np.float32)}, "nan or infinite"),
    ],
)
def test_scores_that_do_not_fit_are_refused(scores: dict[str, FloatArray], problem: str) -> None:
    with pytest.raises(EvaluationError, match=problem):
        evaluate_voc_classification(dataset_of([[(0, False)]]), scores)


def test_an_untrained_class_may_score_minus_infinity() -> None:
    scores = {"000": np.array([-np.inf, 0, 0], np.float32)}
    assert evaluate_voc_classification(dataset_of([[(0, False)]]), scores).classes[0].ap11 == 1.0


def test_result_files_hold_every_score_to_the_last_bit(tmp_path: Path) -> None:
    dataset = dataset_of([[(0, False)], [], [(1, False)]])
    rng = np.random.default_rng(0)
    scores = {f"{i:03}": rng.normal(size=3).astype(np.float32) for i in range(2)}
    paths = write_voc_classification(tmp_path, dataset, scores, split="val")
    assert [path.name for path in paths] == [f"comp2_cls_val_{name}.txt" for name in CLASSES]
    for k, path in enumerate(paths):
        lines = [line.split() for line in path.read_text().splitlines()]
        found = {image_id: np.float32(value) for image_id, value in lines}
        assert found == {image_id: row[k] for image_id, row in scores.items()}


@pytest.mark.parametrize("split", ["", "a b", "../val"])
def test_result_files_refuse_names_that_are_none(tmp_path: Path, split: str) -> None:
    with pytest.raises(EvaluationError, match="cannot stand"):
        write_voc_classification(tmp_path, dataset_of([[]]), {}, split=split)
