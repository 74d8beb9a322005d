from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.proposals.ranking import (
    priorities,
    quantize_boxes,
    random_integers,
    rank_boxes,
    unique_best,
)

MASK = 2**64 - 1


def splitmix(state: int) -> int:
    z = state * 0x9E3779B97F4A7C15 & MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def test_no_draws() -> None:
    assert random_integers(0, 0, 0).shape == (0,)


@pytest.mark.parametrize(("seed", "stream"), [(0, 0), (1, 0), (0, 7), (2**32 - 1, 99)])
def test_draws_equal_the_generator_in_plain_integers(seed: int, stream: int) -> None:
    base = splitmix(seed ^ ((stream + 1) << 32))
    expected = [splitmix((base + i) & MASK) >> 32 for i in range(50)]
    assert random_integers(50, seed, stream).tolist() == expected


def test_draws_are_spread_evenly() -> None:
    many = random_integers(100_000, 3, 5) / 2**32
    assert 0 <= many.min() < many.max() < 1
    assert np.histogram(many, bins=10, range=(0, 1))[0] == pytest.approx(10_000, rel=0.05)


def test_priorities_are_the_larger_of_two_draws_times_the_position_from_the_root() -> None:
    expected = random_integers(12, 4, 2).reshape(2, 6).max(axis=0) * np.array([6, 5, 4, 3, 2, 1])
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


BOXES = st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(1, 60)] * 2, st.integers(0, 2**44))


def _table(rows: list[tuple[int, ...]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(rows, np.int64).reshape(-1, 5)
    boxes = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1)
    return boxes.astype(np.int32), table[:, 4].copy()


@settings(max_examples=50, deadline=None)
@given(st.lists(BOXES, max_size=60))
def test_ranking_keeps_every_box_once_and_puts_the_first_of_each_kind_in_front(
    rows: list[tuple[int, ...]],
) -> None:
    boxes, priority = _table(rows)
    order = rank_boxes(boxes, priority)
    kept = [tuple(box) for box in boxes[order].tolist()]
    assert sorted(kept) == sorted({tuple(box) for box in boxes.tolist()})
    kinds = [tuple(kind) for kind in quantize_boxes(boxes[order]).tolist()]
    count = len(set(kinds))
    assert len(set(kinds[:count])) == count
    for part in (order[:count], order[count:]):
        assert (np.diff(priority[part]) >= 0).all()
    best: dict[tuple[int, ...], int] = {}
    for kind, number in zip(quantize_boxes(boxes).tolist(), priority.tolist(), strict=True):
        best[tuple(kind)] = min(number, best.get(tuple(kind), number))
    assert [best[kind] for kind in kinds[:count]] == priority[order[:count]].tolist()


@settings(max_examples=200, deadline=None)
@given(BOXES, st.tuples(*[st.integers(-2, 2)] * 4))
def test_boxes_are_of_one_kind_when_their_edges_share_cells(
    one: tuple[int, ...], shift: tuple[int, ...]
) -> None:
    boxes, _ = _table([one])
    pair = np.concatenate([boxes, np.maximum(boxes + np.array(shift), 0)]).astype(np.int32)
    sides = np.maximum(pair[:, 2:] - pair[:, :2], 1)
    # The largest power of two that is at most a quarter of the side, at least 1.
    cells = [[2 ** max(0, (int(side) // 4).bit_length() - 1) for side in row] for row in sides]
    edges = [
        [pair[i, edge] // cells[i][edge % 2] for edge in range(4)] + cells[i] for i in range(2)
    ]
    kinds = quantize_boxes(pair).tolist()
    assert (kinds[0] == kinds[1]) == (edges[0] == edges[1])


def test_boxes_that_are_almost_the_same_are_of_one_kind() -> None:
    boxes = np.array([[0, 0, 100, 50], [1, 1, 103, 51], [0, 0, 60, 50]], np.int32)
    kinds = quantize_boxes(boxes).tolist()
    assert kinds[0] == kinds[1] != kinds[2]
