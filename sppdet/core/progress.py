"""Progress of long jobs: a bar with an ETA on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

# Seconds between two lines of one stage in a log.
LOG_INTERVAL = 10.0

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


class NullProgress:
    """Discard all progress."""

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        """Discard a stage."""
        yield lambda done: None

    def say(self, text: str) -> None:
        """Discard the line."""


class LineProgress:
    """Print a line when a stage starts to take time, every `interval` seconds, and at its end.

    Every line is flushed, so that the log of a long run can be followed.
    """

    def __init__(self, stream: TextIO, *, interval: float = LOG_INTERVAL) -> None:
        self._stream = stream
        self._interval = interval

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        """Print a stage in lines; one that fails says how far it came."""
        start = time.monotonic()
        done, told = 0, start
        first: tuple[float, int] | None = None

        def advance(count: int) -> None:
            nonlocal done, told, first
            done += count
            now = time.monotonic()
            # The first call may stand for all that an earlier run did: the pace is taken from it.
            since, before = first = first or (now, done)
            if done < total and now - told >= self._interval:
                told = now
                left = (now - since) / (done - before) * (total - done) if done > before else 0.0
                eta = f", about {duration(left)} left" if left else ""
                self.say(f"{label}: {done} of {total}, {duration(now - start)}{eta}")

        try:
            yield advance
        except BaseException:
            self.say(f"{label}: stopped at {done} of {total}")
            raise
        self.say(f"{label}: {done} of {total} in {duration(time.monotonic() - start)}")

    def say(self, text: str) -> None:
        """Print one line and flush."""
        print(text, file=self._stream, flush=True)


class BarProgress:
    """Live bars with counts, time spent and time left; nested stages stand below each other."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            # Results that go to a file must not be drawn into by the bars.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._open = 0

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        """Show a stage as a bar that stays when it is done."""
        if not self._open:
            self._bars.start()
        self._open += 1
        bar = self._bars.add_task(label, total=total)
        try:
            yield lambda count: self._bars.advance(bar, count)
        finally:
            self._open -= 1
            if not self._open:
                self._bars.stop()
                for task in self._bars.task_ids:
                    self._bars.remove_task(task)

    def say(self, text: str) -> None:
        """Print one line above the bars."""
        self._bars.console.print(text, markup=False, highlight=False)


def terminal_progress(stream: TextIO | None = None) -> Progress:
    """Choose bars where `stream` (default: standard error) is a terminal, else lines."""
    stream = sys.stderr if stream is None else stream
    if stream.isatty():
        return BarProgress(Console(file=stream))
    return LineProgress(stream)


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
