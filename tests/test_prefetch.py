"""Reading ahead: the order, the errors and the bound of what is loaded before it is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.prefetch import AHEAD, ahead


def test_nothing_to_load() -> None:
    assert list(ahead([], lambda item: item)) == []


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(), max_size=4 * AHEAD), st.integers(1, 3))
def test_every_item_comes_once_in_order_with_its_value(items: list[int], workers: int) -> None:
    found = list(ahead(items, lambda item: item * 2, workers=workers))
    assert found == [(item, item * 2) for item in items]


def test_a_slow_item_is_waited_for_while_other_threads_load_the_next() -> None:
    second = threading.Event()

    def load(item: int) -> bool:
        if item == 1:
            second.set()
        return second.wait(30)

    assert list(ahead(range(3), load, workers=2)) == [(item, True) for item in range(3)]


@pytest.mark.parametrize("broken", [0, 1, AHEAD, AHEAD + 1, 2 * AHEAD, 3 * AHEAD - 1])
def test_an_error_comes_at_the_item_that_gave_it(broken: int) -> None:
    def load(item: int) -> int:
        if item == broken:
            raise ValueError(f"item {item}")
        return item

    stream = ahead(range(3 * AHEAD), load)
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

    stream = ahead(items(), lambda item: item)
    assert taken == 0
    for index in range(3 * AHEAD):
        assert next(stream) == (index, index)
        assert taken <= index + AHEAD + 1


def test_loading_happens_on_one_other_thread() -> None:
    threads = {thread for _, thread in ahead(range(20), lambda _: threading.get_ident())}
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_stopping_early_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    stream = ahead(range(100), lambda item: item)
    next(stream)
    assert threading.active_count() == before + 1
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_the_loading_thread_begins_with_what_it_is_told() -> None:
    begun: list[int] = []
    stream = ahead(
        range(5), lambda _: threading.get_ident(), lambda: begun.append(threading.get_ident())
    )
    assert {thread for _, thread in stream} == set(begun)
    assert len(begun) == 1


def test_reading_ahead_leaves_torchs_threads_alone() -> None:
    code = (
        "from sppdet.prefetch import ahead; import torch; list(ahead(range(3), abs));"
        "print(torch.get_num_threads())"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["2"]
