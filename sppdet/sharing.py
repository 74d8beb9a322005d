"""Work on rows shared out among threads that live for one call."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch

# Work is dealt out in this many parts a thread, since parts differ in what they take.
PARTS_PER_THREAD = 4
# Threads pay from this many numbers on: starting and waiting for them takes up to a millisecond.
WORTH_THREADS = 1_000_000


def share(count: int, work: Callable[[slice], None], numbers: int) -> None:
    """Runs `work`, on that many numbers, over slices of `range(count)` on torch's count of threads.

    The threads live for one call: nothing is left over for a forked process to hang on.
    """
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
