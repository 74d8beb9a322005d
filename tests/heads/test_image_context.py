"""The classifier of whole images: its optimum, its limits, and what its scale does not change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.errors import ConfigError
from sppdet.core.types import BoolArray, FloatArray
from sppdet.heads.image_context import ContextClassifier
from sppdet.training.config import ContextConfig

CLASSES = 3


def planted(seed: int, count: int = 120, dim: int = 6) -> tuple[FloatArray, BoolArray]:
    """Scenes on scales of their own, and classes that depend on them with some noise."""
    rng = np.random.default_rng(seed)
    scenes = rng.normal(size=(count, dim))
    logits = 2 * scenes @ rng.normal(size=(dim, CLASSES)) + rng.normal(size=CLASSES)
    shown = rng.random((count, CLASSES)) < 1 / (1 + np.exp(-logits))
    scales = np.exp(rng.normal(0, 1.5, dim))
    return (scenes * scales + rng.normal(size=dim)).astype(np.float32), shown


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), c=st.sampled_from([1e-3, 0.1, 10.0]))
def test_it_is_the_optimum(seed: int, c: float) -> None:
    """The gradient of the penalized loss on features of mean 0 and variance 1 vanishes."""
    scenes, shown = planted(seed)
    found = ContextClassifier.fit(scenes, shown, c=c)
    deviation = scenes.std(axis=0)
    rows = (scenes - scenes.mean(axis=0)) / deviation
    for label in np.flatnonzero(found.trained):
        errors = np.exp([found.log_probabilities(one)[label] for one in scenes])
        errors -= shown[:, label]
        weights = found.weights[label] * deviation
        assert np.abs(weights + c * rows.T @ errors).max() < 2e-2 * max(1, c)
        assert abs(c * errors.sum()) < 2e-2 * max(1, c)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), factor=st.sampled_from([0.01, 30.0]))
def test_units_and_offsets_of_the_features_do_not_matter(seed: int, factor: float) -> None:
    scenes, shown = planted(seed)
    other = (scenes * np.float32(factor) + np.float32(0.5)).astype(np.float32)
    found = [ContextClassifier.fit(rows, shown, c=0.1) for rows in (scenes, other)]
    for one, same in zip(scenes[:9], other[:9], strict=True):
        left, right = found[0].log_probabilities(one), found[1].log_probabilities(same)
        np.testing.assert_allclose(left, right, atol=5e-3)


def test_it_tells_scenes_apart() -> None:
    scenes, shown = planted(1, count=400)
    found = ContextClassifier.fit(scenes[:200], shown[:200], c=1.0)
    likely = np.array([found.log_probabilities(one) for one in scenes[200:]]) > np.log(0.5)
    assert (likely == shown[200:]).mean() > 0.8


def test_classes_that_all_or_none_show_are_left_alone() -> None:
    scenes, shown = planted(2)
    shown[:, 0], shown[:, 2] = True, False
    scenes[:, 1] = 7.0  # a feature that never changes
    found = ContextClassifier.fit(scenes, shown, c=1.0)
    assert found.trained.tolist() == [False, True, False]
    given_off = found.log_probabilities(scenes[0])
    assert given_off[[0, 2]].tolist() == [0, 0]
    assert given_off[1] < 0
    assert found.weights[1, 1] == 0


def test_probabilities_near_0_and_1_are_finite() -> None:
    weights = np.array([[1.0], [-1.0], [0.0]], np.float32)
    both = ContextClassifier(weights, np.zeros(3, np.float32), np.ones(3, np.bool_))
    given_off = both.log_probabilities(np.array([5e4], np.float32))
    np.testing.assert_allclose(given_off, [0, -5e4, np.log(0.5)], rtol=1e-6)


@pytest.mark.parametrize("wrong", [{"c": 0.0}, {"c": -1.0}, {"max_iterations": 0}])
def test_wrong_settings_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"context\.{next(iter(wrong))}"):
        ContextConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("weights", "bias", "trained"),
    [
        (np.zeros(3), np.zeros(3), np.ones(3)),
        (np.zeros((3, 2)), np.zeros(2), np.ones(3)),
        (np.zeros((3, 2)), np.zeros(3), np.ones(2)),
        (np.full((3, 2), np.nan), np.zeros(3), np.ones(3)),
        (np.zeros((3, 2)), np.full(3, np.inf), np.ones(3)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    weights: FloatArray, bias: FloatArray, trained: BoolArray
) -> None:
    with pytest.raises(ValueError, match="ContextClassifier"):
        ContextClassifier(weights, bias, trained)
