"""Box regressors: planted relations, folding, resumption and bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.boxes import decode, encode, iou_matrix
from sppdet.errors import ConfigError, TrainingError
from sppdet.regression import BoxRegressors, RegressionConfig, RidgeCollector
from sppdet.types import FloatArray, IntArray

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
    return (features, boxes, decode(offsets.astype(np.float32), boxes), labels), truth


def collect(config: RegressionConfig, samples: Samples, scale: float = 1.0) -> RidgeCollector:
    collector = RidgeCollector(K, D, config, scale)
    for start in range(0, len(samples[0]), 33):
        part = slice(start, start + 33)
        features, boxes, gt_boxes, labels = samples
        collector.add(features[part], boxes[part], gt_boxes[part], labels[part])
    return collector


def test_nothing_in_nothing_trained() -> None:
    collector = RidgeCollector(K, D, RegressionConfig())
    empty = np.zeros((0, 4), dtype=np.float32)
    none = np.zeros((0, D), dtype=np.float32)
    collector.add(none, empty, empty, np.zeros(0, dtype=np.int64))
    regressors = collector.finish()
    assert not regressors.trained.any()
    nobody = np.zeros(0, dtype=np.int64)
    assert regressors.refine(none, empty, nobody, nobody).shape == (0, 4)


@pytest.mark.parametrize("max_normal_dim", [2048, 0])
@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_a_planted_relation_is_recovered(max_normal_dim: int, scale: float) -> None:
    samples, truth = planted()
    config = RegressionConfig(ridge=1e-2, max_normal_dim=max_normal_dim)
    regressors = collect(config, samples, scale).finish()
    assert regressors.trained.tolist() == [True, True, False]
    np.testing.assert_allclose(regressors.weights[: K - 1], truth, atol=1e-4)
    np.testing.assert_allclose(regressors.bias[: K - 1], 0.02, atol=1e-4)
    features, boxes, gt_boxes, labels = samples
    every = np.arange(len(boxes))
    moved = regressors.refine(features, boxes, every, labels)
    np.testing.assert_allclose(moved, gt_boxes, atol=0.05)
    # Some of them, in another order, one for two classes: each by itself.
    some = np.array([7, 3, 7, 0])
    for_classes = np.array([labels[7], labels[3], 1 - labels[7], labels[0]])
    again = regressors.refine(features, boxes, some, for_classes)
    np.testing.assert_allclose(again[[0, 1, 3]], moved[some[[0, 1, 3]]], rtol=1e-5)
    offsets = features[7] @ regressors.weights[1 - labels[7]] + regressors.bias[1 - labels[7]]
    np.testing.assert_allclose(again[2:3], decode(offsets[None], boxes[7:8]), rtol=1e-5)


def test_a_box_of_an_untrained_class_stays_and_the_input_is_not_touched() -> None:
    samples, _ = planted(n=50)
    regressors = collect(RegressionConfig(), samples).finish()
    features, boxes, _, labels = samples
    labels = labels.copy()
    labels[::5] = K - 1
    before = boxes.copy()
    refined = regressors.refine(features, boxes, np.arange(len(boxes)), labels)
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
    use = np.diag(iou_matrix(boxes, gt_boxes)) > 0.5
    assert not use[:2].any()
    collector = RidgeCollector(K, D, RegressionConfig())
    collector.add(features, boxes, gt_boxes, labels)
    assert collector.counts().tolist() == np.bincount(labels[use], minlength=K).tolist()
    alone = RidgeCollector(K, D, RegressionConfig())
    alone.add(features[use], boxes[use], gt_boxes[use], labels[use])
    np.testing.assert_array_equal(collector.finish().weights, alone.finish().weights)


def test_the_whole_is_the_releases_recipe() -> None:
    """Scale, constant 1, centre, whiten, ridge, undo: in float64, step by step."""
    features, boxes, gt_boxes, labels = planted(seed=3)[0]
    scale, config = 2.5, RegressionConfig(ridge=50.0)
    regressors = collect(config, (features, boxes, gt_boxes, labels), scale).finish()
    for label in range(K - 1):
        own = labels == label
        x = np.c_[features[own].astype(np.float64) * scale, np.ones(own.sum())]
        y = encode(gt_boxes[own], boxes[own]).astype(np.float64)
        mean = y.mean(axis=0)
        values, vectors = np.linalg.eigh((y - mean).T @ (y - mean) / len(y))
        whiten = vectors @ np.diag((values + 1e-3) ** -0.5) @ vectors.T
        beta = np.linalg.solve(x.T @ x + 50.0 * np.eye(D + 1), x.T @ ((y - mean) @ whiten))
        expected = x @ beta @ vectors @ np.diag((values + 1e-3) ** 0.5) @ vectors.T + mean
        found = features[own] @ regressors.weights[label] + regressors.bias[label]
        np.testing.assert_allclose(found, expected, atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(cut=st.integers(0, 600), max_normal_dim=st.sampled_from([0, 2048]))
def test_interrupted_collecting_ends_in_the_same_bytes(cut: int, max_normal_dim: int) -> None:
    samples, _ = planted(n=1300)
    config = RegressionConfig(max_normal_dim=max_normal_dim, max_samples=100)
    whole = RidgeCollector(K, D, config, 3.0)
    whole.add(*samples)
    first = RidgeCollector(K, D, config, 3.0)
    features, boxes, gt_boxes, labels = samples
    first.add(features[:cut], boxes[:cut], gt_boxes[:cut], labels[:cut])
    state = first.state()
    first.add(*samples)  # the state is a copy: what happens later does not reach it
    resumed = RidgeCollector.from_state(state, config)
    resumed.add(features[cut:], boxes[cut:], gt_boxes[cut:], labels[cut:])
    for name in BoxRegressors.__slots__:
        expected, found = getattr(whole.finish(), name), getattr(resumed.finish(), name)
        assert expected.tobytes() == found.tobytes()


def test_a_feature_that_is_not_finite_names_its_image() -> None:
    features, boxes, gt_boxes, labels = planted(n=5)[0]
    features[2, 1] = np.inf
    with pytest.raises(TrainingError, match=r"broken\.jpg"):
        RidgeCollector(K, D, RegressionConfig()).add(
            features, boxes, gt_boxes, labels, where="broken.jpg"
        )


def test_wrong_shapes_are_refused() -> None:
    features, boxes, gt_boxes, labels = planted(n=5)[0]
    collector = RidgeCollector(K, D, RegressionConfig())
    with pytest.raises(ValueError, match="features must be"):
        collector.add(features[:, 1:], boxes, gt_boxes, labels)
    with pytest.raises(ValueError, match="length"):
        collector.add(features, boxes, gt_boxes, labels[1:])
    with pytest.raises(ValueError, match="outside"):
        collector.add(features, boxes, gt_boxes, labels + K)


@pytest.mark.parametrize(
    "change",
    [
        {"layer": "fc8"},
        {"ridge": 0.0},
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
    with pytest.raises(ValueError, match=r"must be|fit|finite"):
        BoxRegressors(**{**fields, field: value})
