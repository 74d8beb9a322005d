"""Progress of long jobs: what a job tells, whoever shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

# Called with the number of items done since the last call.
Advance = Callable[[int], None]


class Progress(Protocol):
    """Protocol by which a long job reports its progress."""

    def task(self, label: str, total: int) -> AbstractContextManager[Advance]:
        """Show a stage of `total` items; the value of the `with` block counts items as done."""
        ...

    def say(self, text: str) -> None:
        """Show one line to the user, such as that a stage is skipped."""
        ...

    def expect(self, stages: Mapping[str, float]) -> None:
        """Take note of the stages to come, by label, and the seconds expected of each."""
        ...


class NullProgress:
    """Discard all progress."""

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        """Discard a stage."""
        yield lambda done: None

    def say(self, text: str) -> None:
        """Discard the line."""

    def expect(self, stages: Mapping[str, float]) -> None:
        """Discard them."""


def duration(seconds: float) -> str:
    """Format seconds in units that suit their size: `0.4 s`, `42 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
