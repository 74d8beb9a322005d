"""`sppdet doctor`: what it says of an installation that works, and of one that does not."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from sppdet.cli.doctor.facts import PHOTO, describe_processor, draw_photo
from sppdet.detection import model_zoo
from tests.cli.conftest import Run


@pytest.fixture
def shipped(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shipped models: one that is small."""
    monkeypatch.setattr(model_zoo, "SHIPPED", tmp_path)
    monkeypatch.setattr(model_zoo, "PRESETS", tmp_path / "presets")
    (tmp_path / "default.safetensors").write_bytes(model.read_bytes())
    return tmp_path


def test_an_installation_that_works(run: Run, shipped: Path) -> None:
    ran = run("doctor", "--threads", "1")
    assert ran.code == 0, ran.err
    assert f"torch {torch.__version__.partition('+')[0]}" in ran.out
    assert "cores, threads: torch 1, OpenCV 1" in ran.out
    assert "model default: loads" in ran.out
    assert re.search(r"a photo of 640x480: [\d.]+ s, the first [\d.]+ s", ran.out)
    assert re.search(r"compiled loops: [1-9]\d* files, [\d.]+ MB in /", ran.out)


def test_a_damaged_model_is_named(run: Run, shipped: Path) -> None:
    whole = (shipped / "default.safetensors").read_bytes()
    (shipped / "other.safetensors").write_bytes(whole[:-1])
    ran = run("doctor")
    assert ran.code == 1
    assert "model default: loads" in ran.out
    assert re.search(r"model other: \S+other.safetensors: .*; copy", ran.out)
    assert "a photo" not in ran.out


def test_warming_up_only_compiles(run: Run, shipped: Path) -> None:
    ran = run("doctor", "--warm-up")
    assert ran.code == 0
    assert re.fullmatch(r"compiled loops: [1-9]\d* files, [\d.]+ MB in \S+\n", ran.out)


def test_the_processor_is_told_as_torch_sees_it() -> None:
    assert f"torch uses {torch.backends.cpu.get_cpu_capability()};" in describe_processor()


def test_the_photo_is_always_the_same_and_not_flat() -> None:
    photo = draw_photo()
    assert photo.shape == (*PHOTO, 3)
    assert photo.dtype == np.uint8
    assert np.array_equal(photo, draw_photo())
    assert photo.std() > 30
