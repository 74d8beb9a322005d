"""SVMs on image features: the optimum of the objective, and the choice of C."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from sppdet.classification.config import ImageSvmConfig
from sppdet.classification.image_svms import hold_out, mean_ap, train_svms
from sppdet.core.errors import ConfigError
from sppdet.core.types import FloatArray, IntArray


def made(count: int = 80, dim: int = 10, classes: int = 3) -> tuple[FloatArray, IntArray]:
    """Unit features that a noisy linear rule labels, with a few labels left out."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(count, dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rule = rows @ rng.normal(size=(dim, classes)) + rng.normal(size=(count, classes)) * 0.3
    labels = np.where(rule > 0.2, 1, -1).astype(np.int64)
    labels[rng.random(labels.shape) < 0.05] = 0
    return rows, labels


def hinge_objective(
    x: NDArray[np.float64], signs: IntArray, costs: NDArray[np.float64], w: NDArray[np.float64]
) -> float:
    """|w|^2 / 2 + sum of costs * hinge losses; the bias is the weight of a constant feature."""
    return float(w @ w / 2 + costs @ np.maximum(0, 1 - signs * (x @ w)))


def test_no_images_train_nothing() -> None:
    svms, _, figures = train_svms(
        np.zeros((0, 4), np.float32), np.zeros((0, 2), np.int64), ImageSvmConfig()
    )
    assert not svms.trained.any()
    assert svms.weights.shape == (2, 4)
    assert figures == {}


@pytest.mark.parametrize("c", [0.3, 3.0])
@pytest.mark.parametrize("positive_weight", [1.0, 4.0])
@pytest.mark.parametrize("intercept_scaling", [1.0, 5.0])
def test_the_solution_minimizes_the_objective(
    c: float, positive_weight: float, intercept_scaling: float
) -> None:
    """The objective is convex: a minimum among near and far neighbors is the minimum."""
    rows, labels = made()
    config = ImageSvmConfig(
        c=c,
        positive_weight=positive_weight,
        intercept_scaling=intercept_scaling,
        tolerance=1e-5,
        max_iterations=100_000,
    )
    svms, used, _ = train_svms(rows, labels, config)
    assert used == c
    assert svms.trained.all()
    assert svms.converged.all()
    rng = np.random.default_rng(1)
    for k in range(labels.shape[1]):
        counted = labels[:, k] != 0
        signs = labels[counted, k]
        x = np.hstack([rows[counted], np.full((len(signs), 1), intercept_scaling)])
        costs = np.where(signs > 0, c * positive_weight, c)
        objective = partial(hinge_objective, x, signs, costs)

        solution = np.append(svms.weights[k], svms.bias[k] / intercept_scaling)
        least = objective(solution)
        for size in (1e-3, 1e-2, 1e-1, 1.0):
            for _ in range(50):
                assert objective(solution + size * rng.normal(size=len(solution))) > least - 1e-4
        assert objective(0 * solution) > least


def test_a_class_that_needs_more_passes_is_marked() -> None:
    rows, labels = made()
    config = ImageSvmConfig(c=100.0, tolerance=1e-9, max_iterations=2)
    svms, _, _ = train_svms(rows, labels, config)
    assert svms.trained.all()
    assert not svms.converged.any()


def test_a_class_of_one_kind_stays_untrained() -> None:
    rows, labels = made()
    labels[:, 0], labels[:, 1] = 1, 0
    svms, _, _ = train_svms(rows, labels, ImageSvmConfig())
    assert svms.trained.tolist() == [False, False, True]
    assert np.isneginf(svms.decision_function(rows)[:, :2]).all()


def test_images_left_out_of_a_class_do_not_count() -> None:
    rows, labels = made()
    labels[:20, 0] = 0
    config = ImageSvmConfig(c=1.0, tolerance=1e-6)
    whole = train_svms(rows, labels, config)[0]
    without = train_svms(rows[20:], labels[20:], config)[0]
    assert whole.weights[0] == pytest.approx(without.weights[0], abs=1e-3)


def test_c_is_the_best_on_held_out_images() -> None:
    rows, labels = made(200)
    config = ImageSvmConfig(candidates=(0.001, 0.1, 10.0))
    svms, c, figures = train_svms(rows, labels, config)
    assert set(figures) == {"0.001", "0.1", "10"}
    held = hold_out(len(rows), config.holdout, 0)
    for candidate in config.candidates:
        alone = ImageSvmConfig(c=candidate)
        there = train_svms(rows[~held], labels[~held], alone)[0].decision_function(rows[held])
        assert figures[f"{candidate:g}"] == mean_ap(there, labels[held])
    assert figures[f"{c:g}"] == max(figures.values())
    again = train_svms(rows, labels, ImageSvmConfig(c=c))[0]
    assert np.array_equal(again.weights, svms.weights)


def test_too_few_images_to_hold_out_take_the_first_candidate() -> None:
    rows, labels = np.eye(2, dtype=np.float32), np.array([[1], [-1]], np.int64)
    svms, c, figures = train_svms(rows, labels, ImageSvmConfig(holdout=0.1))
    assert (c, figures) == (ImageSvmConfig().candidates[0], {})
    assert svms.trained.all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 500), st.floats(0.01, 0.99), st.integers(0, 9))
def test_the_held_out_share_is_a_function_of_its_arguments(
    count: int, share: float, seed: int
) -> None:
    held = hold_out(count, share, seed)
    assert held.shape == (count,)
    assert held.sum() == round(count * share)
    assert np.array_equal(held, hold_out(count, share, seed))


def test_mean_ap_is_scikit_learns_where_precision_falls() -> None:
    """The VOC area is over the envelope of precision: equal where the envelope is the curve."""
    labels = np.array([[1], [1], [-1], [-1]], np.int64)
    scores = np.array([[4.0], [3.0], [2.0], [1.0]], np.float32)
    assert mean_ap(scores, labels) == 1.0 == average_precision_score(labels > 0, scores)
    assert mean_ap(-scores, labels) == pytest.approx(0.5)
    assert mean_ap(scores, np.array([[1], [0], [-1], [1]], np.int64)) == pytest.approx(5 / 6)
    assert math.isnan(mean_ap(scores, np.full((4, 1), -1, np.int64)))


@pytest.mark.parametrize(
    "changes",
    [
        {"c": 0.0},
        {"candidates": ()},
        {"candidates": (1.0, -1.0)},
        {"holdout": 0.0},
        {"holdout": 1.0},
        {"positive_weight": 0.0},
        {"intercept_scaling": 0.0},
        {"tolerance": 0.0},
        {"max_iterations": 0},
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ImageSvmConfig(**changes)
