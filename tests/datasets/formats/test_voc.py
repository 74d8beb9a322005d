"""VOC XML as other tools lay it out and write it: opened, or named in one line."""

from __future__ import annotations

import xml.etree.ElementTree as StdTree
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sppdet.core.errors import DatasetError, SppdetError
from sppdet.core.types import Dataset
from sppdet.datasets import VOC_CLASSES
from sppdet.datasets.load import describe, load_dataset, read_dataset
from sppdet.datasets.raw import (
    BAD_OBJECT,
    BROKEN_ANNOTATION,
    CLIPPED,
    DUPLICATE,
    EMPTY_BOX,
    MISSING_IMAGE,
    NO_ANNOTATION,
    NO_OBJECTS,
    NOT_LISTED,
    ONE_PIXEL,
    OUTSIDE,
    REPEATED_CLASS,
    SIMILAR_NAMES,
    STATED_SIZE,
    UNKNOWN_CLASS,
    UNREADABLE_IMAGE,
    Findings,
)
from sppdet.datasets.voc_xml import VocObject, format_annotation
from tests.helpers import made_voc
from tests.helpers.made_voc import (
    CAT,
    DOG,
    HEIGHT,
    WIDTH,
    annotation,
    make_devkit,
    write_image,
    write_pair,
    write_split,
)

BOXES = [[20, 20, 80, 90], [90, 30, 150, 100]]
THREE = ("train", "val", "test")


def load(root: Path, split: str | None = None, **options: object) -> tuple[Dataset, Findings]:
    findings = Findings()
    return load_dataset(root, split, findings=findings, **options), findings  # type: ignore[arg-type]


def load_text(root: Path, text: str | bytes) -> tuple[Dataset, Findings]:
    write_pair(root / "a.jpg", root / "a.xml", text=text)
    return load(root, max_lost=1.0)


@pytest.mark.parametrize(
    ("make", "splits", "images"),
    [
        (made_voc.voc_devkit, ("train", "val", "test", "trainval"), 3),
        (made_voc.without_lists, (), 3),
        (made_voc.two_folders, (), 3),
        (made_voc.images_at_the_top, (), 3),
        (made_voc.labelimg, (), 3),
        (made_voc.roboflow, ("train", "valid", "test"), 3),
        (made_voc.folders_in_splits, THREE, 3),
        (made_voc.splits_in_folders, THREE, 3),
        (made_voc.splits_of_images, THREE, 3),
        (made_voc.tensorflow, ("train", "test"), 3),
        (made_voc.cvat, ("default",), 3),
    ],
)
@pytest.mark.parametrize("above", ["", "data", "download/data"])
def test_layouts_open_by_their_path_alone(
    tmp_path: Path,
    make: Callable[[Path], None],
    splits: tuple[str, ...],
    images: int,
    above: str,
) -> None:
    if above == "download/data" and make is made_voc.voc_devkit:
        above = "data"  # VOC2007 itself lies two folders down
    make(tmp_path / "pets" / above)
    root = tmp_path / "pets"
    raw = read_dataset(root, Findings())
    assert raw.splits == splits
    title = "VOC XML (CVAT's: boxes from 0)" if make is made_voc.cvat else "VOC XML"
    assert describe(raw).startswith(f"{title}, {images} images, {2 * images} boxes, ")
    data, findings = load(root)
    assert findings.lines() == []
    assert len(data) == images
    assert len({sample.image_id for sample in data}) == images
    if make is made_voc.voc_devkit:
        assert data.classes == VOC_CLASSES
    else:
        assert data.classes == (("dog", "cat") if make is made_voc.cvat else ("cat", "dog"))
    for sample in data:
        assert sample.path.is_file()
        assert sample.boxes.tolist() == BOXES
        assert [data.classes[k] for k in sample.labels] == ["cat", "dog"]
    parts = [load(root, split)[0] for split in splits if split != "trainval"]
    if parts:
        assert sum(len(part) for part in parts) == images
        paths = {sample.path for part in parts for sample in part}
        assert paths == {sample.path for sample in data}


def test_ids_of_cvat_are_paths(tmp_path: Path) -> None:
    made_voc.cvat(tmp_path)
    assert [s.image_id for s in load(tmp_path)[0]] == ["sub/a", "sub/b", "c"]


