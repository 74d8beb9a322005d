"""Disk and memory: what is needed against what is free."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sppdet.core.errors import TrainingError
from sppdet.training.config import SvmConfig
from sppdet.training.planning.estimate import Work
from sppdet.training.planning.resources import (
    DiskNeed,
    available_memory,
    check_disk,
    mining_bytes,
    size,
)


def test_needs_on_one_disk_are_added_up(tmp_path: Path) -> None:
    assert check_disk([]) == []
    needs = [DiskNeed(tmp_path / "a" / "b", 5.0, ""), DiskNeed(tmp_path, 7.0, "")]
    ((needed, free),) = check_disk(needs)
    assert needed == 12
    assert free > 0


def test_too_little_disk_is_an_error_with_two_remedies(tmp_path: Path) -> None:
    most = shutil.disk_usage(tmp_path).total
    cache = DiskNeed(tmp_path / "cache", 2.0 * most, "keep the cache elsewhere: --cache DIR")
    with pytest.raises(TrainingError) as caught:
        check_disk([DiskNeed(tmp_path, 1.0, "no"), cache])
    words = str(caught.value)
    assert words.startswith(f"{tmp_path / 'cache'}: the training needs {size(2 * most)} of disk")
    assert "GB are free; free " in words
    assert words.endswith("or keep the cache elsewhere: --cache DIR")


def test_mining_keeps_no_more_than_there_are_regions_or_places() -> None:
    work = Work(images=3, objects=5, classes=2, proposals=0, maps=0, steps=0, width=8)
    assert mining_bytes(work, SvmConfig(proposals_per_image=10)) == 4 * 8 * (5 + 30)
    few = SvmConfig(proposals_per_image=10, max_negatives=6)
    assert mining_bytes(work, few) == 4 * 8 * (5 + 12)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("MemTotal:  9 kB\nMemAvailable:   16 kB\nSwapFree: 1 kB\n", 16 * 1024),
        ("MemTotal:  9 kB\n", None),
        ("MemAvailable:\n", None),
        ("", None),
    ],
)
def test_available_memory(tmp_path: Path, text: str, found: float | None) -> None:
    path = tmp_path / "meminfo"
    assert available_memory(path) is None
    path.write_text(text)
    assert available_memory(path) == found


@pytest.mark.parametrize(
    ("count", "words"), [(0, "1 MB"), (47e6, "47 MB"), (99e6, "99 MB"), (1e8, "0.1 GB")]
)
def test_size(count: float, words: str) -> None:
    assert size(count) == words
