"""The history of fine-tuning: a state that goes on is the table of one that was never broken."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.training.finetune import Losses
from sppdet.training.validation.history import COLUMNS, History

numbers = st.floats(0, 10)
losses = st.lists(st.builds(Losses, numbers, numbers, numbers, numbers), min_size=1, max_size=12)


def test_no_step_leaves_no_table(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.write()
    assert not history.path.exists()
    assert {name: value.shape for name, value in history.state().items()} == {
        "history.rows": (0, len(COLUMNS)),
        "history.pending": (0, len(COLUMNS) - 2),
    }


def test_a_row_holds_means_and_a_cell_for_ap(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.add(Losses(3, 2, 1, 0))
    history.add(Losses(5, 2, 3, 1))
    assert history.report(2) == (
        "step 2: loss 4.000, classification 2.000, box 2.000, objects classified right 0.500"
    )
    history.add(Losses(1, 1, 0, 1))
    assert history.report(3, 0.625).endswith("right 1.000, validation AP 62.5")
    assert history.path.read_text().splitlines() == [
        "step,total,classification,box,foreground_accuracy,validation_ap",
        "2,4.000000,2.000000,2.000000,0.500000,",
        "3,1.000000,1.000000,0.000000,1.000000,0.625000",
    ]


@settings(max_examples=50, deadline=None)
@given(steps=losses, every=st.integers(1, 4), broken=st.integers(0, 12), data=st.data())
def test_a_broken_history_goes_on_to_the_same_table(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[Losses],
    every: int,
    broken: int,
    data: st.DataObject,
) -> None:
    aps = data.draw(st.lists(st.just(math.nan) | st.floats(0, 1), min_size=12, max_size=12))
    tables = []
    for at in (None, broken):
        history = History(tmp_path_factory.mktemp("run"))
        for step, one in enumerate(steps):
            if step == at:
                state = history.state()
                history = History(history.path.parent)
                history.load_state(state)
                assert not state
            history.add(one)
            if (step + 1) % every == 0 or step + 1 == len(steps):
                history.report(step + 1, aps[step])
        tables.append(history.path.read_bytes())
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    ("aps", "peak"),
    [
        ([], None),
        ([math.nan, math.nan], None),
        ([0.5], None),
        ([0.2, 0.5, math.nan, 0.48], None),
        ([0.2, 0.5, 0.4, math.nan], 2),
        ([0.5, 0.2, 0.5], None),
    ],
)
def test_a_peak_is_told_only_where_the_end_is_clearly_lower(
    tmp_path: Path, aps: list[float], peak: int | None
) -> None:
    history = History(tmp_path)
    for step, ap in enumerate(aps, 1):
        history.add(Losses(1, 1, 1, 1))
        history.report(step, ap)
    assert history.peak() == peak


def test_a_table_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.add(Losses(1, 1, 1, 1))
    history.report(1)
    written = history.path.stat()
    history.write()
    assert history.path.stat().st_ino == written.st_ino
    history.path.write_text("other")
    history.write()
    assert history.path.read_text().startswith("step,")
