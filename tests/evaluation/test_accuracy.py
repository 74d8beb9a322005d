"""Accuracies: the rank of the right class, ties, and images without scores."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.errors import EvaluationError
from sppdet.datasets import LabeledImages
from sppdet.evaluation.accuracy import evaluate_accuracy, rank_of
from sppdet.evaluation.classification_report import accuracy_dict, accuracy_table


def images(labels: list[int], classes: int) -> LabeledImages:
    names = tuple(f"class{k}" for k in range(classes))
    paths = tuple(Path(f"{i}.jpg") for i in range(len(labels)))
    return LabeledImages("made", names, paths, np.array(labels, np.int64))


def test_no_images_have_no_figures() -> None:
    result = evaluate_accuracy(images([], 3), {})
    assert math.isnan(result.top1)
    assert accuracy_dict(result)["top1"] is None
    assert "-" in accuracy_table(result)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 8), st.integers(1, 20))
def test_figures_are_those_of_a_stable_sort(seed: int, classes: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count).tolist()
    scores = {
        i: rng.integers(0, 4, classes).astype(np.float32)
        for i in range(count)
        if rng.random() < 0.9
    }
    result = evaluate_accuracy(images(labels, classes), scores)
    best = {i: sorted(range(classes), key=lambda k: -found[k]) for i, found in scores.items()}
    assert result.top1 == pytest.approx(sum(best[i][0] == labels[i] for i in best) / count)
    if classes > 5:
        assert result.top5 == pytest.approx(sum(labels[i] in best[i][:5] for i in best) / count)
    else:
        assert result.top5 is None
    assert sum(result.images) == count
    assert sum(result.right) == round(result.top1 * count)
    for i, order in best.items():
        assert rank_of(scores[i], labels[i]) == order.index(labels[i])


@pytest.mark.parametrize(
    ("index", "scores", "problem"),
    [
        (1, [0.0, 0.0], "no image 1"),
        (-1, [0.0, 0.0], "no image -1"),
        (0, [0.0], "one number for each class"),
        (0, [0.0, math.nan], "one number for each class"),
    ],
)
def test_scores_that_do_not_fit_are_refused(index: int, scores: list[float], problem: str) -> None:
    with pytest.raises(EvaluationError, match=problem):
        evaluate_accuracy(images([0], 2), {index: np.array(scores, np.float32)})


def test_the_table_names_every_class() -> None:
    found = {0: np.array([1, 0], np.float32), 1: np.array([1, 0], np.float32)}
    table = accuracy_table(evaluate_accuracy(images([0, 1], 2), found))
    assert [line.split() for line in table.splitlines()] == [
        ["class", "images", "right", "share"],
        ["class0", "1", "1", "1.000"],
        ["class1", "1", "0", "0.000"],
        ["all", "2", "1", "0.500"],
    ]
