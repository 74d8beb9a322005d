"""What commands take: lists, folders within folders, and batches in which some inputs are wrong."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Run, assert_one_line

SMALL = ("--set", "proposals.max_proposals=5", "--threads", "1")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `photos` of the working folder: two images, and one in a folder inside."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.RandomState(0).randint(0, 256, (24, 32, 3)).astype(np.uint8)
    for name in ("a.png", "b.avif", "deep/c.jp2"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "photos"


def recorded(file: Path) -> dict[str, bool]:
    """The names in a file of results, and whether there are results."""
    return {one["file"]: "error" not in one for one in json.loads(file.read_text())["images"]}


def test_one_bad_input_does_not_end_the_batch(run: Run, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (photos / "text.jpg").write_text("no photo")
    (photos / "link.png").symlink_to("gone.png")
    (photos / "film.mov").touch()
    bad = ("empty", "more/*.png", "gone.jpg", "", "@no.txt")
    ran = run("propose", "photos/a.png", *bad, "photos", "--json", "out.json", *SMALL)
    assert ran.code == 1
    told = [line.removeprefix("sppdet: ") for line in ran.err.splitlines() if "sppdet: " in line]
    # First what is known before any work, each once; then what turns up; then how many.
    assert [line.partition(";")[0] for line in told] == [
        "photos: left out: 1 file of other kinds (1 .mov), "
        "1 folder inside (--recursive looks into them)",
        "empty: the folder holds no images",
        "more/*.png: matches no images",
        "gone.jpg: no such image file",
        "an input is empty",
        "no.txt: the list cannot be read (No such file or directory)",
        "photos/link.png: no such image file",
        "photos/text.jpg: not an image of an accepted format",
        "7 of 9 images could not be read",
    ]
    found = recorded(tmp_path / "out.json")
    assert list(found) == [
        "photos/a.png",
        *bad,
        "photos/b.avif",
        "photos/link.png",
        "photos/text.jpg",
    ]
    assert [name for name, is_right in found.items() if is_right] == [
        "photos/a.png",
        "photos/b.avif",
    ]


def test_what_gives_no_image_at_all_is_one_line(run: Run, photos: Path, tmp_path: Path) -> None:
    for word, part in (("", "an input is empty"), ("gone.jpg", "no such"), ("*.gif", "no images")):
        assert_one_line(run("propose", word, *SMALL), part)
    assert_one_line(run("detect", "", "--model", "no such model"), "an input is empty")
    assert_one_line(run("detect", tmp_path), "the folder holds no images", "--recursive")


def test_recursive(run: Run, photos: Path, tmp_path: Path) -> None:
    ran = run("propose", "photos", "--recursive", "--json", "out.json", *SMALL)
    assert (ran.code, "left out" in ran.err) == (0, False)
    assert list(recorded(tmp_path / "out.json")) == [
        "photos/a.png",
        "photos/b.avif",
        "photos/deep/c.jp2",
    ]


def test_lists_of_files(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list.txt").write_text("photos/b.avif\nphotos/a.png\n")
    listed = b"photos/a.png\0photos/deep\0"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed)))
    assert run("propose", "@list.txt", "-", "--json", "out.json", *SMALL).code == 0
    assert list(recorded(tmp_path / "out.json")) == [
        "photos/b.avif",
        "photos/a.png",
        "photos/deep/c.jp2",
    ]


def test_boxes_of_a_file_are_kept(run: Run, photos: Path, tmp_path: Path) -> None:
    words = ("propose", "photos/a.png", "--json", "out.json", "--cache", "cache", *SMALL)
    assert run(*words).code == 0
    first = (tmp_path / "out.json").read_bytes()
    kept = list((tmp_path / "cache").rglob("*.boxes"))
    assert len(kept) == 1
    assert run(*words).code == 0
    assert (tmp_path / "out.json").read_bytes() == first
