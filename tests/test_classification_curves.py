"""Training curves: drawn for any history, the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sppdet.classification.curves import COLOURS, nice_step, write_curves
from sppdet.images import read_image


def test_no_curves_make_a_picture(tmp_path: Path) -> None:
    empty: list[dict[str, dict[str, list[float]]]] = [{}, {"loss": {}}, {"loss": {"training": []}}]
    for number, panels in enumerate(empty):
        path = tmp_path / f"{number}.png"
        write_curves(path, panels)
        assert read_image(path).shape[1] == 900


def test_curves_are_where_their_values_are(tmp_path: Path) -> None:
    falling = {"training": [4.0, 3.0, 2.0, 1.0, 0.0]}
    write_curves(tmp_path / "a.png", {"loss": falling})
    write_curves(tmp_path / "b.png", {"loss": falling})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    image = read_image(tmp_path / "a.png")[34:]
    rows, columns = np.nonzero((image == COLOURS[0]).all(axis=2))
    slope = np.polyfit(columns, rows, 1)[0]
    assert slope == pytest.approx((330 - 68) / (900 - 90), rel=0.02)


def test_values_that_are_not_finite_leave_a_gap(tmp_path: Path) -> None:
    write_curves(tmp_path / "a.png", {"loss": {"training": [1.0, float("nan"), float("inf"), 1.0]}})
    image = read_image(tmp_path / "a.png")[34:]
    columns = np.nonzero((image == COLOURS[0]).all(axis=2))[1]
    assert not ((columns > 200) & (columns < 700)).any()


@given(st.floats(1e-6, 1e6))
def test_steps_are_round_and_few(span: float) -> None:
    step = nice_step(span)
    assert 1 <= span / step * (1 + 1e-9) <= 5.001 * (1 + 1e-9) or span / step > 1.9
    digit = step / 10 ** np.floor(np.log10(step * (1 + 1e-9)))
    assert min(abs(digit - d) for d in (1, 2, 5, 10)) < 1e-6
