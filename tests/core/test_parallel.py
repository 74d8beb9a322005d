"""Loading ahead: order, errors, and the bound on what is loaded; rows and products on threads."""

from __future__ import annotations

import gc
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.errors import SppdetError
from sppdet.core.parallel import (
    AHEAD,
    WORTH_THREADS,
    available_cores,
    is_out_of_memory,
    matmul,
    memory_errors,
    parallel_for,
    paused_collection,
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_freed_memory_is_kept_for_the_next_array() -> None:
    """A page that is used again faults no more: 64 MB of them are 16,384 faults."""
    program = (
        "import resource, sys\n"
        "import numpy as np\n"
        "from sppdet.core.parallel import keep_freed_memory\n"
        "assert sys.argv[1] == 'off' or keep_freed_memory()\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "def fill(): np.empty(2**26, np.uint8).fill(1)\n"
        "fill(); before = faults(); fill(); fill(); print(faults() - before)"
    )

    def count(mode: str) -> int:
        # Huge pages would hide them.
        environment = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0"}
        command = [sys.executable, "-c", program, mode]
        out = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        return int(out.stdout)

    assert count("on") < 1000 < count("off")


def _no_memory(kind: str) -> object:
    if kind == "numpy":
        return np.empty(2**55, np.uint8)
    if kind == "torch":
        return torch.empty(2**55, dtype=torch.uint8)
    return cv2.copyMakeBorder(np.zeros((1, 1, 3), np.uint8), *(9 * 10**6,) * 4, cv2.BORDER_CONSTANT)


@pytest.mark.parametrize("kind", ["numpy", "torch", "cv2"])
def test_each_librarys_words_for_no_memory_are_known(kind: str) -> None:
    with (
        pytest.raises(SppdetError, match=r"^out of memory for a map; less of it$"),
        memory_errors("a map", "less of it"),
    ):
        _no_memory(kind)


def test_other_errors_are_let_through() -> None:
    for error in (ValueError("a memory"), SppdetError("out of memory for one"), KeyError()):
        with pytest.raises(type(error)) as caught, memory_errors("a map", "less of it"):
            raise error
        assert caught.value is error
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_garbage_is_collected_again_after_imports() -> None:
    for usual in (True, False):
        (gc.enable if usual else gc.disable)()
        try:
            with paused_collection():
                assert not gc.isenabled()
            assert gc.isenabled() == usual
        finally:
            gc.enable()
