"""The command line run in this process, and a small data set and model that it made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import pytest
import torch

from sppdet.cli import main
from sppdet.datasets import make_synthetic_voc

CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs"


class Ran(NamedTuple):
    """What a command left behind."""

    code: object
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Give the process its numbers of threads back: the last bits of a training depend on them."""
    numbers = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(numbers[0])
    cv2.setNumThreads(numbers[1])


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this process."""

    def call(*argv: str | Path) -> Ran:
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in argv])
        out, err = capsys.readouterr()
        return Ran(left.value.code or 0, out, err)

    return call


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic VOC data set, not to be changed."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    return make_synthetic_voc(root, train=4, val=3, test=0, width=120, height=90)


@pytest.fixture(scope="session")
def model(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained by the command line on the synthetic set: far too little to be good."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in training(shapes, folder)])
    assert not left.value.code
    return folder / "model.safetensors"


def training(data: Path, folder: Path, *more: str) -> list[str | Path]:
    """The words of a short training."""
    changes = ["features.scales=[120]", "head.fc6=32", "head.fc7=32", "finetune.steps=10"]
    words = [word for change in changes for word in ("--set", change)]
    return ["train", data, "--run", folder, "--config", CONFIGS / "tiny.toml", *words, *more]


def assert_one_line(ran: Ran, *parts: str) -> None:
    """The command failed with one line on standard error that has all of `parts`."""
    assert ran.code == 1
    lines = ran.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("sppdet: ")
    for part in parts:
        assert part in lines[0]
