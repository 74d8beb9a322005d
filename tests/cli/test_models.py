"""`sppdet models`: the card of a model."""

from __future__ import annotations

from pathlib import Path

from sppdet.reports.model_card import model_card
from tests.cli.conftest import Run, assert_one_line
from tests.helpers.made_detector import CLASSES, make_detector


def test_a_card_is_printed(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "made.safetensors"
    make_detector().save(path, description="made", provenance={})
    ran = run("models", path, "--card")
    assert ran.code == 0
    assert ran.out.rstrip("\n") == model_card(path).rstrip("\n")
    assert all(name in ran.out for name in CLASSES)
    assert_one_line(run("models", tmp_path / "none.safetensors", "--card"), "none.safetensors")
    assert run("models", "--card").code == 2
