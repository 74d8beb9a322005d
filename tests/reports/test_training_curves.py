"""Curves follow from the table alone: the same bytes, in any style, and nothing of the machine."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
from defusedxml import ElementTree

from sppdet.reports.training_curves import write_curves

TABLE = """step,total,classification,box,foreground_accuracy,validation_ap
250,3.100000,2.100000,1.000000,0.400000,
500,2.500000,1.700000,0.800000,0.500000,0.312000
750,nan,1.600000,0.700000,0.550000,0.402000
"""


def drawn(folder: Path, text: str) -> bytes:
    folder.mkdir()
    (folder / "history.csv").write_text(text)
    write_curves(folder / "history.csv")
    return (folder / "curves.svg").read_bytes()


def test_no_table_gives_no_drawing(tmp_path: Path) -> None:
    write_curves(tmp_path / "history.csv")
    assert list(tmp_path.iterdir()) == []


def test_equal_tables_give_equal_bytes(tmp_path: Path) -> None:
    one = drawn(tmp_path / "a", TABLE)
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 9}):
        assert drawn(tmp_path / "b", TABLE) == one
    assert drawn(tmp_path / "c", TABLE.replace("0.312", "0.412")) != one
    assert matplotlib.rcParams["svg.hashsalt"] != "sppdet"
    assert ElementTree.fromstring(one).tag.endswith("svg")
    text = one.decode()
    assert not re.search(r"dc:date|20\d\d-\d\d", text)
    for label in ("classification", "boxes", "validation AP", "objects classified right", "step"):
        assert label in text


def test_without_validation_there_is_no_curve_of_it(tmp_path: Path) -> None:
    lines = [line.rpartition(",")[0] + "," for line in TABLE.splitlines()[1:]]
    text = "\n".join([TABLE.splitlines()[0], *lines]) + "\n"
    assert b"validation AP" not in drawn(tmp_path / "a", text)


def test_a_drawing_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    drawn(tmp_path / "a", TABLE)
    before = (tmp_path / "a" / "curves.svg").stat()
    write_curves(tmp_path / "a" / "history.csv")
    assert (tmp_path / "a" / "curves.svg").stat().st_ino == before.st_ino