def test_a_list_of_names_alone_is_not_cvat_s(tmp_path: Path) -> None:
    made_voc.labelimg(tmp_path)
    for text, first in (("cat\ndog\n", 20), ("# a:b:c:d\ncat\ndog\n", 20), ("cat:1,2,3::\r\n", 21)):
        (tmp_path / "labelmap.txt").write_text(text)
        data, _ = load(tmp_path, classes=["cat"])
        assert {sample.boxes[0, 0] for sample in data} == {first}
        assert {sample.boxes[0, 2] for sample in data} == {80}


# VOC's own devkit.


def test_roots_that_name_the_same_devkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    above = tmp_path / "data"
    folder = make_devkit(above / "VOCdevkit" / "VOC2007", {"train": "ab"})
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    for root in (folder, above / "VOCdevkit", above, Path(), tmp_path / "link"):
        for year in (None, 2007):
            data, findings = load(root, "train", year=year)
            assert (data.name, data.classes) == ("VOC2007 train", VOC_CLASSES)
            assert [sample.image_id for sample in data] == ["a", "b"]
            assert not len(findings)
    with pytest.raises(DatasetError, match="is not VOC 2012; name its parent folder"):
        load(folder, "train", year=2012)


def test_years_are_listed_where_none_or_several_fit(tmp_path: Path) -> None:
    for year in ("VOC2007", "VOC2012"):
        make_devkit(tmp_path / year, {"train": "ab", "val": "c"})
    with pytest.raises(DatasetError, match="several years; choose year 2007 or 2012"):
        load(tmp_path)
    with pytest.raises(DatasetError, match="has no VOC2010; choose year 2007 or 2012"):
        load(tmp_path, year=2010)
    data, _ = load(tmp_path, "train", year=2012)
    assert (data.name, len(data)) == ("VOC2012 train", 2)
    with pytest.raises(DatasetError, match="is not VOC 2012"):
        load(tmp_path / "VOC2007", year=2012)


def test_lists_per_class(tmp_path: Path) -> None:
    root = make_devkit(tmp_path / "VOC2007", {"train": "ab", "val": ["b", "c d", "a"]})
    write_split(root, "dog_train", "a  1\nb -1\n")
    write_split(root, "dog_val", "b  1\na -1\nc d\n")
    write_split(root, "cat_val", "a -1\n")
    assert read_dataset(root, Findings()).splits == ("train", "val")
    assert [sample.image_id for sample in load(root, "dog_train")[0]] == ["a"]
    assert [sample.image_id for sample in load(root, "dog_val")[0]] == ["b", "c d"]
    with pytest.raises(DatasetError, match="no split 'tset'; splits that exist: train, val"):
        load(root, "tset")
    with pytest.raises(DatasetError, match=r"cat_val\.txt: the split lists no images"):
        load(root, "cat_val")


def test_images_without_objects_are_kept(tmp_path: Path) -> None:
    root = tmp_path / "VOC2007"
    write_pair(root / "JPEGImages" / "a.jpg", root / "Annotations" / "a.xml", text=annotation())
    write_split(root, "train", "a")
    data, findings = load(root, "train", strict=True)
    (sample,) = data
    assert data.classes == VOC_CLASSES
    assert (sample.boxes.shape, sample.labels.shape) == ((0, 4), (0,))
    assert not len(findings)


def test_classes_are_the_twenty_in_order() -> None:
    assert len(VOC_CLASSES) == 20
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)


def test_whole_sample(tmp_path: Path) -> None:
    root = make_devkit(tmp_path / "VOC2007", {"train": "a"})
    text = annotation(("dog", "1 1 1 1"), ("cat", "11 5 160 120"))
    text = text.replace("<name>cat", "<difficult>1</difficult><name>cat")
    (root / "Annotations" / "a.xml").write_text(text)
    (sample,) = load(root, "train")[0]
    assert (sample.image_id, sample.path) == ("a", root / "JPEGImages" / "a.jpg")
    assert (sample.width, sample.height) == (WIDTH, HEIGHT)
    assert sample.boxes.dtype == np.float32
    assert sample.boxes.tolist() == [[0, 0, 1, 1], [10, 4, 160, 120]]
    assert [VOC_CLASSES[n] for n in sample.labels] == ["dog", "cat"]
    assert sample.difficult.tolist() == [False, True]


