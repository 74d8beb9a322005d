"""Loading ahead: order, errors, and the bound on what is loaded; rows and products on threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.parallel import (
    AHEAD,
    WORTH_THREADS,
    available_cores,
    matmul,
    parallel_for,
    prefetch,
)


def test_nothing_to_load() -> None:
    assert list(prefetch([], lambda item: item)) == []


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(), max_size=4 * AHEAD), st.integers(1, 3))
def test_every_item_comes_once_in_order_with_its_value(items: list[int], workers: int) -> None:
    found = list(prefetch(items, lambda item: item * 2, workers=workers))
    assert found == [(item, item * 2) for item in items]


def test_a_slow_item_is_waited_for_while_other_threads_load_the_next() -> None:
    second = threading.Event()

    def load(item: int) -> bool:
        if item == 1:
            second.set()
        return second.wait(30)

    assert list(prefetch(range(3), load, workers=2)) == [(item, True) for item in range(3)]


@pytest.mark.parametrize("broken", [0, 1, AHEAD, AHEAD + 1, 2 * AHEAD, 3 * AHEAD - 1])
def test_an_error_comes_at_the_item_that_gave_it(broken: int) -> None:
    def load(item: int) -> int:
        if item == broken:
            raise ValueError(f"item {item}")
        return item

    stream = prefetch(range(3 * AHEAD), load)
    for item in range(broken):
        assert next(stream) == (item, item)
    with pytest.raises(ValueError, match=f"item {broken}"):
        next(stream)


def test_only_a_few_items_are_taken_ahead() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while True:
            yield taken
            taken += 1

    stream = prefetch(items(), lambda item: item)
    assert taken == 0
    for index in range(3 * AHEAD):
        assert next(stream) == (index, index)
        assert taken <= index + AHEAD + 1


def test_loading_happens_on_one_other_thread() -> None:
    threads = {thread for _, thread in prefetch(range(20), lambda _: threading.get_ident())}
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_stopping_early_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    stream = prefetch(range(100), lambda item: item)
    next(stream)
    assert threading.active_count() == before + 1
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_the_loading_thread_begins_with_what_it_is_told() -> None:
    begun: list[int] = []
    stream = prefetch(
        range(5),
        lambda _: threading.get_ident(),
        initializer=lambda: begun.append(threading.get_ident()),
    )
    assert {thread for _, thread in stream} == set(begun)
    assert len(begun) == 1


def test_reading_ahead_leaves_torchs_threads_alone() -> None:
    code = (
        "from sppdet.core.parallel import prefetch; import torch; list(prefetch(range(3), abs));"
        "print(torch.get_num_threads())"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["2"]


def test_items_that_nobody_waits_for_any_more_are_not_loaded() -> None:
    loaded: list[int] = []

    def load(item: int) -> None:
        loaded.append(item)
        threading.Event().wait(0.1)

    stream = prefetch(range(100), load)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert len(loaded) < AHEAD


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 40), st.sampled_from([0, WORTH_THREADS]), st.integers(1, 3))
def test_every_row_is_worked_on_once(count: int, numbers: int, threads: int) -> None:
    usual, seen = torch.get_num_threads(), np.zeros(count, np.int64)

    def work(part: slice) -> None:
        seen[part] += 1

    torch.set_num_threads(threads)
    try:
        parallel_for(count, work, numbers)
    finally:
        torch.set_num_threads(usual)
    assert (seen == 1).all()


def test_products_take_any_memory_layout() -> None:
    a = np.arange(6, dtype=np.float64).reshape(2, 3)
    frozen = a[:, ::-1]
    frozen.setflags(write=False)
    np.testing.assert_array_equal(matmul(frozen, a.T), frozen @ a.T)


def test_there_is_a_core() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
