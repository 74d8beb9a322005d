"""What the inputs of a command name: everything is found, or told."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sppdet.core.errors import ImageError
from sppdet.media import ImageSource, find_sources
from sppdet.media.path_lists import read_list, split_names
from sppdet.media.sources import find_images


def names(*inputs: str, recursive: bool = False, stdin: bytes = b"") -> list[str]:
    found = find_sources(inputs, recursive=recursive, stdin=io.BytesIO(stdin))
    return [one.name for one in found.images if one.error is None]


def errors(*inputs: str, recursive: bool = False, stdin: bytes = b"") -> list[str]:
    found = find_sources(inputs, recursive=recursive, stdin=io.BytesIO(stdin))
    return [str(one.error) for one in found.images if one.error is not None]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with images in `photos/` and further down."""
    monkeypatch.chdir(tmp_path)
    for name in ("b.JPG", "a.png", "odd[1].png", "deep/c.webp", "deep/er/d.tiff", ".git/e.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


TOP = ["photos/a.png", "photos/b.JPG", "photos/odd[1].png"]
ALL = [*TOP[:2], "photos/deep/c.webp", "photos/deep/er/d.tiff", TOP[2]]


def test_nothing_gives_nothing() -> None:
    assert find_sources([]).images == ()
    assert find_sources([]).notes == ()


def test_files_folders_and_patterns(folder: Path) -> None:
    assert names("photos") == names("photos/") == names("photos/*") == TOP
    assert names("photos", recursive=True) == names("photos/**") == ALL
    assert names("photos/*.png", "photos/deep/*") == [TOP[0], TOP[2], "photos/deep/c.webp"]
    assert names("photos/odd[1].png") == ["photos/odd[1].png"]  # a file, not a pattern
    absolute = str(folder / "photos" / "a.png")
    assert names(absolute) == [absolute]


def test_the_order_is_that_of_the_inputs_and_each_file_comes_once(folder: Path) -> None:
    (folder / "link.png").symlink_to("photos/a.png")
    given = ("photos/b.JPG", "photos", "photos/./a.png", str(folder / "photos/b.JPG"), "link.png")
    assert names(*given) == ["photos/b.JPG", "photos/a.png", "photos/odd[1].png"]


def test_one_bad_input_does_not_end_the_batch(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "folders" / "in").mkdir(parents=True)
    (folder / "nothing.jpg").touch()
    os.mkfifo(folder / "pipe.jpg")
    bad = {
        "": "an input is empty; is a shell variable unset?",
        "  ": "an input is empty",
        "empty": "empty: the folder holds no images; name one with image files (.avif",
        "folders": "folders: the folder holds no images; --recursive looks into 1 folder inside",
        "more/*.png": "more/*.png: matches no images",
        "gone.jpg": "gone.jpg: no such image file",
        "nothing.jpg": "nothing.jpg: is empty (0 bytes)",
        "pipe.jpg": "pipe.jpg: is not a regular file",
        "x" * 5000: "cannot be read",
        "a\0b": "cannot be read",
        "@gone.txt": "gone.txt: the list cannot be read (No such file or directory)",
        "@photos": "photos: the list cannot be read (Is a directory)",
        "http://example.org/a.jpg": "is not an https:// address; download it yourself",
        "file:///a.jpg": "is not an https:// address",
        "-": "standard input: names no images",
    }
    found = errors("photos", *bad, "photos/deep")
    assert len(found) == len(bad)
    for message, part in zip(found, bad.values(), strict=True):
        assert part in message
        assert "; " in message
        assert "\n" not in message
    assert names("photos", *bad, "photos/deep") == [*TOP, "photos/deep/c.webp"]
    # In their place, and read() raises what is wrong.
    sources = find_sources(("photos/a.png", "empty", "photos/b.JPG")).images
    assert [one.error is None for one in sources] == [True, False, True]
    with pytest.raises(ImageError, match="holds no images"):
        sources[1].read()


def test_a_folder_that_cannot_be_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def locked(path: str | Path) -> object:
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    assert names("photos", "photos/deep", recursive=True) == TOP
    assert errors("photos/deep") == [
        "photos/deep: cannot be read (Permission denied); check the path"
    ]
    assert errors("photos", recursive=True) == [
        "photos/deep: cannot be read (Permission denied); change its permissions"
    ]


def test_what_is_left_out_is_told(folder: Path) -> None:
    photos = folder / "photos"
    assert find_sources(["photos"]).notes == (
        "photos: left out: 1 folder inside (--recursive looks into them)",
    )
    assert find_sources(["photos"], recursive=True).notes == ()
    for name in ("a.mov", "b.MOV", "x.txt", "c.cr2", "d.xml", "noname", ".f.jpg", ".DS_Store"):
        (photos / name).touch()
    (photos / "loop").symlink_to(".")
    (note,) = find_sources(["photos"], recursive=True).notes
    assert note.startswith("photos: left out: 6 files of other kinds (2 .mov, ")
    assert note.endswith(", 2 more), 1 hidden image, 1 link to folders")
    (note,) = find_sources(["photos/*"]).notes
    assert "6 files of other kinds" in note
    assert "2 folders inside" in note
    # HEIC photos, links to nothing and folders with an image's name: none is passed over.
    (photos / "IMG_1.HEIC").write_bytes(b"x")
    (photos / "broken.png").symlink_to("gone.png")
    (photos / "e.jpg").mkdir()
    found = find_sources(["photos"])
    assert [one.name for one in found.images] == [
        "photos/IMG_1.HEIC",
        "photos/a.png",
        "photos/b.JPG",
        "photos/broken.png",
        "photos/odd[1].png",
    ]
    with pytest.raises(ImageError, match=r"broken\.png: no such image file"):
        found.images[3].read()
    assert "3 folders inside" in found.notes[0]


NAME = st.text(st.characters(codec="utf-8", exclude_characters="/\0\r\n\ufeff"), min_size=1)


@given(st.lists(NAME.filter(lambda name: name == name.strip()), min_size=1), st.data())
@settings(deadline=None)
def test_lists_come_back_as_they_were_written(lines: list[str], data: st.DataObject) -> None:
    end = data.draw(st.sampled_from(["\n", "\r\n", "\n\n", " \n"]))
    text = end.join(lines) + data.draw(st.sampled_from(["", end]))
    encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig"]))
    assert split_names(text.encode(encoding), "list") == lines
    nul = "\0".join(lines).encode() + data.draw(st.sampled_from([b"", b"\0"]))
    if b"\0" in nul:
        assert split_names(nul, "list") == lines


def test_lists_of_windows_and_of_odd_names() -> None:
    assert split_names("a.jpg\r\nä b.jpg\r\n".encode("utf-16"), "list") == ["a.jpg", "ä b.jpg"]
    assert split_names(b"\xff.jpg\n", "list") == [os.fsdecode(b"\xff.jpg")]
    assert split_names(b" a\n.jpg\0", "list") == [" a\n.jpg"]
    for empty in (b"", b"\n \n", b"\0\0", b"\xef\xbb\xbf"):
        with pytest.raises(ImageError, match="list: names no images; give one path a line"):
            split_names(empty, "list")
    for image in (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n"):
        with pytest.raises(ImageError, match="list: is an image, not a list"):
            split_names(image, "list")


def test_lists(folder: Path) -> None:
    (folder / "photos" / "list.txt").write_text("a.png\nphotos/b.JPG\ndeep\nhttps://a.b/c.png\n")
    found = ["photos/a.png", "photos/b.JPG", "photos/deep/c.webp", "https://a.b/c.png"]
    assert names("@photos/list.txt") == found
    # The working folder comes first.
    (folder / "a.png").write_bytes(b"x")
    assert read_list(Path("photos/list.txt"))[0] == "a.png"
    # Names in a list are no patterns, no lists, and not standard input.
    listed = b"photos/*.png\n@photos/list.txt\n-\nphotos/odd[1].png\n"
    assert names("-", stdin=listed) == ["photos/odd[1].png"]
    assert len(errors("-", stdin=listed)) == 3
    # A file that begins with @ is itself.
    (folder / "@a.png").write_bytes(b"x")
    assert names("@a.png") == ["@a.png"]


def test_standard_input(folder: Path) -> None:
    assert names("photos/b.JPG", "-", stdin=b"photos/a.png\nphotos/b.JPG\n") == TOP[1::-1]
    assert names("-", stdin=b"photos/a.png\0photos/deep\0") == [TOP[0], "photos/deep/c.webp"]


def test_a_source_reads_its_image(tmp_path: Path) -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (5, 7, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (source,) = find_sources([str(tmp_path)]).images
    assert source == ImageSource(str(tmp_path / "a.png"), tmp_path / "a.png")
    assert source.stem == "a"
    np.testing.assert_array_equal(source.read(), pixels)
    with pytest.raises(ImageError, match="exceeds the cap of 34 pixels"):
        source.read(max_pixels=34)


@pytest.mark.parametrize(
    ("address", "stem"),
    [
        ("https://example.org/photos/a%20cat.jpg?size=large#x", "a_cat"),
        ("https://example.org/", "example.org"),
        ("https://example.org/cat", "cat"),
        ("https://example.org/..%2F..%2Fetc", "image"),
        ("https://example.org/%00", "image"),
        ("https://[", "image"),
        ("https://example.org/" + "x" * 999, "x" * 60),
    ],
)
def test_an_address_gives_a_safe_name(address: str, stem: str) -> None:
    (source,) = find_sources([address]).images
    assert (source.name, source.path, source.stem) == (address, None, stem)


def test_find_images_of_one_place(folder: Path) -> None:
    assert find_images("photos") == find_images(Path("photos/*")) == [Path(one) for one in TOP]
    assert find_images("gone.jpg") == [Path("gone.jpg")]
    for source, message in (("*.jpg", "*.jpg: matches no images"), ("x" * 5000, "cannot be read")):
        with pytest.raises(ImageError, match=re.escape(message)):
            find_images(source)
