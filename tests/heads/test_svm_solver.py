"""The SVM solver, against scikit-learn's LinearSVC, the duality gap and a warm start."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import LinearSVC

from sppdet.core.types import Float64Array, FloatArray
from sppdet.heads.svm_solver import DualProblem, SvmSolution, margins, solve

BIAS_SCALE = 10.0


def problem(
    seed: int, n: int, dim: int, c: float = 1e-3, weight: float = 2.0
) -> tuple[FloatArray, DualProblem]:
    """Overlapping classes among rows that the dual does not use, about as long as real ones."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n + 7, dim)) * 20 / np.sqrt(dim)
    index = rng.permutation(n + 7)[:n]
    sign = np.where(rng.random(n) < 0.3, 1.0, -1.0)
    rows[index, 0] += 6 * sign
    cost = np.where(sign > 0, c * weight, c)
    return rows.astype(np.float32), DualProblem(index, sign, cost, np.zeros(n))


def run(
    rows: FloatArray,
    dual: DualProblem,
    tolerance: float = 1e-9,
    passes: int = 100_000,
    seed: int = 0,
) -> SvmSolution:
    squares = (rows.astype(np.float64) ** 2).sum(axis=1)
    return solve(
        rows,
        squares,
        dual,
        bias_scale=BIAS_SCALE,
        tolerance=tolerance,
        max_iterations=passes,
        seed=seed,
    )


def objective(rows: FloatArray, dual: DualProblem, weights: Float64Array, bias: float) -> float:
    scores = rows[dual.index].astype(np.float64) @ weights + bias
    hinge = np.maximum(0.0, 1.0 - dual.sign * scores)
    regularizer = weights @ weights + (bias / BIAS_SCALE) ** 2
    return float(0.5 * regularizer + (dual.cost * hinge).sum())


def test_no_rows_give_the_zero_svm() -> None:
    empty = DualProblem(np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0), np.zeros(0))
    found = run(np.zeros((0, 4), dtype=np.float32), empty)
    assert found.converged
    assert found.bias == 0
    assert not found.weights.any()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("n", "dim", "c"), [(40, 3, 1e-3), (200, 30, 1e-2), (60, 100, 1.0)])
def test_the_objective_is_linear_svcs(seed: int, n: int, dim: int, c: float) -> None:
    rows, dual = problem(seed, n, dim, c)
    found = run(rows, dual)
    assert found.converged
    oracle = LinearSVC(
        loss="hinge", C=c, class_weight={1: 2.0}, intercept_scaling=BIAS_SCALE,
        tol=1e-8, max_iter=1_000_000, random_state=0,
    ).fit(rows[dual.index], dual.sign)  # fmt: skip
    ours = objective(rows, dual, found.weights, found.bias)
    theirs = objective(rows, dual, oracle.coef_[0], float(oracle.intercept_[0]))
    assert ours == pytest.approx(theirs, rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 60),
    dim=st.integers(1, 20),
    c=st.sampled_from([1e-4, 1e-3, 1e-1]),
    weight=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_no_svm_can_be_better(seed: int, n: int, dim: int, c: float, weight: float) -> None:
    """The multipliers prove it: their dual value bounds every objective from below."""
    rows, dual = problem(seed, n, dim, c, weight)
    found = run(rows, dual)
    assert np.all((dual.alpha >= 0) & (dual.alpha <= dual.cost))
    x = np.c_[rows[dual.index].astype(np.float64), np.full(n, BIAS_SCALE)]
    implied = x.T @ (dual.alpha * dual.sign)
    np.testing.assert_allclose(found.weights, implied[:-1], atol=1e-9)
    assert found.bias == pytest.approx(implied[-1] * BIAS_SCALE, abs=1e-9)
    bound = dual.alpha.sum() - 0.5 * implied @ implied
    primal = objective(rows, dual, found.weights, found.bias)
    assert bound <= primal + 1e-12
    assert primal - bound <= 1e-7 * primal


def test_a_warm_start_ends_in_the_same_svm_sooner() -> None:
    rows, cold = problem(3, 300, 20, c=1e-2)
    reference = run(rows, cold)
    part = DualProblem(cold.index[:280], cold.sign[:280], cold.cost[:280], np.zeros(280))
    run(rows, part)
    warm = DualProblem(cold.index, cold.sign, cold.cost, np.concatenate([part.alpha, np.zeros(20)]))
    again = run(rows, warm)
    np.testing.assert_allclose(again.weights, reference.weights, atol=1e-5)
    dual = DualProblem(warm.index, warm.sign, warm.cost, warm.alpha.copy())
    assert run(rows, dual, tolerance=1e-4, passes=2).converged


def test_two_runs_are_bit_identical() -> None:
    rows, first = problem(5, 200, 30)
    second = DualProblem(first.index, first.sign, first.cost, np.zeros(200))
    a, b = run(rows, first, seed=9), run(rows, second, seed=9)
    assert a.weights.tobytes() == b.weights.tobytes()
    assert (a.bias, a.converged) == (b.bias, b.converged)


def test_too_few_passes_are_reported() -> None:
    rows, dual = problem(1, 200, 5, c=1.0)
    found = run(rows, dual, tolerance=1e-9, passes=1)
    assert not found.converged


def test_margins_are_the_scores_of_the_indexed_rows() -> None:
    rows, dual = problem(2, 50, 9)
    weights = np.random.default_rng(0).normal(size=9)
    expected = rows[dual.index].astype(np.float64) @ weights + 0.25
    np.testing.assert_allclose(margins(rows, dual.index, weights, 0.25), expected)
