"""Threads: loops over rows, loading ahead, and matrix products, without threads left over.

And what the machine has: cores, and the memory that was taken of it.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sppdet.core.errors import SppdetError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
R = TypeVar("R")
Number = TypeVar("Number", bound=np.floating[Any])

# Rows are dealt out in this many parts per thread, since parts differ in what they take.
PARTS_PER_THREAD = 4
# Threads pay from this many numbers on: starting and waiting for them takes up to a millisecond.
WORTH_THREADS = 1_000_000
# Items loaded or waiting to be taken, per thread that loads.
AHEAD = 4

# glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
NEVER = -1
# Bytes that the heap grows by at a time, at least.
GROWTH = 64 * 2**20

OUT_OF_MEMORY = re.compile(
    r"out of memory|(?:not enough|insufficient|allocate) memory|bad_?alloc", re.IGNORECASE
)

# Whoever only loads or proposes needs no torch, which takes seconds to import: hence the imports
# inside functions.


@cache
def guard_forks() -> None:
    """Let forked children of this process compute: on one thread each.

    A fork copies the thread that forks and none of torch's others; a child that waits for those
    waits for ever. Children that are spawned are as free as any process.
    """
    import torch

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


def available_cores() -> int:
    """Number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory() -> float | None:
    """Most memory this process or one of its workers held, in gigabytes; None if not known."""
    try:
        import resource
    except ImportError:
        return None
    peaks = [
        resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    unit = 1 if sys.platform == "darwin" else 1024
    return max(peaks) * unit / 1e9


def keep_freed_memory() -> bool:
    """Make the C allocator keep freed memory for reuse (glibc on Linux only); True if it does.

    By default glibc maps every block above 32 MB afresh and returns it when freed, so each image
    pays a page fault for every 4 kB of its large maps (docs/speed.md). Afterwards the process
    stays at its high-water mark.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, GROWTH))
    return all(bool(mallopt(option, value)) for option, value in wanted)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory is out, in the words of any of the libraries."""
    return isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)) is not None


@contextmanager
def memory_errors(work: str, hint: str) -> Iterator[None]:
    """Raise SppdetError where memory is out: numpy, OpenCV, torch and onnxruntime each have theirs.

    Args:
        work: what the memory is for.
        hint: what takes less of it.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, SppdetError) or not is_out_of_memory(error):
            raise
        raise SppdetError(f"out of memory for {work}", hint=hint) from error


@contextmanager
def paused_collection() -> Iterator[None]:
    """Look for no garbage while modules are imported: there is none, and looking takes a tenth."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def parallel_for(count: int, work: Callable[[slice], None], numbers: int) -> None:
    """Run `work` over slices of `range(count)`, on torch's number of threads if that pays.

    The threads live for one call: nothing is left over for a forked process to hang on.

    Args:
        count: rows in all.
        work: is called with a slice of the rows; slices may run side by side.
        numbers: numbers read and written in all, which decides whether threads pay.
    """
    import torch

    threads = min(torch.get_num_threads(), count) if numbers >= WORTH_THREADS else 1
    if threads <= 1:
        work(slice(0, count))
        return
    bounds = np.linspace(0, count, threads * PARTS_PER_THREAD + 1).astype(int)
    # One iterator for all: each thread takes the next part when it is done with its last.
    parts = iter([slice(a, b) for a, b in pairwise(bounds.tolist()) if a < b])

    def take() -> None:
        for part in parts:
            work(part)

    with ThreadPoolExecutor(threads - 1) as pool:
        helpers = [pool.submit(take) for _ in range(threads - 1)]
        take()
    for helper in helpers:
        helper.result()


def prefetch(
    items: Iterable[T],
    load: Callable[[T], R],
    *,
    initializer: Callable[[], object] | None = None,
    workers: int = 1,
) -> Iterator[tuple[T, R]]:
    """Yield `(item, load(item))` in order, loading on `workers` background threads.

    At most `AHEAD` items per thread are in memory. `initializer` is called first on each thread.
    """
    waiting: deque[tuple[T, Future[R]]] = deque()
    with ThreadPoolExecutor(workers, initializer=initializer) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(load, item)))
                if len(waiting) >= AHEAD * workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def matmul(a: NDArray[Number], b: NDArray[Number]) -> NDArray[Number]:
    """Multiply matrices `(n, m)` and `(m, k)` of one floating type, on torch's threads.

    The threads of numpy's own BLAS go on spinning after a product, on the cores that the next
    image's convolutions need.
    """
    import torch

    with torch.no_grad():
        out: NDArray[Number] = (_tensor(a) @ _tensor(b)).numpy()
    return out


def _tensor(values: NDArray[Any]) -> Tensor:
    import torch

    # torch wants memory that may be written to, and no negative strides.
    shared = values.flags.writeable and min(values.strides, default=0) >= 0
    return torch.from_numpy(values if shared else values.copy())
