"""The door: what a path is, what is said of it, and paths that are none."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from sppdet.core.errors import DatasetError
from sppdet.datasets.load import FORMATS, describe, load_dataset, locate, read_dataset
from sppdet.datasets.raw import CLIPPED, NOT_LISTED, REPEATED_CLASS, Findings
from tests.helpers import made_voc
from tests.helpers.made_voc import write_image, write_pair

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def faults() -> Path:
    """Inputs that once failed; skips where they are not at hand."""
    folder = Path(os.environ.get("SPPDET_FAULTS", ROOT.parent / "shared" / "faults"))
    if not folder.is_dir():
        pytest.skip(f"no inputs under {folder}; set SPPDET_FAULTS to their folder")
    return folder


@pytest.mark.parametrize(
    ("path", "ids", "found"),
    [
        ("07*/data", ["a", "b"], {}),
        ("09*/voc", ["a", "b"], {CLIPPED: 1}),
        ("10*/nosets", ["a"], {}),
        ("10*/labelimg", ["a", "b"], {}),
        ("10*/roboflow/train", ["a_jpg.rf.0123"], {}),
        ("10*/cvat", ["sub/img_a"], {}),
        ("12*/dropped", ["cam -1", "cam 5"], {}),
        ("12*/night", ["night 1"], {}),
        ("12*/twice", ["IMG 0", "IMG 1", "IMG 2"], {}),
        ("17*/voc-floatsize", ["a"], {}),
        ("17*/voc-Jpg", ["a"], {}),
        ("17*/voc-gbk", ["a"], {}),
        ("18*/data", ["a"], {}),
        ("19*/abs", ["a"], {}),
        ("19*/dup", ["a"], {REPEATED_CLASS: 1}),
    ],
)
def test_inputs_that_once_failed(
    faults: Path, path: str, ids: list[str], found: dict[str, int]
) -> None:
    (folder,) = faults.glob(path)
    findings = Findings()
    data = load_dataset(folder, findings=findings)
    assert [sample.image_id for sample in data] == ids
    assert all(len(sample.boxes) == 1 for sample in data)
    assert dict(findings.counts()) == found


def test_inputs_that_are_named(faults: Path) -> None:
    (data,) = faults.glob("07*/data")
    for asked, hint in ((["cat", "dgo"], "did you mean 'dog'"), (["Cat"], "did you mean 'cat'")):
        with pytest.raises(DatasetError, match=f"data: no object has the class .*; {hint}"):
            load_dataset(data, classes=asked)
    (huge,) = faults.glob("19*/huge")
    with pytest.raises(DatasetError, match=r"a\.png: 10000x9000 pixels exceeds the cap") as caught:
        load_dataset(huge)
    assert "max_pixels" not in str(caught.value)


def _tiff(width: int, height: int) -> bytes:
    """A TIFF's header and its two sizes (TIFF 6.0, section 2), without any pixel."""
    entries = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (279, 1)]
    packed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + packed + bytes(4)


def _gif(width: int, height: int) -> bytes:
    """A GIF of one empty picture (GIF89a, sections 18 and 20)."""
    screen = struct.pack("<6sHHBBB", b"GIF89a", width, height, 0x80, 0, 0) + bytes(6)
    return screen + struct.pack("<BHHHHB", 0x2C, 0, 0, width, height, 0) + b"\2\0;"


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.tif", _tiff(60_000, 60_000)), ("a.gif", _gif(65_535, 65_535))],
    ids=["tiff", "gif"],
)
def test_an_image_that_claims_too_many_pixels_is_named(
    tmp_path: Path, name: str, data: bytes
) -> None:
    (tmp_path / name).write_bytes(data)
    (tmp_path / "a.xml").write_text(made_voc.annotation(("cat", "1 1 9 9"), filename=name))
    with pytest.raises(DatasetError) as caught:
        load_dataset(tmp_path)
    assert f"{name}: the image exceeds the cap of 89,000,000 pixels" in str(caught.value)
    assert "\n" not in str(caught.value)
    # The remedy: go on without it.
    write_pair(tmp_path / "b.jpg", tmp_path / "b.xml")
    with pytest.raises(DatasetError, match=r"1 of 2 images.*--lenient$"):
        load_dataset(tmp_path)
    assert [one.image_id for one in load_dataset(tmp_path, max_lost=1.0)] == ["b"]


