"""`sppdet train`: what it says first, a time to fit into, and AP on the way."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Run, training


def test_a_training_says_first_what_it_takes(
    run: Run, shapes: Path, model: Path, tmp_path: Path
) -> None:
    ran = run(*training(shapes, tmp_path, "--minutes", "1000000"))
    assert ran.code == 0
    patterns = (
        r"shapes train: 4 images, \d+ objects, \d classes",
        r"starts from random layers: 10 steps of fine-tuning, learning rate 0.0004 at most",
        r"plan: 10 steps of 4 images",
        r"validation: AP on 3 images, measured once in fine-tuning",
        r"time: about .*",
        r"memory: about .* GB.*",
        r"disk: \d.*free\)",
    )
    told = ran.out[ran.out.index(r"shapes train: ") :].splitlines()
    for pattern, line in zip(patterns, told, strict=False):
        assert re.fullmatch(pattern, line), line
    assert re.search(r"^step 10: loss .*, validation AP \d+\.\d$", ran.err, re.MULTILINE)
    record = json.loads((tmp_path / "minutes.json").read_text())
    assert (record["minutes"], record["steps"]) == (1000000, 10)
    assert (tmp_path / "model.safetensors").read_bytes() == model.read_bytes()


def test_too_short_a_time_is_told_and_its_steps_are_kept(
    run: Run, shapes: Path, model: Path, tmp_path: Path
) -> None:
    ran = run(*training(shapes, tmp_path, "--minutes", "0"))
    assert ran.code == 0
    assert "0 minutes are too few: with the fewest steps (10), training takes about" in ran.err
    again = run(*training(shapes, tmp_path, "--minutes", "0"))
    assert "plan: all stages are done already" in again.out
    assert (tmp_path / "model.safetensors").read_bytes() == model.read_bytes()


@pytest.mark.parametrize("split", [(), ("--split", "train")], ids=["chosen", "named"])
def test_images_that_are_trained_on_are_not_validated_on(
    run: Run, shapes: Path, tmp_path: Path, split: tuple[str, ...]
) -> None:
    shutil.copytree(shapes, tmp_path / "mine")
    lists = tmp_path / "mine" / "ImageSets" / "Main"
    (lists / "val.txt").write_text((lists / "train.txt").read_text())
    ran = run(*training(tmp_path / "mine", tmp_path / "run", *split))
    assert "validation: none, for lack of other images or of steps" in ran.out


def test_a_split_val_is_validated_on_where_train_is_named(
    run: Run, shapes: Path, tmp_path: Path
) -> None:
    ran = run(*training(shapes, tmp_path, "--split", "train"))
    assert "validation: AP on 3 images, measured once in fine-tuning" in ran.out
