"""Rows that classes share: stored once, freed with their last user, and bounded in memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.training.negative_cache import FeaturePool, NegativeCache

D = 3


@settings(max_examples=60, deadline=None)
@given(
    rounds=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12),
    seed=st.integers(0, 2**32 - 1),
)
def test_rows_in_use_stay_as_they_were(rounds: list[tuple[int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    pool, most = FeaturePool(D), 0
    kept: dict[int, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = {}
    for image, (count, freed) in enumerate(rounds):
        rows = rng.normal(size=(count, D)).astype(np.float32)
        places = pool.add(rows, image, np.arange(count))
        assert not set(places.tolist()) & set(kept)
        pool.retain(places)
        kept |= dict(zip(places.tolist(), rows, strict=True))
        most = max(most, len(kept))
        assert len(pool) == len(kept)
        for place, row in kept.items():
            assert np.array_equal(pool.rows[place], row)
            assert pool.squares[place] == pytest.approx(float(np.square(row.astype(float)).sum()))
        gone = rng.permutation(sorted(kept))[:freed]
        pool.release(gone.astype(np.int64))
        for place in gone.tolist():
            del kept[place]
    assert len(pool.rows) <= 1.25 * most


def test_a_row_is_freed_with_its_last_user() -> None:
    pool = FeaturePool(D)
    places = pool.add(np.ones((2, D), np.float32), 0, np.arange(2))
    pool.retain(places)
    pool.retain(places[:1])
    pool.release(places)
    assert len(pool) == 1
    (again,) = pool.add(np.zeros((1, D), np.float32), 1, np.arange(1))
    assert again == places[1]


def test_a_class_drops_what_is_not_masked() -> None:
    cache = NegativeCache(D)
    cache.negatives = np.array([4, 7, 9])
    cache.scores, cache.negative_alpha = np.array([0.1, 0.2, 0.3]), np.array([1.0, 2.0, 3.0])
    assert cache.keep(np.array([True, False, True])).tolist() == [7]
    assert cache.negatives.tolist() == [4, 9]
    assert cache.scores.tolist() == [0.1, 0.3]
    assert cache.negative_alpha.tolist() == [1.0, 3.0]
