from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.proposals.ranking import draws, priorities, unique_best

MASK = 2**64 - 1


def splitmix(state: int) -> int:
    z = state * 0x9E3779B97F4A7C15 & MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def test_no_draws() -> None:
    assert draws(0, 0, 0).shape == (0,)


@pytest.mark.parametrize(("seed", "stream"), [(0, 0), (1, 0), (0, 7), (2**32 - 1, 99)])
def test_draws_equal_the_generator_in_plain_integers(seed: int, stream: int) -> None:
    base = splitmix(seed ^ ((stream + 1) << 32))
    expected = [splitmix((base + i) & MASK) >> 32 for i in range(50)]
    assert draws(50, seed, stream).tolist() == expected


def test_draws_are_spread_evenly() -> None:
    many = draws(100_000, 3, 5) / 2**32
    assert 0 <= many.min() < many.max() < 1
    assert np.histogram(many, bins=10, range=(0, 1))[0] == pytest.approx(10_000, rel=0.05)


def test_priorities_are_draws_times_the_position_from_the_root() -> None:
    expected = draws(6, 4, 2) * np.array([6, 5, 4, 3, 2, 1])
    np.testing.assert_array_equal(priorities(6, 4, 2), expected)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 3)] * 4, st.integers(0, 2**44)), max_size=40))
def test_unique_best_keeps_the_lowest_priority_of_each_box(rows: list[tuple[int, ...]]) -> None:
    table = np.array(rows, np.int64).reshape(-1, 5)
    boxes, priority = table[:, :4].astype(np.int32), table[:, 4].copy()
    kept = unique_best(boxes, priority)
    expected: dict[tuple[int, ...], int] = {}
    for *box, p in rows:
        expected[tuple(box)] = min(p, expected.get(tuple(box), p))
    got = {tuple(boxes[i].tolist()): int(priority[i]) for i in kept}
    assert got == expected
    assert len(kept) == len(expected)
