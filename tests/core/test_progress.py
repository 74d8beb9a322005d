"""Progress: what a log and a terminal get to see."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from sppdet.core.progress import (
    BarProgress,
    LineProgress,
    NullProgress,
    Progress,
    duration,
    terminal_progress,
)


def _all(stream: io.StringIO) -> list[Progress]:
    console = Console(file=stream, force_terminal=True, width=100)
    return [NullProgress(), LineProgress(stream, interval=0.0), BarProgress(console)]


def test_a_stage_of_no_items_ends() -> None:
    stream = io.StringIO()
    for progress in _all(stream):
        with progress.task("nothing", 0):
            pass
        with progress.task("again", 2) as advance:
            advance(2)
    assert "nothing: 0 of 0" in stream.getvalue()


def test_lines_count_and_estimate() -> None:
    stream = io.StringIO()
    progress = LineProgress(stream, interval=0.0)
    with progress.task("maps", 3) as advance:
        for _ in range(3):
            advance(1)
    lines = stream.getvalue().splitlines()
    assert [line.split(",")[0].split(" in ")[0] for line in lines] == [
        "maps: 1 of 3",
        "maps: 2 of 3",
        "maps: 3 of 3",
    ]
    assert "left" in lines[1]


def test_what_an_earlier_run_did_does_not_count_into_the_pace() -> None:
    stream = io.StringIO()
    with LineProgress(stream, interval=0.0).task("maps", 10**9) as advance:
        advance(10**8)
        time.sleep(0.01)
        advance(1)
    lines = stream.getvalue().splitlines()
    assert "left" not in lines[0]
    assert " h " in lines[1].partition("about")[2]


def test_a_log_is_quiet_between_its_intervals() -> None:
    stream = io.StringIO()
    with LineProgress(stream, interval=3600.0).task("maps", 50) as advance:
        for _ in range(50):
            advance(1)
    assert len(stream.getvalue().splitlines()) == 1


def test_a_failed_stage_says_how_far_it_came_and_lets_the_error_out() -> None:
    def fail(progress: Progress) -> None:
        with progress.task("maps", 9) as advance:
            advance(4)
            raise KeyError

    for progress in _all(stream := io.StringIO()):
        with pytest.raises(KeyError):
            fail(progress)
    assert "maps: stopped at 4 of 9" in stream.getvalue()


def test_bars_nest_and_let_lines_through() -> None:
    stream = io.StringIO()
    progress = BarProgress(Console(file=stream, force_terminal=True, width=100))
    with progress.task("outer", 2) as outer, progress.task("inner", 5) as inner:
        inner(5)
        progress.say("[a] line")
        outer(1)
    shown = stream.getvalue()
    assert "outer" in shown
    assert "5/5" in shown
    assert "[a] line" in shown


def test_a_stream_that_is_no_terminal_gets_lines() -> None:
    assert isinstance(terminal_progress(io.StringIO()), LineProgress)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.7, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words