@pytest.mark.parametrize(
    ("name", "advice"),
    [("aeroplan", "; did you mean 'aeroplane'?"), ("Dog", "; did you mean 'dog'?"), ("zzz", "")],
)
def test_classes_that_voc_has_not_are_told_with_the_nearest(
    tmp_path: Path, name: str, advice: str
) -> None:
    root = make_devkit(tmp_path / "VOC2007", {"train": "a"})
    path = root / "Annotations" / "a.xml"
    path.write_text(annotation(CAT, (name, "1 1 9 9"), *[CAT] * 9))
    data, findings = load(root, "train")
    assert (data.classes, len(data.samples[0].labels)) == (VOC_CLASSES, 10)
    (found,) = findings.of(UNKNOWN_CLASS)
    assert (found.path, found.message) == (path, f"object 2 ({name}){advice}")
    with pytest.raises(SppdetError, match=r"correct it \(strict\)"):
        load(root, "train", strict=True)


def test_lists_that_are_empty_or_repeat(tmp_path: Path) -> None:
    root = make_devkit(tmp_path / "VOC2007", {"train": "ab", "val": ""})
    path = write_split(root, "val", "\n \n")
    assert read_dataset(root, Findings()).splits == ("train",)
    with pytest.raises(DatasetError, match=r"val\.txt: the split lists no images; write one id"):
        load(root, "val")
    path.write_text("a\nb\na\n")
    with pytest.raises(SppdetError, match=r"val\.txt: lists a 2 times .*\(strict\)"):
        load(root, "val", strict=True)


@pytest.mark.parametrize("folder", ["VOC2007", "mine"])
def test_lists_of_ones_own(tmp_path: Path, folder: str) -> None:
    """They may name images of any split and of none; what is wrong with others is not theirs."""
    root = make_devkit(tmp_path / folder, {"train": "ab", "val": "cd", "": "ef"})
    (root / "Annotations" / "b.xml").write_text("<annotation>")
    clipped = annotation(("cat", "1 1 200 200"))
    (root / "Annotations" / "d.xml").write_text(clipped)
    (root / "Annotations" / "f.xml").write_text(clipped)
    mine = tmp_path / "train.txt"
    mine.write_text("e\na.jpg\nc\n")
    data, findings = load(root, str(mine), strict=True)
    assert data.name == f"{folder} train"
    assert [sample.image_id for sample in data] == ["e", "a", "c"]
    assert findings.lines() == []
    mine.write_text("e\nf\n")
    assert [one.path.stem for one in load(root, str(mine))[1].of(CLIPPED)] == ["f"]
    mine.write_text("e\nb\n")
    with pytest.raises(DatasetError, match="lists b, which is no image of the data set"):
        load(root, str(mine))
    mine.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DatasetError, match=r"train\.txt: the split cannot be read"):
        load(root, str(mine))


def test_own_classes_in_a_folder_that_is_called_as_vocs(tmp_path: Path) -> None:
    root = make_devkit(tmp_path / "VOC2012", {"train": "a", "val": "b"})
    for name in "ab":
        (root / "Annotations" / f"{name}.xml").write_text(annotation(("raccoon", "1 1 9 9")))
    data, findings = load(root, "val")
    assert data.classes == ("raccoon",)
    assert not len(findings)


def test_real_images_agree_with_an_independent_reading(voc_root: Path) -> None:
    """Every 50th annotation against Python's own XML reader."""
    data = load_dataset(voc_root, "val", strict=True)
    assert (data.name, data.classes) == ("VOC2007 val", VOC_CLASSES)
    listed = (voc_root / "ImageSets" / "Main" / "val.txt").read_text().split()
    assert [sample.image_id for sample in data] == listed
    for sample in data.samples[::50]:
        tree = StdTree.parse(voc_root / "Annotations" / f"{sample.image_id}.xml")
        corners = [
            [int(box.findtext(tag) or "") for tag in ("xmin", "ymin", "xmax", "ymax")]
            for box in tree.iterfind("object/bndbox")
        ]
        np.testing.assert_array_equal(sample.boxes, np.array(corners).reshape(-1, 4) - [1, 1, 0, 0])
        names = [node.text for node in tree.iterfind("object/name")]
        assert [data.classes[n] for n in sample.labels] == names
        difficult = [node.findtext("difficult") == "1" for node in tree.iterfind("object")]
        assert sample.difficult.tolist() == difficult
        with Image.open(sample.path) as image:
            assert image.size == (sample.width, sample.height)


