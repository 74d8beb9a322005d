"""Box regressors: planted relations, folding, both solvers, and bad input."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.boxes import box_iou, decode_deltas, encode_deltas
from sppdet.core.errors import ConfigError, TrainingError
from sppdet.core.types import Float64Array, FloatArray, IntArray
from sppdet.heads import box_regression
from sppdet.heads.box_regression import (
    BUFFER_ROWS,
    WHITENING_EPSILON,
    BoxRegressionFitter,
    BoxRegressors,
    NormalEquations,
    ReservoirSample,
    whitening,
)
from sppdet.training.config import RegressionConfig

K, D = 3, 10
Samples = tuple[FloatArray, FloatArray, FloatArray, IntArray]


def planted(seed: int = 0, n: int = 400) -> tuple[Samples, FloatArray]:
    """Regions of classes 0 and 1 whose objects lie where a linear function of x says."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, D)).astype(np.float32)
    corner, size = rng.random((n, 2)) * 100, 20 + rng.random((n, 2)) * 100
    boxes = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
    labels = rng.integers(0, K - 1, n)
    truth = (rng.normal(size=(K - 1, D, 4)) * 0.015).astype(np.float32)
    offsets = np.einsum("nd,ndk->nk", features, truth[labels]) + np.float32(0.02)
    return (features, boxes, decode_deltas(offsets.astype(np.float32), boxes), labels), truth


def collect(samples: Samples, **options: float) -> BoxRegressionFitter:
    fitter = BoxRegressionFitter(K, D, **options)  # type: ignore[arg-type]
    for start in range(0, len(samples[0]), 33):
        part = slice(start, start + 33)
        features, boxes, gt_boxes, labels = samples
        fitter.add(features[part], boxes[part], gt_boxes[part], labels[part])
    return fitter


def test_nothing_in_nothing_trained() -> None:
    fitter = BoxRegressionFitter(K, D)
    empty = np.zeros((0, 4), dtype=np.float32)
    none = np.zeros((0, D), dtype=np.float32)
    fitter.add(none, empty, empty, np.zeros(0, dtype=np.int64))
    regressors = fitter.fit()
    assert not regressors.trained.any()
    nobody = np.zeros(0, dtype=np.int64)
    assert regressors.predict(none, empty, nobody, nobody).shape == (0, 4)


