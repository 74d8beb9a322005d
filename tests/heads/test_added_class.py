"""An added class's scores and boxes, against their formulas in float64."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.boxes import decode_deltas
from sppdet.core.types import FloatArray
from sppdet.heads.added.added_class import FEATURES, AddedClass
from sppdet.heads.head import RegionFeatures
from tests.helpers.region_cases import FORMS, head_of, random_boxes, random_maps


@cache
def regions() -> tuple[RegionFeatures, dict[str, FloatArray]]:
    """Regions of a head, and what an added class may read of them."""
    head = head_of("context")
    prepared = head.prepare(random_maps(FORMS["context"][0], 90, 60))
    found = head.regions(prepared, random_boxes(15, 90, 60))
    assert found.average is not None
    return found, {**found.layers, "averages": found.average(None).numpy()}


def make(*names: str, seed: int = 0, support: int = 3) -> AddedClass:
    """A class with random weights of some features."""
    rng = np.random.default_rng(seed)
    widths = {name: regions()[1][name].shape[1] for name in FEATURES}
    weights = {
        name: rng.normal(size=widths[name] if name in names else 0).astype(np.float32)
        for name in FEATURES
    }
    return AddedClass(
        **weights,
        bias=rng.normal(size=1).astype(np.float32),
        box_weights=(rng.normal(size=(widths["fc7"], 4)) / 30).astype(np.float32),
        box_bias=(rng.normal(size=4) / 30).astype(np.float32),
        support=np.zeros((support, sum(map(len, weights.values()))), np.uint8),
        steps=np.ones(3, np.float32),
        multipliers=np.zeros(support, np.float32),
        scales=np.ones(3, np.float32),
    )


@settings(deadline=None, max_examples=20)
@given(names=st.lists(st.sampled_from(FEATURES), unique=True), seed=st.integers(0, 99))
def test_the_margin_is_a_sum_over_features(names: list[str], seed: int) -> None:
    found, features = regions()
    one = make(*names, seed=seed)
    assert one.features == tuple(name for name in FEATURES if name in names)
    expected = np.full(len(found.boxes), one.bias[0], np.float64)
    size = np.ones(len(found.boxes))
    for name in names:
        terms = features[name].astype(np.float64) * getattr(one, name)
        expected += terms.sum(axis=1)
        size += np.abs(terms).sum(axis=1)
    margins = one.score(found)
    assert margins.shape == (len(found.boxes), 1)
    assert margins.dtype == np.float32
    assert (np.abs(margins[:, 0] - expected) < 1e-5 * size).all()


def test_boxes_are_moved_by_their_deltas() -> None:
    found, features = regions()
    one, rows = make("fc7"), np.array([4, 4, 0, 11])
    moved = one.refine(found, rows, np.zeros(4, np.int64))
    deltas = features["fc7"][rows].astype(np.float64) @ one.box_weights + one.box_bias
    expected = decode_deltas(deltas.astype(np.float32), found.boxes[rows])
    np.testing.assert_allclose(moved, expected, rtol=1e-4, atol=1e-3)
    assert one.moves_boxes
    none = np.zeros(0, np.int64)
    assert one.refine(found, none, none).shape == (0, 4)


def test_its_arrays_make_it_again() -> None:
    one = make(*FEATURES)
    again = AddedClass(**one.arrays())
    assert np.array_equal(again.score(regions()[0]), one.score(regions()[0]))


@settings(deadline=None, max_examples=20)
@given(names=st.lists(st.sampled_from(FEATURES), unique=True, min_size=1), seed=st.integers(0, 99))
def test_support_vectors_are_kept_to_half_a_step(names: list[str], seed: int) -> None:
    one, rng = make(*names, seed=seed), np.random.default_rng(seed)
    width = one.support.shape[1]
    support = np.asarray(rng.gamma(1.0, size=(7, width)), np.float32)
    weights = np.asarray(rng.normal(size=width), np.float32)
    other = one.with_svm(weights, 0.5, support, rng.normal(size=7))
    assert np.array_equal(np.concatenate([getattr(other, name) for name in FEATURES]), weights)
    steps: FloatArray = np.repeat(other.steps, [len(getattr(other, name)) for name in FEATURES])
    within = support <= 255 * steps
    assert (~within).sum() <= len(FEATURES)
    assert (np.abs(other.support_features() - support) <= 0.501 * steps)[within].all()


@pytest.mark.parametrize(
    "change",
    [
        {"bias": np.zeros(2, np.float32)},
        {"box_weights": np.zeros((12, 3), np.float32)},
        {"box_bias": np.zeros(5, np.float32)},
        {"scales": np.ones(2, np.float32)},
        {"multipliers": np.zeros(4, np.float32)},
        {"fc6": np.zeros((2, 2), np.float32)},
        {"fc7": np.zeros(1, np.float32)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        replace(make(*FEATURES), **change)