def test_playing_cards(sets_root: Path) -> None:
    """A set of XML and CSV beside images, two folders down, `.JPG` and `.jpg`."""
    raw = read_dataset(sets_root / "cards", Findings())
    assert describe(raw) == (
        "VOC XML, 363 images, 670 boxes, 6 classes: ace, jack, king, nine, queen, ten; "
        "splits: train, test"
    )
    for split, images, boxes in (("train", 296, 527), ("test", 67, 143)):
        data, findings = load(sets_root / "cards", split)
        assert (data.name, len(data)) == (f"cards {split}", images)
        assert sum(len(sample.labels) for sample in data) == boxes
        assert findings.lines() == []


# Boxes that leave their image.


@pytest.mark.parametrize(
    ("box", "kind", "want"),
    [
        ("1 1 163 120", CLIPPED, [[0, 0, 160, 120]]),
        ("-3 1 80 90", CLIPPED, [[0, 0, 80, 90]]),
        ("1 1 161 121", None, [[0, 0, 160, 120]]),
        ("1 1 1e9 120", CLIPPED, [[0, 0, 160, 120]]),
        ("80 21 21 90", EMPTY_BOX, []),
        ("21 21 20 90", EMPTY_BOX, []),
        ("nan 21 80 90", EMPTY_BOX, []),
        ("1 1 inf 90", EMPTY_BOX, []),
        ("200 21 280 90", OUTSIDE, []),
        ("1 -90 20 0", OUTSIDE, []),
        ("x 1 20 20", BAD_OBJECT, []),
    ],
)
def test_boxes_are_clipped_or_left_out_and_counted(
    tmp_path: Path, box: str, kind: str | None, want: list[list[float]]
) -> None:
    data, findings = load_text(tmp_path, annotation(CAT, ("cat", box), CAT))
    assert data.samples[0].boxes.tolist() == [BOXES[0], *want, BOXES[0]]
    assert dict(findings.counts()) == ({kind: 1} if kind else {})
    if kind:
        assert "object 2" in findings.all[0].message
        assert findings.all[0].path == tmp_path / "a.xml"
        with pytest.raises(SppdetError, match=r"a\.xml: object 2.*; correct it \(strict\)"):
            load(tmp_path, strict=True)


# Ids that end in a number; lists as others write them.


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        (["cam -1", "cam 5"], "cam -1\ncam 5\n"),
        (["IMG 0", "IMG 1", "IMG 2"], "IMG 0\nIMG 1\nIMG 2\n"),
        (["night 1"], "night 1\n"),
        (["a b 1", "c  -1"], "a b 1\r\nc  -1\r\n"),
        (["1", "-1", "0"], "1\n-1\n0\n"),
        (["a", "b"], "\ufeffa\n\n  b  \n"),
        (["a", "b"], "a.jpg\nJPEGImages/b.jpg\n"),
        (["a", "b"], "/data/x/a.jpg\nC:\\data\\b.jpg\n"),
    ],
)
def test_lines_of_split_lists(tmp_path: Path, ids: list[str], text: str) -> None:
    make_devkit(tmp_path, {"": ids})
    write_split(tmp_path, "train", text)
    data, findings = load(tmp_path, "train")
    assert [sample.image_id for sample in data] == ids
    assert findings.lines() == []


def test_listed_twice_and_not_there(tmp_path: Path) -> None:
    ids = [f"{n:02}" for n in range(20)]
    make_devkit(tmp_path, {"": ids})
    path = write_split(tmp_path, "train", [*ids, "05", "../secret"])
    data, findings = load(tmp_path, "train")
    assert [sample.image_id for sample in data] == ids
    assert dict(findings.counts()) == {DUPLICATE: 1, NOT_LISTED: 1}
    assert {one.path for one in findings.all} == {path}
    write_split(tmp_path, "train", ["01", "x", "y"])
    with pytest.raises(DatasetError, match=r"2 of 3 images cannot be used.*train\.txt: lists x"):
        load(tmp_path, "train")


