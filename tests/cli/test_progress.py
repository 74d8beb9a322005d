"""Progress: what a log and a terminal get to see."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from sppdet.cli.terminal import notes
from sppdet.cli.terminal.progress import BarProgress, LineProgress, terminal_progress
from sppdet.core.progress import NullProgress, Progress, duration


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


def _lines(seconds: list[float], total: int, expected: dict[str, float]) -> list[str]:
    """Lines of a stage whose items end at these seconds after its start."""
    stream, times = io.StringIO(), iter([0.0, *seconds, seconds[-1]])
    progress = LineProgress(stream, interval=0.0, clock=lambda: next(times))
    progress.expect(expected)
    with progress.task("maps", total) as advance:
        for _ in seconds:
            advance(1)
    return stream.getvalue().splitlines()


def test_lines_count_and_estimate() -> None:
    assert _lines([9.0, 11.0, 13.0], 3, {}) == [
        "maps: 1 of 3, 9.0 s",
        "maps: 2 of 3, 11 s",
        "maps: 3 of 3 in 13 s",
    ]
    assert _lines([9.0, 11.0, 13.0, 15.0], 103, {})[2:4] == [
        "maps: 3 of 103, 13 s, about 3 min 20 s left",
        "maps: 4 of 103, 15 s, about 3 min 18 s left",
    ]


def test_lines_tell_the_time_to_the_end_of_all_stages() -> None:
    lines = _lines([60.0, 62.0], 31, {"boxes": 500.0, "maps": 62.0, "steps": 100.0, "fit": 20.0})
    assert lines[0] == "maps: 1 of 31, 1 min 00 s, about 1 min 02 s left, 3 min 02 s to the end"
    assert lines[-1] == "maps: 2 of 31 in 1 min 02 s"


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


def test_no_progress_is_shown_where_none_is_wanted() -> None:
    try:
        notes.show(quiet=True)
        assert isinstance(terminal_progress(io.StringIO()), NullProgress)
        notes.show()
        assert isinstance(terminal_progress(io.StringIO()), LineProgress)
    finally:
        notes.hide()


def test_bars_have_no_colors_where_none_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown() -> str:
        stream = io.StringIO()
        console = Console(file=stream, force_terminal=True, width=100, color_system="standard")
        with BarProgress(console).task("maps", 2) as advance:
            advance(2)
        return stream.getvalue()

    color = re.compile(r"\x1b\[[0-9;]*3[0-7]")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert color.search(shown())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not color.search(shown())


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
