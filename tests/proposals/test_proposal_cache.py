from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sppdet.core.errors import ImageError
from sppdet.core.images import read_image
from sppdet.core.types import FloatArray, ImageArray
from sppdet.proposals import Proposer, propose_all
from sppdet.proposals.proposal_cache import attempt_all, cached_proposals


class Counting(Proposer):
    """A proposer of two boxes that tell the image's size and first pixel, and counts its calls."""

    calls: list[int]

    def __init__(self, key: str = "counting 1") -> None:
        super().__init__(key, self._two_boxes)
        object.__setattr__(self, "calls", [])

    def _two_boxes(self, image: ImageArray) -> FloatArray:
        self.calls.append(threading.get_ident())
        height, width = image.shape[:2]
        return np.array([[0, 0, width, height], [0, 0, 1, 1 + image[0, 0, 0]]], np.float32)


def photos(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{i}.png" for i in range(count)]
    for i, path in enumerate(paths):
        Image.fromarray(np.full((4, 5 + i, 3), i, np.uint8)).save(path)
    return paths


def cache_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def test_no_images_no_proposals(tmp_path: Path) -> None:
    assert list(propose_all([], read_image, Counting(), tmp_path)) == []


def test_the_second_time_nothing_is_computed_or_read(tmp_path: Path) -> None:
    paths, proposer, cache = photos(tmp_path, 3), Counting(), tmp_path / "cache"
    first = list(propose_all(paths, read_image, proposer, cache))
    assert len(proposer.calls) == 3

    def refuse(path: Path) -> ImageArray:
        raise AssertionError("read again")

    again = list(propose_all(paths, refuse, proposer, cache))
    assert len(proposer.calls) == 3
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    (path,), proposer, cache = photos(tmp_path, 1), Counting(), tmp_path / "cache"
    cached_proposals(path, read_image, proposer, cache)
    renamed = path.rename(tmp_path / "other.png")
    cached_proposals(renamed, read_image, proposer, cache)
    assert len(proposer.calls) == 1
    Image.fromarray(np.full((4, 5, 3), 9, np.uint8)).save(renamed)
    assert cached_proposals(renamed, read_image, proposer, cache)[1, 3] == 10
    assert len(proposer.calls) == 2


def test_another_key_is_another_entry(tmp_path: Path) -> None:
    (path,), cache = photos(tmp_path, 1), tmp_path / "cache"
    for key in ("a", "b", "a"):
        cached_proposals(path, read_image, Counting(key=key), cache)
    assert len(cache_files(cache)) == 2


@pytest.mark.parametrize("damage", ["empty", "cut", "flip", "text"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: str) -> None:
    (path,), proposer, cache = photos(tmp_path, 1), Counting(), tmp_path / "cache"
    expected = cached_proposals(path, read_image, proposer, cache)
    (file,) = cache_files(cache)
    good = file.read_bytes()
    bad = {"empty": b"", "cut": good[:-3], "flip": good[:-1] + b"\x7f", "text": b"hello"}[damage]
    file.write_bytes(bad)
    np.testing.assert_array_equal(cached_proposals(path, read_image, proposer, cache), expected)
    assert len(proposer.calls) == 2
    assert file.read_bytes() == good


def test_order_is_kept(tmp_path: Path) -> None:
    paths = photos(tmp_path, 20)
    found = list(propose_all(paths, read_image, Counting(), workers=3))
    assert [int(boxes[0, 2]) for boxes in found] == [5 + i for i in range(20)]


def test_few_images_are_taken_ahead(tmp_path: Path) -> None:
    paths, taken = photos(tmp_path, 30), list[Path]()

    def source() -> object:
        for path in paths:
            taken.append(path)
            yield path

    found = propose_all(source(), read_image, Counting(), workers=2)  # type: ignore[arg-type]
    next(iter(found))
    assert len(taken) <= 8


def test_a_bad_image_stops_one_and_not_the_other(tmp_path: Path) -> None:
    paths = photos(tmp_path, 3)
    paths[1].write_bytes(b"not an image")
    outcomes = [
        outcome for _, outcome in attempt_all(paths, read_image, Counting(), tmp_path / "c")
    ]
    assert isinstance(outcomes[1], ImageError)
    assert isinstance(outcomes[0], np.ndarray)
    assert isinstance(outcomes[2], np.ndarray)
    with pytest.raises(ImageError, match=r"1\.png"):
        list(propose_all(paths, read_image, Counting()))


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.jpg"):
        list(propose_all([tmp_path / "gone.jpg"], read_image, Counting(), tmp_path / "c"))