def test_a_broken_file_counts_in_its_own_splits_alone(tmp_path: Path) -> None:
    make_devkit(tmp_path, {"train": "ab", "val": "c", "trainval": "abc"})
    (tmp_path / "Annotations" / "b.xml").write_text("<annotation><object>")
    assert not len(load(tmp_path, "val")[1])
    for split, count in (("train", 2), ("trainval", 3), (None, 3)):
        with pytest.raises(DatasetError, match=f"1 of {count} images cannot be used"):
            load(tmp_path, split)
        data, findings = load(tmp_path, split, max_lost=0.5)
        assert len(data) == count - 1
        assert dict(findings.counts()) == {BROKEN_ANNOTATION: 1}


# Values that other tools write.


@pytest.mark.parametrize("size", [("160.0", "120.0"), (0, 0), ("", ""), ("many", "x"), ("nan", 1)])
def test_sizes_of_any_kind(tmp_path: Path, size: tuple[object, object]) -> None:
    data, findings = load_text(tmp_path, annotation(CAT, size=size))
    assert (data.samples[0].width, data.samples[0].height) == (WIDTH, HEIGHT)
    assert findings.lines() == []


def test_a_size_that_is_wrong_is_not_used(tmp_path: Path) -> None:
    data, findings = load_text(tmp_path, annotation(CAT, size=(1600, 1200)))
    assert (data.samples[0].width, data.samples[0].height) == (WIDTH, HEIGHT)
    assert dict(findings.counts()) == {STATED_SIZE: 1}
    assert findings.all[0].message == "is 160x120, but a.xml says 1600x1200"


@pytest.mark.parametrize("name", ["a.Jpg", "a.JPG", "a.jpeg", "a.Png", "a.webp", "A.jpg"])
def test_endings_of_image_names(tmp_path: Path, name: str) -> None:
    write_pair(tmp_path / "im" / name, tmp_path / "xml" / "a.xml")
    assert load(tmp_path)[0].samples[0].path == tmp_path / "im" / name


@pytest.mark.parametrize(
    ("filename", "image"),
    [
        ("photo 7.jpg", "photo 7.jpg"),
        ("C:\\me\\photo 7.jpg", "photo 7.jpg"),
        ("photo 7", "photo 7.jpg"),
        ("photo 7.png", "photo 7.jpg"),
        ("../im/photo 7.jpg", "photo 7.jpg"),
    ],
)
def test_images_of_another_name_are_found_by_what_is_stated(
    tmp_path: Path, filename: str, image: str
) -> None:
    text = annotation(CAT, filename=filename)
    write_pair(tmp_path / "im" / image, tmp_path / "xml" / "0001.xml", text=text)
    (sample,) = load(tmp_path)[0]
    assert (sample.image_id, sample.path.name) == ("0001", image)


@pytest.mark.parametrize(
    "name", ["{}/secret.jpg", "../secret.jpg", "x/../../../secret.jpg", "..\\secret.jpg"]
)
def test_file_names_do_not_lead_out_of_the_data_set(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / "secret.jpg")
    root = tmp_path / "set"
    text = annotation(CAT, filename=name.format(tmp_path))
    write_pair(root / "im" / "b.jpg", root / "xml" / "b.xml")
    write_pair(root / "im" / "a.jpg", root / "xml" / "a.xml", text=text)
    (root / "im" / "a.jpg").unlink()
    data, findings = load(root, max_lost=0.5)
    assert [sample.image_id for sample in data] == ["b"]
    assert dict(findings.counts()) == {MISSING_IMAGE: 1}
    assert findings.all[0].path == root / "im" / "a.jpg"


@pytest.mark.parametrize(
    ("encoding", "declared"),
    [
        ("gbk", "gbk"),
        ("gb18030", "GB18030"),
        ("big5", "Big5"),
        ("utf-8", "gbk"),
        ("utf-8-sig", "utf-8"),
        ("utf-8-sig", ""),
        ("utf-16", "utf-16"),
        ("iso-8859-1", "ISO-8859-1"),
    ],
)
def test_encodings(tmp_path: Path, encoding: str, declared: str) -> None:
    name = "\u00e9t\u00e9" if encoding.startswith("iso") else "\u8c93"
    if encoding in ("gbk", "gb18030"):
        name = "\u732b"
    head = f'<?xml version="1.0" encoding="{declared}"?>\n' if declared else ""
    data, findings = load_text(tmp_path, annotation((name, "1 1 9 9"), head=head).encode(encoding))
    if (encoding, declared) != ("utf-8", "gbk"):
        assert data.classes == (name,)
    assert len(data) == 1
    assert findings.lines() == []


