"""The two ridge solvers against explicit normal equations, and against each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.ridge import (
    BUFFER_ROWS,
    WHITENING_EPSILON,
    Float64Array,
    KeptSamples,
    NormalEquations,
    whitening,
)
from sppdet.types import FloatArray


def samples(seed: int, n: int, dim: int) -> tuple[FloatArray, Float64Array]:
    rng = np.random.default_rng(seed)
    rows = np.ones((n, dim + 1), dtype=np.float32)
    rows[:, :-1] = rng.normal(0.5, 1.0, (n, dim))
    targets = rows[:, :4] @ rng.normal(size=(min(4, dim + 1), 4)) + rng.normal(0, 0.1, (n, 4)) + 0.3
    return rows, targets.astype(np.float64)


def explicit(rows: FloatArray, targets: Float64Array, ridge: float) -> Float64Array:
    """Predictions for the rows: whiten, solve in float64, unwhiten, as the release's steps go."""
    x = rows.astype(np.float64)
    mean = targets.mean(axis=0)
    values, vectors = np.linalg.eigh((targets - mean).T @ (targets - mean) / len(targets))
    whiten = vectors @ np.diag(1 / np.sqrt(values + WHITENING_EPSILON)) @ vectors.T
    y = (targets - mean) @ whiten
    beta = np.linalg.inv(x.T @ x + ridge * np.eye(x.shape[1])) @ x.T @ y
    out: Float64Array = x @ beta @ np.linalg.inv(whiten) + mean
    return out


def test_whitening_makes_the_covariance_the_identity() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4)) * 10
    covariance = np.cov(y.T, bias=True)
    whiten, unwhiten = whitening(covariance)
    np.testing.assert_allclose(whiten @ unwhiten, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(whiten @ covariance @ whiten, np.eye(4), atol=0.01)
    degenerate, _ = whitening(np.zeros((4, 4)))
    np.testing.assert_allclose(degenerate, np.eye(4) / np.sqrt(WHITENING_EPSILON))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 80),
    dim=st.integers(3, 40),
    ridge=st.sampled_from([0.5, 10.0, 4000.0]),
)
def test_both_solvers_are_the_explicit_one(seed: int, n: int, dim: int, ridge: float) -> None:
    rows, targets = samples(seed, n, dim)
    expected = explicit(rows, targets, ridge)
    for part in (NormalEquations(dim), KeptSamples(dim, n, seed=0)):
        part.add(rows, targets)
        weights, mean = part.solve(ridge)
        np.testing.assert_allclose(rows @ weights + mean, expected, atol=1e-3)


@pytest.mark.parametrize("n", [1, BUFFER_ROWS - 1, BUFFER_ROWS, 2 * BUFFER_ROWS + 3])
def test_normal_equations_do_not_depend_on_the_batches(n: int) -> None:
    rows, targets = samples(1, n, 6)
    one, many = NormalEquations(6), NormalEquations(6)
    one.add(rows, targets)
    many.add(rows[:0], targets[:0])
    for start in range(0, n, 37):
        many.add(rows[start : start + 37], targets[start : start + 37])
    for a, b in zip(one.solve(3.0), many.solve(3.0), strict=True):
        assert a.tobytes() == b.tobytes()
    np.testing.assert_allclose(
        rows @ one.solve(3.0)[0] + one.solve(3.0)[1], explicit(rows, targets, 3.0), atol=1e-3
    )


def test_kept_samples_are_a_choice_of_the_seed_alone() -> None:
    rows, targets = samples(2, 300, 5)
    one, many, other = (KeptSamples(5, 40, seed) for seed in (7, 7, 8))
    one.add(rows, targets)
    other.add(rows, targets)
    for i in range(len(rows)):
        many.add(rows[i : i + 1], targets[i : i + 1])
    assert one.rows.tobytes() == many.rows.tobytes()
    assert one.rows.shape == (40, 6)
    assert len(np.unique(one.rows, axis=0)) == 40
    assert not np.array_equal(one.rows, other.rows)


def test_every_sample_has_the_same_chance_to_be_kept() -> None:
    rows = np.arange(60, dtype=np.float32)[:, None].repeat(2, axis=1)
    kept = np.zeros(60)
    for seed in range(300):
        part = KeptSamples(1, 15, seed)
        part.add(rows, np.zeros((60, 4)))
        kept[part.rows[:, 0].astype(np.int64)] += 1
    # Binomial(300, 1/4): mean 75, standard deviation 7.5; five of them either way.
    assert kept.min() > 37
    assert kept.max() < 113
