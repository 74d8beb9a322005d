"""Settings, scores and feature scale of the linear SVMs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sppdet.core.errors import ConfigError, TrainingError
from sppdet.heads.svm import LinearSvms, feature_scale
from sppdet.training.config import SvmConfig


def some_svms() -> LinearSvms:
    rng = np.random.default_rng(0)
    return LinearSvms(
        weights=rng.normal(size=(3, 5)).astype(np.float32),
        bias=np.array([0.5, 0.0, -1.0], dtype=np.float32),
        trained=np.array([True, False, True]),
        converged=np.array([True, False, True]),
    )


def test_no_features_give_no_scores() -> None:
    assert some_svms().decision_function(np.zeros((0, 5), dtype=np.float32)).shape == (0, 3)


def test_scores_are_margins_and_untrained_classes_never_win() -> None:
    svms = some_svms()
    features = np.random.default_rng(1).normal(size=(4, 5)).astype(np.float32)
    scores = svms.decision_function(features)
    assert scores.dtype == np.float32
    for k in (0, 2):
        expected = [float(np.dot(svms.weights[k], x)) + float(svms.bias[k]) for x in features]
        np.testing.assert_allclose(scores[:, k], expected, rtol=1e-5)
    assert np.all(scores[:, 1] == -np.inf)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weights", np.zeros(5)),
        ("weights", np.full((3, 5), np.nan)),
        ("bias", np.zeros(2)),
        ("bias", np.array([0.0, np.inf, 0.0])),
        ("trained", np.ones(4, dtype=bool)),
        ("converged", np.ones((3, 1), dtype=bool)),
    ],
)
def test_malformed_svms_are_refused(field: str, value: np.ndarray[Any, Any]) -> None:
    svms = some_svms()
    fields = {name: getattr(svms, name) for name in ("weights", "bias", "trained", "converged")}
    with pytest.raises(ValueError, match=r"must be|fit|finite"):
        LinearSvms(**{**fields, field: value})


@pytest.mark.parametrize(
    "change",
    [
        {"c": 0.0},
        {"positive_weight": -1.0},
        {"intercept_scaling": 0.0},
        {"feature_norm": float("nan")},
        {"tolerance": 0.0},
        {"retrain_after": 0},
        {"max_negatives": 0},
        {"max_iterations": 0},
        {"negative_iou": 0.0},
        {"evict_threshold": -1.0},
    ],
)
def test_config_values_out_of_range_are_named(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"svm.{next(iter(change))}"):
        SvmConfig(**change)


@pytest.mark.parametrize("norms", [[], [0.0, 0.0], [1.0, float("nan")], [float("inf")]])
def test_dead_features_have_no_scale(norms: list[float]) -> None:
    with pytest.raises(TrainingError, match="norm"):
        feature_scale(np.array(norms))


@given(st.lists(st.floats(0.0625, 1e4, width=32), min_size=1, max_size=20), st.floats(0.1, 100.0))
def test_scaled_norms_have_the_asked_mean(norms: list[float], target: float) -> None:
    array = np.array(norms, dtype=np.float32)
    scaled = array.astype(np.float64) * feature_scale(array, target)
    assert scaled.mean() == pytest.approx(target)