@pytest.mark.parametrize(
    "line", ["..\\..\\set\\a.jpg", "C:\\data\\a.jpg", "../../a", "//server/x/a.png"]
)
def test_paths_of_another_machine_in_a_split_file(tmp_path: Path, line: str) -> None:
    root = tmp_path / "set"
    write_pair(root / "JPEGImages/a.jpg", root / "Annotations/a.xml")
    listed = made_voc.write_split(root, "train", [line])
    assert [one.image_id for one in load_dataset(root, "train")] == ["a"]
    # What is not there is named with the list that names it; nothing outside is read.
    write_pair(tmp_path / "JPEGImages/b.jpg", tmp_path / "Annotations/b.xml")
    start, _, end = line.rpartition("a")
    gone = f"{start}b{end}"
    made_voc.write_split(root, "train", [line, gone])
    with pytest.raises(DatasetError) as caught:
        load_dataset(root, "train")
    assert f"the first is {listed}: lists {gone}, which has no annotation" in str(caught.value)
    findings = Findings()
    assert len(load_dataset(root, "train", findings=findings, max_lost=1.0)) == 1
    assert findings.counts() == {NOT_LISTED: 1}


def test_what_is_said_of_a_set(tmp_path: Path) -> None:
    made_voc.tensorflow(tmp_path)
    raw = read_dataset(tmp_path, Findings())
    said = "VOC XML, 3 images, 6 boxes, 2 classes: cat, dog; splits: train, test"
    assert describe(raw) == said
    assert describe(raw, "test") == "VOC XML, 1 image, 2 boxes, 2 classes: cat, dog; split test"
    write_pair(tmp_path / "one" / "a.jpg", tmp_path / "one" / "a.xml")
    raw = read_dataset(tmp_path / "one", Findings())
    assert describe(raw) == "VOC XML, 1 image, 1 box, 1 class: cat; no splits"
    objects = [(f"class {n}", "1 1 9 9") for n in range(9)]
    write_pair(tmp_path / "many" / "a.jpg", tmp_path / "many" / "a.xml", *objects)
    said = describe(read_dataset(tmp_path / "many", Findings()))
    assert said.endswith("9 classes: class 0, class 1, class 2, class 3, class 4, class 5 and 3 mo"
                         "re; no splits")  # fmt: skip


def test_sets_are_found_at_most_two_folders_down(tmp_path: Path) -> None:
    made_voc.labelimg(tmp_path / "a" / "b" / "c")
    for depth in ("a", "a/b", "a/b/c"):
        assert locate(tmp_path / depth) == ("voc", tmp_path / "a" / "b" / "c")
    with pytest.raises(DatasetError, match="holds no data set of a known format; known are VOC"):
        locate(tmp_path)


def test_several_sets_are_named(tmp_path: Path) -> None:
    for name in ("one", "two"):
        made_voc.labelimg(tmp_path / "sets" / name)
    with pytest.raises(
        DatasetError, match=r"holds 2 data sets: one \(VOC XML\), two \(VOC XML\); name one"
    ):
        load_dataset(tmp_path / "sets")


def test_images_without_annotations_are_refused_with_a_word(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "more"):
        write_image(folder / "a.jpg")
    with pytest.raises(DatasetError, match=r"holds 2 images, but no annotations.*label them first"):
        load_dataset(tmp_path)
    for format in FORMATS:
        with pytest.raises(DatasetError):
            load_dataset(tmp_path, format=format)
    with pytest.raises(DatasetError, match="holds no annotations in VOC XML"):
        load_dataset(tmp_path, format="voc")


@pytest.mark.parametrize("name", ["set.zip", "SET.ZIP", "set.tar", "set.tar.gz", "set.tgz", "a.7z"])
def test_an_archive_is_to_be_unpacked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK")
    for format in (None, "coco"):
        with pytest.raises(DatasetError, match=f"{name}: is an archive; unpack it, and give"):
            load_dataset(tmp_path / name, format=format)
    with pytest.raises(DatasetError, match=f"holds no data set, but an archive; unpack {name}"):
        load_dataset(tmp_path)


def test_paths_and_options_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="gone: no such file or folder"):
        load_dataset(tmp_path / "gone")
    with pytest.raises(DatasetError, match="no format 'xml'; formats: voc"):
        load_dataset(tmp_path, format="xml")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DatasetError, match=r"notes\.txt: is not an annotation file"):
        load_dataset(tmp_path / "notes.txt")
    (tmp_path / "boxes.csv").write_text("a.jpg,1,2,30,40,cat")
    with pytest.raises(DatasetError, match="CSV has no use for --year; omit it"):
        load_dataset(tmp_path / "boxes.csv", year=2007)
    (tmp_path / "boxes.csv").unlink()
    made_voc.labelimg(tmp_path)
    with pytest.raises(DatasetError, match="VOC"):
        load_dataset(tmp_path, year=2007)
    with pytest.raises(DatasetError, match="no split 'train'; it has no splits: name none"):
        load_dataset(tmp_path, "train")
