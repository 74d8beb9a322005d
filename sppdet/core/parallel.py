"""Threads: loops over rows, loading ahead, and matrix products, without threads left over.

And what the machine has: cores, and the memory that was taken of it.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

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

# Whoever only loads or proposes needs no torch, which takes seconds to import: hence the imports
# inside functions.


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
