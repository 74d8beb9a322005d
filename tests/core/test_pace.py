"""The pace of a stage: which items it is taken from, and what is expected before there are any."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.pace import MOST_TIMES, Pace, Schedule


def _pace(
    seconds: list[float], total: int, *, before: int = 0, expected: float | None = None
) -> Pace:
    """The pace after items that took these seconds each, `before` of them done by another run."""
    pace = Pace(total, expected)
    pace.advance(before, 0.0)
    for now in accumulate(seconds):
        pace.advance(1, now)
    return pace


def test_nothing_is_known_of_a_stage_that_has_not_begun_or_has_done_one_item() -> None:
    assert Pace(5).left() is None
    assert _pace([7.0], 5).left() is None
    assert Pace(0, 0.0).left() == 0


@settings(max_examples=50, deadline=None)
@given(
    first=st.floats(0, 1e4),
    each=st.floats(0.01, 10),
    count=st.integers(1, 3 * MOST_TIMES),
    before=st.integers(0, 10**6),
    more=st.integers(0, 1000),
)
def test_a_steady_pace_is_found_whatever_the_first_item_took(
    first: float, each: float, count: int, before: int, more: int
) -> None:
    pace = _pace([first] + [each] * count, before + count + 1 + more, before=before)
    assert pace.left() == pytest.approx(each * more, rel=1e-6, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(slow=st.integers(1, 200), quick=st.integers(1, 200))
def test_items_found_in_a_cache_are_forgotten_once_as_many_were_made(slow: int, quick: int) -> None:
    pace = _pace([0.0] * quick + [2.0] * (quick + slow), 10**4)
    assert pace.seconds_per_item() == pytest.approx(2.0)


@settings(max_examples=50, deadline=None)
@given(
    seconds=st.lists(st.floats(0, 100), max_size=60),
    expected=st.floats(0, 1e5),
    before=st.integers(0, 50),
)
def test_what_was_expected_gives_way_to_what_is_measured(
    seconds: list[float], expected: float, before: int
) -> None:
    total = before + 100
    alone = _pace(seconds, total, before=before).seconds_per_item()
    both = _pace(seconds, total, before=before, expected=expected).seconds_per_item()
    assert both is not None
    if alone is None:
        assert both == pytest.approx(expected / 100)
    else:
        low, high = sorted((alone, expected / 100))
        assert low - 1e-9 <= both <= high + 1e-9
        assert abs(both - alone) <= abs(expected / 100 - alone) * 5 / 6 + 1e-9


def test_stages_after_one_are_those_that_stand_behind_it() -> None:
    schedule = Schedule()
    assert schedule.after("maps") is None
    schedule.expect({"boxes": 1.0, "maps": 2.0, "steps": 4.0})
    assert schedule.after("boxes") == 6
    assert schedule.after("steps") == 0
    assert schedule.after("other") is None
    assert schedule.pace("steps", 8).left() == 4
