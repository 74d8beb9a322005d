"""Progress of long jobs on a terminal: a bar with an ETA, or a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bars

from sppdet.cli.terminal import notes
from sppdet.core.errors import printable
from sppdet.core.pace import Pace, Schedule
from sppdet.core.progress import Advance, NullProgress, Progress, duration

# Seconds between two lines of one stage in a log.
LOG_INTERVAL = 10.0


class LineProgress:
    """Print a line when a stage starts to take time, every `interval` seconds, and at its end.

    Every line is flushed, so that the log of a long run can be followed.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        interval: float = LOG_INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream, self._interval, self._clock = stream, interval, clock
        self._schedule = Schedule()

    def expect(self, stages: Mapping[str, float]) -> None:
        """Tell the time left of all of them in each line."""
        self._schedule.expect(stages)

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        """Print a stage in lines; one that fails says how far it came."""
        start = told = self._clock()
        pace, after = self._schedule.pace(label, total), self._schedule.after(label)

        def advance(count: int) -> None:
            nonlocal told
            now = self._clock()
            pace.advance(count, now)
            if pace.done < total and now - told >= self._interval:
                told = now
                eta = time_left(pace, after)
                spent = duration(now - start)
                self.say(f"{label}: {pace.done} of {total}, {spent}{eta and f', about {eta}'}")

        try:
            yield advance
        except BaseException:
            self.say(f"{label}: stopped at {pace.done} of {total}")
            raise
        self.say(f"{label}: {pace.done} of {total} in {duration(self._clock() - start)}")

    def say(self, text: str) -> None:
        """Print one line and flush."""
        print(printable(text), file=self._stream, flush=True)


class BarProgress:
    """Live bars with counts, time spent and time left; nested stages stand below each other."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            # Results that go to a file must not be drawn into by the bars.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._open = 0
        self._schedule = Schedule()

    def expect(self, stages: Mapping[str, float]) -> None:
        """Show the time left of all of them beside each bar."""
        self._schedule.expect(stages)

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        """Show a stage as a bar that stays when it is done."""
        if not self._open:
            self._bars.start()
        self._open += 1
        pace, after = self._schedule.pace(label, total), self._schedule.after(label)
        bar = self._bars.add_task(label, total=total, left=time_left(pace, after))

        def advance(count: int) -> None:
            pace.advance(count, time.monotonic())
            self._bars.update(bar, advance=count, left=time_left(pace, after))

        try:
            yield advance
        finally:
            self._open -= 1
            if not self._open:
                self._bars.stop()
                for task in self._bars.task_ids:
                    self._bars.remove_task(task)

    def say(self, text: str) -> None:
        """Print one line above the bars."""
        self._bars.console.print(printable(text), markup=False, highlight=False)


def terminal_progress(stream: TextIO | None = None) -> Progress:
    """Choose bars where `stream` (default: standard error) is a terminal, else lines.

    Nothing is shown with `--quiet`.
    """
    if not notes.are_shown():
        return NullProgress()
    stream = sys.stderr if stream is None else stream
    if stream.isatty():
        return BarProgress(Console(file=stream))
    return LineProgress(stream)


def time_left(pace: Pace, after: float | None) -> str:
    """Format the time left of a stage, and to the end of those after it; empty if unknown.

    `after`: seconds of the stages after it; None where they are not known.
    """
    left = pace.left()
    if left is None:
        return ""
    whole = f", {duration(left + after)} to the end" if after is not None else ""
    return f"{duration(left)} left{whole}"