@pytest.mark.parametrize("max_normal_dim", [2048, 0])
@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_a_planted_relation_is_recovered(
    max_normal_dim: int, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(box_regression, "MAX_NORMAL_DIM", max_normal_dim)
    samples, truth = planted()
    regressors = collect(samples, alpha=1e-2, scale=scale).fit()
    assert regressors.trained.tolist() == [True, True, False]
    np.testing.assert_allclose(regressors.weights[: K - 1], truth, atol=1e-4)
    np.testing.assert_allclose(regressors.bias[: K - 1], 0.02, atol=1e-4)
    features, boxes, gt_boxes, labels = samples
    every = np.arange(len(boxes))
    moved = regressors.predict(features, boxes, every, labels)
    np.testing.assert_allclose(moved, gt_boxes, atol=0.05)
    # Some of them, in another order, one for two classes: each by itself.
    some = np.array([7, 3, 7, 0])
    for_classes = np.array([labels[7], labels[3], 1 - labels[7], labels[0]])
    again = regressors.predict(features, boxes, some, for_classes)
    np.testing.assert_allclose(again[[0, 1, 3]], moved[some[[0, 1, 3]]], rtol=1e-5)
    offsets = features[7] @ regressors.weights[1 - labels[7]] + regressors.bias[1 - labels[7]]
    np.testing.assert_allclose(again[2:3], decode_deltas(offsets[None], boxes[7:8]), rtol=1e-5)


def test_a_box_of_an_untrained_class_stays_and_the_input_is_not_touched() -> None:
    samples, _ = planted(n=50)
    regressors = collect(samples).fit()
    features, boxes, _, labels = samples
    labels = labels.copy()
    labels[::5] = K - 1
    before = boxes.copy()
    refined = regressors.predict(features, boxes, np.arange(len(boxes)), labels)
    np.testing.assert_array_equal(boxes, before)
    np.testing.assert_array_equal(refined[::5], boxes[::5])
    assert (refined[1::5] != boxes[1::5]).any()


def test_only_regions_above_the_iou_are_samples() -> None:
    rng = np.random.default_rng(4)
    n = 200
    features = rng.normal(size=(n, D)).astype(np.float32)
    gt_boxes = np.tile(np.array([10, 10, 50, 50], dtype=np.float32), (n, 1))
    boxes = gt_boxes + rng.integers(-20, 20, (n, 4)).astype(np.float32) * np.float32(0.5)
    boxes[0] = [10, 10, 50, 30]  # exactly one half: not a sample
    boxes[1] = [30, 30, 30, 30]  # without area: not a sample
    labels = rng.integers(0, K, n)
    use = np.diag(box_iou(boxes, gt_boxes)) > 0.5
    assert not use[:2].any()
    fitter = BoxRegressionFitter(K, D)
    fitter.add(features, boxes, gt_boxes, labels)
    assert fitter.counts().tolist() == np.bincount(labels[use], minlength=K).tolist()
    alone = BoxRegressionFitter(K, D)
    alone.add(features[use], boxes[use], gt_boxes[use], labels[use])
    np.testing.assert_array_equal(fitter.fit().weights, alone.fit().weights)


def test_the_whole_is_the_releases_recipe() -> None:
    """Scale, constant 1, center, whiten, ridge, undo: in float64, step by step."""
    features, boxes, gt_boxes, labels = planted(seed=3)[0]
    scale = 2.5
    samples = (features, boxes, gt_boxes, labels)
    regressors = collect(samples, alpha=50.0, scale=scale).fit()
    for label in range(K - 1):
        own = labels == label
        x = np.c_[features[own].astype(np.float64) * scale, np.ones(own.sum())]
        y = encode_deltas(gt_boxes[own], boxes[own]).astype(np.float64)
        mean = y.mean(axis=0)
        values, vectors = np.linalg.eigh((y - mean).T @ (y - mean) / len(y))
        whiten = vectors @ np.diag((values + 1e-3) ** -0.5) @ vectors.T
        beta = np.linalg.solve(x.T @ x + 50.0 * np.eye(D + 1), x.T @ ((y - mean) @ whiten))
        expected = x @ beta @ vectors @ np.diag((values + 1e-3) ** 0.5) @ vectors.T + mean
        found = features[own] @ regressors.weights[label] + regressors.bias[label]
        np.testing.assert_allclose(found, expected, atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(cut=st.integers(0, 600), max_normal_dim=st.sampled_from([0, 2048]))
def test_batches_do_not_change_a_byte(cut: int, max_normal_dim: int) -> None:
    samples, _ = planted(n=1300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(box_regression, "MAX_NORMAL_DIM", max_normal_dim)
        whole = BoxRegressionFitter(K, D, max_samples=100, scale=3.0)
        parts = BoxRegressionFitter(K, D, max_samples=100, scale=3.0)
    whole.add(*samples)
    features, boxes, gt_boxes, labels = samples
    parts.add(features[:cut], boxes[:cut], gt_boxes[:cut], labels[:cut])
    parts.add(features[cut:], boxes[cut:], gt_boxes[cut:], labels[cut:])
    for field in fields(BoxRegressors):
        expected, found = getattr(whole.fit(), field.name), getattr(parts.fit(), field.name)
        assert expected.tobytes() == found.tobytes()


def test_a_feature_that_is_not_finite_names_its_image() -> None:
    features, boxes, gt_boxes, labels = planted(n=5)[0]
    features[2, 1] = np.inf
    with pytest.raises(TrainingError, match=r"broken\.jpg"):
        BoxRegressionFitter(K, D).add(features, boxes, gt_boxes, labels, image_id="broken.jpg")


def test_wrong_shapes_are_refused() -> None:
    features, boxes, gt_boxes, labels = planted(n=5)[0]
    fitter = BoxRegressionFitter(K, D)
    with pytest.raises(ValueError, match="features must be"):
        fitter.add(features[:, 1:], boxes, gt_boxes, labels)
    with pytest.raises(ValueError, match="length"):
        fitter.add(features, boxes, gt_boxes, labels[1:])
    with pytest.raises(ValueError, match="outside"):
        fitter.add(features, boxes, gt_boxes, labels + K)


@pytest.mark.parametrize(
    "change",
    [
        {"alpha": 0.0},
        {"min_iou": 1.0},
        {"max_samples": 0},
        {"feature_norm": -1.0},
    ],
)
def test_config_values_out_of_range_are_named(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"regression.{next(iter(change))}"):
        RegressionConfig(**change)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weights", np.zeros((2, 5))),
        ("weights", np.full((2, 5, 4), np.nan)),
        ("bias", np.zeros((3, 4))),
        ("trained", np.ones(1, dtype=bool)),
    ],
)
def test_malformed_regressors_are_refused(field: str, value: np.ndarray[Any, Any]) -> None:
    fields = {"weights": np.zeros((2, 5, 4)), "bias": np.zeros((2, 4)), "trained": np.ones(2, bool)}
    with pytest.raises(ValueError, match=r"fit|finite"):
        BoxRegressors(**{**fields, field: value})


def random_samples(seed: int, n: int, dim: int) -> tuple[FloatArray, Float64Array]:
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
    rows, targets = random_samples(seed, n, dim)
    expected = explicit(rows, targets, ridge)
    for part in (NormalEquations(dim), ReservoirSample(dim, n, seed=0)):
        part.add(rows, targets)
        weights, mean = part.solve(ridge)
        np.testing.assert_allclose(rows @ weights + mean, expected, atol=1e-3)


@pytest.mark.parametrize("n", [1, BUFFER_ROWS - 1, BUFFER_ROWS, 2 * BUFFER_ROWS + 3])
def test_normal_equations_do_not_depend_on_the_batches(n: int) -> None:
    rows, targets = random_samples(1, n, 6)
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
    rows, targets = random_samples(2, 300, 5)
    one, many, other = (ReservoirSample(5, 40, seed) for seed in (7, 7, 8))
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
        part = ReservoirSample(1, 15, seed)
        part.add(rows, np.zeros((60, 4)))
        kept[part.rows[:, 0].astype(np.int64)] += 1
    # Binomial(300, 1/4): mean 75, standard deviation 7.5; five of them either way.
    assert kept.min() > 37
    assert kept.max() < 113