def test_bytes_that_are_not_the_encoding_that_is_declared(tmp_path: Path) -> None:
    text = annotation(CAT, filename="\u00e9t\u00e9.jpg", head='<?xml version="1.0"?>')
    assert load_text(tmp_path, text.encode("latin-1"))[0].classes == ("cat",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("<annotation>", "broken XML"),
        ('<!DOCTYPE a [<!ENTITY e "x">]><annotation>&e;</annotation>', "DOCTYPE or entities"),
        ('<?xml version="1.0" encoding="punycode"?><annotation/>', "broken XML"),
        ('<?xml version="1.0" encoding="unicode_escape"?><annotation/>', "broken XML"),
    ],
)
def test_files_that_cannot_be_read_are_left_out_by_name(
    tmp_path: Path, text: str, message: str
) -> None:
    for n in range(10):
        write_pair(tmp_path / f"{n}.jpg", tmp_path / f"{n}.xml")
    write_pair(tmp_path / "bad.jpg", tmp_path / "bad.xml", text=text)
    data, findings = load(tmp_path)
    assert len(data) == 10
    # Once: the image that it should annotate is not named too.
    (found,) = findings.all
    assert found.kind == BROKEN_ANNOTATION
    assert found.path == tmp_path / "bad.xml"
    assert message in found.message


def test_images_without_a_file_and_unreadable_ones(tmp_path: Path) -> None:
    for n in range(12):
        write_pair(tmp_path / f"{n}.jpg", tmp_path / f"{n}.xml")
    write_image(tmp_path / "later.jpg")
    (tmp_path / "3.jpg").write_bytes(b"no image")
    data, findings = load(tmp_path)
    assert len(data) == 11
    assert dict(findings.counts()) == {NO_ANNOTATION: 1, UNREADABLE_IMAGE: 1}
    assert findings.all[0].path == tmp_path / "later.jpg"


def test_boxes_of_one_pixel_s_width_are_kept_and_noted(tmp_path: Path) -> None:
    boxes = [("cat", box) for box in ("5 5 5 50", "5 9 50 9", "7 7 7 7", "5 5 6 6")]
    data, findings = load_text(tmp_path, annotation(*boxes))
    (sample,) = data
    assert len(sample.labels) == 4
    assert sample.boxes[0].tolist() == [4, 4, 5, 50]
    assert findings.counts() == {ONE_PIXEL: 3}
    assert findings.wrong() == []
    assert findings.all[0].message == "object 1 (cat)"


