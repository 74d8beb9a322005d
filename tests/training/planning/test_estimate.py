"""The estimate of a training, from made timings: laws that hold whatever things take."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.training.config import SvmConfig
from sppdet.training.planning import estimate
from sppdet.training.planning.estimate import (
    LEAST_STEPS,
    TENS,
    Costs,
    Work,
    fitting_steps,
    stage_seconds,
)

SVM = SvmConfig()
STAGES = (
    estimate.PROPOSALS,
    estimate.MAPS,
    estimate.VALIDATION,
    estimate.STATISTICS,
    estimate.STEPS,
    estimate.COMPRESSION,
    estimate.REGIONS,
    estimate.MINING,
)
COUNTS = st.integers(0, 5000)
works = st.builds(
    Work,
    images=st.integers(1, 5000),
    objects=COUNTS,
    classes=st.integers(1, 80),
    proposals=COUNTS,
    maps=COUNTS,
    steps=COUNTS,
    width=st.integers(1, 4096),
    validation=st.integers(0, 100),
    times=st.integers(0, 4),
    finished=st.frozensets(st.sampled_from(STAGES)),
)
costs = st.dictionaries(st.sampled_from(STAGES), st.floats(0, 10))


def _total(work: Work, cost: Costs) -> float:
    return sum(stage_seconds(work, cost, SVM).values())


def test_each_stage_takes_what_its_items_take() -> None:
    work = Work(images=500, objects=900, classes=2, proposals=9, maps=0, steps=70, width=8)
    each = {stage: 2.0**n for n, stage in enumerate(STAGES)}
    found = stage_seconds(work, each, SVM)
    assert list(found) == [*STAGES, estimate.SOLVING, estimate.CALIBRATION]
    assert found[estimate.PROPOSALS] == 9
    assert found[estimate.MAPS] == 0
    assert found[estimate.VALIDATION] == 0
    assert found[estimate.STATISTICS] == 2 * 200 * 8
    assert found[estimate.STEPS] == 70 * 16
    assert found[estimate.COMPRESSION] == 200 * 32
    assert found[estimate.REGIONS] == (500 + 400) * 64
    assert found[estimate.MINING] == 500 * 128
    validated = stage_seconds(replace(work, validation=10, times=3), each, SVM)
    assert validated[estimate.VALIDATION] == 10 * (1 + 2)
    assert validated[estimate.STEPS] == (70 + 15) * 16


@settings(max_examples=50, deadline=None)
@given(
    work=works,
    cost=costs,
    more=st.sampled_from(
        ("images", "objects", "classes", "proposals", "maps", "steps", "width", "times")
    ),
)
def test_more_work_never_takes_less(work: Work, cost: Costs, more: str) -> None:
    longer = replace(work, **{more: getattr(work, more) + 7})
    assert _total(longer, cost) >= _total(work, cost) * (1 - 1e-9)


@settings(max_examples=50, deadline=None)
@given(work=works, cost=costs, done=st.sampled_from(STAGES))
def test_what_is_finished_takes_nothing(work: Work, cost: Costs, done: str) -> None:
    rest = stage_seconds(replace(work, finished=work.finished | {done}), cost, SVM)
    before = stage_seconds(work, cost, SVM)
    assert rest == {stage: took for stage, took in before.items() if stage != done}


@settings(max_examples=50, deadline=None)
@given(work=works, cost=costs, seconds=st.floats(0, 1e5))
def test_the_steps_chosen_fit_and_no_more_would(work: Work, cost: Costs, seconds: float) -> None:
    work = replace(work, finished=frozenset())
    steps = fitting_steps(work, cost, SVM, seconds)
    fewest = min(LEAST_STEPS, work.steps)
    assert fewest <= steps <= work.steps
    if steps > fewest:
        assert _total(replace(work, steps=steps), cost) <= seconds
    if steps < work.steps:
        more = replace(work, steps=steps + TENS)
        assert _total(more, cost) > estimate.SAFE_SHARE * seconds * (1 - 1e-9) - 1e-6


@settings(max_examples=50, deadline=None)
@given(work=works, cost=costs, seconds=st.floats(0, 1e5), more=st.floats(0, 1e5))
def test_more_time_never_takes_fewer_steps(
    work: Work, cost: Costs, seconds: float, more: float
) -> None:
    first, second = (fitting_steps(work, cost, SVM, one) for one in (seconds, seconds + more))
    assert first <= second


def test_steps_that_cost_nothing_are_all_taken() -> None:
    work = Work(images=1, objects=1, classes=1, proposals=0, maps=0, steps=777, width=1)
    assert fitting_steps(work, {}, SVM, 60.0) == 777
    assert fitting_steps(work, {estimate.STEPS: 1.0}, SVM, 0.0) == LEAST_STEPS
