"""The SVM stage: stopped anywhere it ends in the same bytes, and what is done is not done again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sppdet.core.progress import Advance, NullProgress
from sppdet.heads.svm import LinearSvms
from sppdet.training import svm_stage
from sppdet.training.region_pass import collect_regions
from sppdet.training.svm_stage import train_svms
from tests.helpers.training_context import IMAGES, make_context, make_head


class StoppedError(Exception):
    """A training that was stopped."""


class Stopping(NullProgress):
    """Stops once so many items are done, and keeps what it was told."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.lines: list[str] = []
        self.begun: list[int] = []

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        """Count the items; the first call tells how many were done before."""
        done = -1

        def advance(count: int) -> None:
            nonlocal done
            if done < 0:
                self.begun.append(count)
                done = 0
            done += count
            if count and done >= self.after:
                raise StoppedError

        yield advance

    def say(self, text: str) -> None:
        """Keep a line."""
        self.lines.append(text)


def run_stage(folder: Path, run: str, progress: NullProgress) -> LinearSvms:
    context = make_context(folder)
    store = context.store
    store.folder = folder / run
    head = make_head(context)
    miner = collect_regions(context, head).miner
    return train_svms(replace(context, progress=progress), head, miner)[0]


def same(a: LinearSvms, b: LinearSvms) -> bool:
    names = ("weights", "bias", "trained", "converged")
    return all(getattr(a, name).tobytes() == getattr(b, name).tobytes() for name in names)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("svms")


def test_it_goes_on_from_its_last_save_to_the_same_bytes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(svm_stage, "SAVE_EVERY", 2)
    whole = run_stage(folder, "whole", NullProgress())
    assert whole.trained.any()
    for after, saved in ((1, 0), (3, 2), (IMAGES, 4)):
        run = f"stopped after {after}"
        with pytest.raises(StoppedError):
            run_stage(folder, run, Stopping(after))
        last = Stopping(IMAGES + 1)
        assert same(run_stage(folder, run, last), whole)
        assert last.begun == [saved]
        told = [f"hard negatives: going on from image {saved}"] if saved else []
        assert last.lines == told


def test_what_is_done_is_not_done_again(folder: Path) -> None:
    first = run_stage(folder, "twice", NullProgress())
    told = Stopping(1)
    assert same(run_stage(folder, "twice", told), first)
    assert told.lines == ["SVMs: unchanged, taken from the run's folder"]
    assert not told.begun
    assert not list((folder / "twice").glob("*.partial.*"))