def test_flags_and_parts(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    text = annotation(CAT, DOG).replace("<name>cat", f"{part}<difficult>1</difficult><name>cat")
    text = text.replace("<name>dog", "<difficult>Unspecified</difficult><name>dog")
    (sample,) = load_text(tmp_path, text)[0]
    assert sample.boxes.tolist() == BOXES
    assert sample.difficult.tolist() == [True, False]


# Classes.


def test_class_lists_beside_the_data(tmp_path: Path) -> None:
    made_voc.labelimg(tmp_path)
    path = tmp_path / "classes.txt"
    path.write_text("\ufeffdog\r\ncat\r\ncat\r\nbird\r\n", encoding="utf-8")
    data, findings = load(tmp_path)
    assert data.classes == ("dog", "cat")
    assert dict(findings.counts()) == {REPEATED_CLASS: 1, NO_OBJECTS: 1}
    assert findings.all[0].path == path
    path.write_text("cat\n")
    with pytest.raises(DatasetError, match=r"3 of 6 objects cannot be used .*object 2 \(dog\)"):
        load(tmp_path)
    path.write_text("\n")
    with pytest.raises(DatasetError, match=r"classes\.txt: names no class"):
        load(tmp_path)
    with pytest.raises(DatasetError, match=r"classes\.txt: names no class"):
        load_dataset(tmp_path, classes=["cat"])


def test_names_are_trimmed_and_likely_slips_named(tmp_path: Path) -> None:
    objects = [(name, "1 1 9 9") for name in (" cat ", "cat", "Cat", "hot dog", "hotdog")]
    data, findings = load_text(tmp_path, annotation(*objects))
    assert data.classes == ("Cat", "cat", "hot dog", "hotdog")
    assert dict(findings.counts()) == {SIMILAR_NAMES: 2}
    assert "'Cat' and 'cat'" in findings.all[0].message


def test_classes_that_are_asked_for(tmp_path: Path) -> None:
    made_voc.labelimg(tmp_path)
    data, findings = load(tmp_path, classes=["dog", "cat"])
    assert [sample.labels.tolist() for sample in data] == [[1, 0]] * 3
    data, findings = load(tmp_path, classes=["dog"])
    assert data.classes == ("dog",)
    assert [len(sample.labels) for sample in data] == [1, 1, 1]
    for name, hint in (("Cat", "did you mean 'cat'"), ("dgo", "did you mean 'dog'")):
        with pytest.raises(DatasetError, match=f"no object has the class {name!r}; {hint}"):
            load(tmp_path, classes=["cat", name])
    with pytest.raises(DatasetError, match="'racoon'; classes with objects: cat, dog"):
        load(tmp_path, classes=["racoon"])
    data, findings = load(tmp_path, classes=["racoon", "dog"], allow_missing=True)
    assert data.classes == ("racoon", "dog")
    assert "no object has 'racoon'" in [one.message for one in findings.all]


# Laws.

_SIDE = st.integers(0, 8 * 100).map(lambda n: n / 8)


@given(
    st.lists(
        st.tuples(st.sampled_from(["dog", "a & b", "<x>"]), _SIDE, _SIDE, _SIDE, _SIDE), max_size=5
    )
)
@settings(max_examples=40, deadline=None)
def test_written_boxes_are_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    items: list[tuple[str, float, float, float, float]],
) -> None:
    objects = [
        VocObject(name, (min(a, c), min(b, d), max(a, c) + 1, max(b, d) + 1))
        for name, a, b, c, d in items
    ]
    objects.append(VocObject("dog", (0, 0, 1, 1)))
    root = tmp_path_factory.mktemp("round")
    write_pair(root / "a.jpg", root / "a.xml", text=format_annotation("", "", 160, 120, objects))
    data, findings = load(root)
    (sample,) = data
    assert findings.counts().keys() <= {SIMILAR_NAMES, ONE_PIXEL}
    assert [data.classes[k] for k in sample.labels] == [item.name for item in objects]
    assert sample.boxes.tolist() == [list(item.box) for item in objects]


@given(st.integers(0, 2**32), st.integers(1, 12))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_files_give_a_data_set_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, seed: int, changes: int
) -> None:
    rng = np.random.default_rng(seed)
    head = '<?xml version="1.0" encoding="gbk"?>' if seed % 2 else ""
    data = bytearray(annotation(CAT, DOG, head=head).encode())
    for _ in range(changes):
        place = int(rng.integers(len(data)))
        what = int(rng.integers(4))
        if what == 0:
            data[place] = int(rng.integers(256))
        elif what == 1:
            del data[place : place + int(rng.integers(1, 9))]
        elif what == 2:
            data[place:place] = data[place : place + 40]
        else:
            data[place:place] = bytes(rng.integers(48, 58, 12).tolist())
    root = tmp_path_factory.mktemp("mutated")
    write_pair(root / "a.jpg", root / "a.xml", text=bytes(data))
    with suppress(SppdetError):
        assert len(load(root, max_lost=1.0)[0]) <= 1


def test_annotations_without_their_images(tmp_path: Path) -> None:
    made_voc.make_devkit(tmp_path / "set", {"default": "abc"})
    root, images = tmp_path / "set", tmp_path / "photos"
    (root / "JPEGImages").rename(images)
    findings = Findings()
    with pytest.raises(DatasetError, match="name the folder of the images with --images"):
        load_dataset(root, findings=findings)
    assert {one.path.parent for one in findings.of(MISSING_IMAGE)} == {root / "JPEGImages"}
    found = Findings()
    dataset = load_dataset(root, images=images, findings=found)
    assert not len(found)
    assert [sample.path for sample in dataset] == [images / f"{name}.jpg" for name in "abc"]
    with pytest.raises(DatasetError, match="no such folder of images"):
        load_dataset(root, images=tmp_path / "nowhere")
