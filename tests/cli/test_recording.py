"""Commands that record line by line go on where they were, and check places first."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Run, assert_one_line

SMALL = ("--set", "proposals.max_proposals=20", "--threads", "1")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three small photos and a broken one."""
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    folder.mkdir()
    for number in range(3):
        pixels = rng.integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"")
    return folder


def test_proposals_go_on_from_their_lines(run: Run, photos: Path, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    first = run("propose", photos, "--jsonl", whole, "--json", tmp_path / "whole.json", *SMALL)
    assert first.code == 1
    lines = whole.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    part.write_bytes(b"".join(lines[:2]) + lines[2][:30])
    again = run("propose", photos, "--jsonl", part, "--json", tmp_path / "part.json", *SMALL)
    assert again.code == 1
    assert "1 of 4 images could not be read" in again.err
    assert again.out.split(" in ")[0] == first.out.split(" in ")[0]
    assert part.read_bytes() == whole.read_bytes()
    documents = [json.loads((tmp_path / f"{name}.json").read_bytes()) for name in ("whole", "part")]
    assert documents[0] == documents[1]
    assert len(documents[0]["images"]) == 4
    other = run("propose", photos, "--jsonl", part, "--set", "proposals.max_proposals=9")
    assert_one_line(other, str(part), "other settings")


@pytest.mark.parametrize("command", [("propose",), ("classify", "predict", "--model", "none")])
def test_places_are_checked_before_the_work(
    run: Run, photos: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "file").touch()
    for option in ("--json", "--jsonl"):
        refused = run(*command, photos, option, tmp_path / "file" / "x")
        assert_one_line(refused, str(tmp_path / "file"), "is a file, not a folder")
