"""Reading ahead: the disk works while the processor does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

# Images read ahead of the one being worked on, for each thread that reads.
AHEAD = 4


def ahead(
    items: Iterable[T],
    load: Callable[[T], R],
    begin: Callable[[], object] | None = None,
    *,
    workers: int = 1,
) -> Iterator[tuple[T, R]]:
    """Each item in order with what `load` gives for it, loaded ahead on so many other threads.

    `begin`, if given, is called first on each thread.
    """
    waiting: list[tuple[T, Future[R]]] = []
    with ThreadPoolExecutor(workers, initializer=begin) as pool:
        for item in items:
            waiting.append((item, pool.submit(load, item)))
            if len(waiting) > AHEAD * workers:
                first, future = waiting.pop(0)
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
