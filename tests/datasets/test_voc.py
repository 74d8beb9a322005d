"""The VOC reader: conversion done once, and every kind of bad annotation named."""

from __future__ import annotations

import xml.etree.ElementTree as StdTree
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sppdet.core.errors import AnnotationError, DatasetError, ImageError
from sppdet.datasets import VOC_CLASSES, load_voc, voc_folder, voc_splits
from sppdet.datasets.annotations import OUTSIDE_TOLERANCE
from sppdet.datasets.voc_xml import VocObject, format_annotation, read_annotation

WIDTH, HEIGHT = 50, 40


def obj(name: str = "dog", box: str = "1 1 50 40", extra: str = "") -> str:
    corners = zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=True)
    inner = "".join(f"<{tag}>{value}</{tag}>" for tag, value in corners)
    return f"<object><name>{name}</name>{extra}<bndbox>{inner}</bndbox></object>"


def xml(
    *objects: str, size: str = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
) -> str:
    return f"<annotation>{size}{''.join(objects)}</annotation>"


class Devkit:
    """A data set folder under test, filled file by file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (folder / name).mkdir(parents=True)

    def add(self, image_id: str, text: str, suffix: str = ".jpg") -> Path:
        image = self.folder / "JPEGImages" / f"{image_id}{suffix}"
        Image.new("RGB", (WIDTH, HEIGHT)).save(image)
        path = self.folder / "Annotations" / f"{image_id}.xml"
        path.write_text(text, encoding="utf-8")
        return path

    def split(self, name: str, text: str) -> None:
        (self.folder / "ImageSets" / "Main" / f"{name}.txt").write_text(text, encoding="utf-8")


@pytest.fixture
def devkit(tmp_path: Path) -> Devkit:
    kit = Devkit(tmp_path / "VOC2007")
    kit.split("train", "a\n")
    return kit


def load_one(
    kit: Devkit, text: str, **options: bool
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    kit.add("a", text)
    (sample,) = load_voc(kit.folder, "train", **options)  # type: ignore[arg-type]
    return sample.boxes


def assert_refused(kit: Devkit, text: str, message: str) -> None:
    kit.add("a", text)
    with pytest.raises(AnnotationError, match=message) as caught:
        load_voc(kit.folder, "train")
    assert caught.value.path == str(kit.folder / "Annotations" / "a.xml")
    assert caught.value.hint


def test_image_without_objects_is_kept(devkit: Devkit) -> None:
    devkit.add("a", xml())
    data = load_voc(devkit.folder, "train")
    assert len(data) == 1
    assert data.samples[0].boxes.shape == (0, 4)
    assert data.samples[0].labels.shape == (0,)
    assert data.classes == VOC_CLASSES
    assert data.name == "VOC2007 train"


def test_classes_are_the_twenty_in_order() -> None:
    assert len(VOC_CLASSES) == 20
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)


def test_whole_sample(devkit: Devkit) -> None:
    devkit.add(
        "a", xml(obj("dog", "1 1 1 1"), obj("cat", "11 5 50 40", "<difficult>1</difficult>"))
    )
    (sample,) = load_voc(devkit.folder, "train")
    assert sample.image_id == "a"
    assert sample.path == devkit.folder / "JPEGImages" / "a.jpg"
    assert (sample.width, sample.height) == (WIDTH, HEIGHT)
    assert sample.boxes.dtype == np.float32
    assert sample.boxes.tolist() == [[0, 0, 1, 1], [10, 4, 50, 40]]
    assert [VOC_CLASSES[n] for n in sample.labels] == ["dog", "cat"]
    assert sample.difficult.tolist() == [False, True]


coordinate = st.integers(0, 400).map(lambda n: n / 8)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["dog", "a & b", "<x>", "猫"]),
            *(coordinate,) * 4,
            st.booleans(),
            st.booleans(),
        ),
        max_size=4,
    )
)
@settings(max_examples=60, deadline=None)
def test_writing_then_reading_gives_the_same_objects(
    tmp_path_factory: pytest.TempPathFactory,
    items: list[tuple[str, float, float, float, float, bool, bool]],
) -> None:
    objects = tuple(
        VocObject(name, (min(a, c), min(b, d), max(a, c), max(b, d)), *flags)
        for name, a, b, c, d, *flags in items
    )
    path = tmp_path_factory.mktemp("round") / "a.xml"
    path.write_text(format_annotation("set", "a.jpg", 50, 40, objects), encoding="utf-8")
    back = read_annotation(path)
    assert back.objects == objects
    assert (back.filename, back.width, back.height) == ("a.jpg", 50, 40)


def test_written_corners_are_one_based_and_inclusive() -> None:
    text = format_annotation("set", "a.jpg", 50, 40, [VocObject("dog", (0.0, 4.0, 10.0, 40.0))])
    box = StdTree.fromstring(text).find("object/bndbox")
    assert box is not None
    assert [node.text for node in box] == ["1", "5", "10", "40"]


def test_fractions_and_missing_optional_fields(devkit: Devkit) -> None:
    boxes = load_one(devkit, xml(obj("dog", "45.70000076293945 1.5 49.25 3"), size=""))
    np.testing.assert_allclose(boxes, [[44.7, 0.5, 49.25, 3]], rtol=1e-6)


@pytest.mark.parametrize("size", ["", "<size/>", "<size><width>0</width><height>0</height></size>"])
def test_size_is_looked_up_where_the_file_lacks_it(devkit: Devkit, size: str) -> None:
    devkit.add("a", xml(size=size))
    (sample,) = load_voc(devkit.folder, "train")
    assert (sample.width, sample.height) == (WIDTH, HEIGHT)


def test_boxes_of_parts_are_not_the_objects(devkit: Devkit) -> None:
    part = obj("head", "3 3 4 4").replace("object>", "part>")
    assert load_one(devkit, xml(obj("person", "2 2 9 9", part))).tolist() == [[1, 1, 9, 9]]


def test_outside_by_rounding_is_clipped(devkit: Devkit) -> None:
    assert OUTSIDE_TOLERANCE == 1
    boxes = load_one(devkit, xml(obj("dog", "0 0 51 41"), obj("dog", "0.5 1 50.6 40")))
    assert boxes.tolist() == [[0, 0, 50, 40]] * 2


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([obj(box="1 1 52 40")], r"object 1 \(dog\) has a box outside its 50x40 image"),
        ([obj(box="-1 1 20 40")], r"object 1 \(dog\) has a box outside"),
        ([obj(), obj(box="51 1 51 40")], r"object 2 \(dog\) has a box outside"),
        ([obj(), obj(), obj("cat", "9 1 3 40")], r"object 3 \(cat\) has an inverted or empty box"),
        ([obj(box="1 30 20 10")], r"object 1 \(dog\) has an inverted"),
        ([obj(box="nan 1 20 40")], r"object 1 \(dog\) has a coordinate that is not finite"),
        ([obj(box="1 1 inf 40")], "not finite"),
        (
            [obj(box="one 1 20 40")],
            r"object 1 \(dog\): <xmin> should hold a number, but holds 'one'",
        ),
        (["<object><name>dog</name></object>"], r"object 1 \(dog\) has no <bndbox>"),
        (["<object><name> </name></object>"], "object 1 has no <name>"),
        (
            ["<object><name>dog</name><bndbox/></object>"],
            "<xmin> should hold .*, but holds nothing",
        ),
    ],
)
def test_bad_objects_are_named_by_number(devkit: Devkit, objects: list[str], message: str) -> None:
    assert_refused(devkit, xml(*objects), message)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("aeroplan", "did you mean 'aeroplane'"),
        ("Dog", "did you mean 'dog'"),
        ("zzz", r"add it to the classes \(aeroplane, bicycle"),
    ],
)
def test_unknown_class_names_the_nearest(devkit: Devkit, name: str, advice: str) -> None:
    assert_refused(
        devkit, xml(obj(), obj(name)), f"object 2 has the unknown class '{name}'; {advice}"
    )


def test_unknown_classes_can_be_left_out(devkit: Devkit) -> None:
    devkit.add("a", xml(obj("zebra", "1 1 5 5"), obj("cat", "2 2 9 9"), obj("dog", "3 3 9 9")))
    data = load_voc(devkit.folder, "train", classes=["dog", "cat"], ignore_unknown=True)
    assert data.classes == ("dog", "cat")
    assert data.samples[0].labels.tolist() == [1, 0]
    assert data.samples[0].boxes[:, 0].tolist() == [1, 2]


def test_classes_file_of_the_data_set(devkit: Devkit) -> None:
    (devkit.folder / "classes.txt").write_text("zebra\n\n okapi \n", encoding="utf-8")
    devkit.add("a", xml(obj("okapi")))
    data = load_voc(devkit.folder, "train")
    assert data.classes == ("zebra", "okapi")
    assert data.samples[0].labels.tolist() == [1]


@pytest.mark.parametrize("classes", [[], ["dog", ""], ["dog", "dog"], "dog"])
def test_class_lists_that_cannot_be(devkit: Devkit, classes: list[str]) -> None:
    with pytest.raises(DatasetError, match="class"):
        load_voc(devkit.folder, "train", classes=classes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "broken XML"),
        ("<annotation><object>", "broken XML"),
        ("\x00\x01", "broken XML"),
        ('<?xml version="1.0" encoding="no-such"?><annotation/>', "broken XML"),
        ("<html/>", "not a VOC annotation: its root is <html>"),
        ('<!DOCTYPE annotation SYSTEM "x.dtd"><annotation/>', "DOCTYPE or entities"),
        ('<!DOCTYPE a [<!ENTITY e "dog">]><annotation>&e;</annotation>', "DOCTYPE or entities"),
        (
            '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]><annotation>&e;</annotation>',
            "DOCTYPE or entities",
        ),
        (
            "<annotation><size><width>big</width><height>4</height></size></annotation>",
            "the image's <size>: <width> should hold a number, but holds 'big'",
        ),
        (
            f"<annotation><size><width>{'9' * 400}</width></size></annotation>",
            "<width> is beyond any image",
        ),
    ],
)
def test_broken_files(devkit: Devkit, text: str, message: str) -> None:
    assert_refused(devkit, text, message)


def test_missing_annotation_and_image(devkit: Devkit) -> None:
    path = devkit.add("a", xml())
    (devkit.folder / "JPEGImages" / "a.jpg").unlink()
    with pytest.raises(DatasetError, match=r"JPEGImages/a\.jpg: the image of a is missing"):
        load_voc(devkit.folder, "train")
    path.unlink()
    with pytest.raises(AnnotationError, match=r"a\.xml: no such annotation file"):
        load_voc(devkit.folder, "train")


def test_unreadable_image_is_named_where_its_size_is_needed(devkit: Devkit) -> None:
    devkit.add("a", xml(size=""))
    (devkit.folder / "JPEGImages" / "a.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match=r"a\.jpg: is empty"):
        load_voc(devkit.folder, "train")


@pytest.mark.parametrize("suffix", [".png", ".jpeg", ".JPG", ".webp"])
def test_other_image_suffixes(devkit: Devkit, suffix: str) -> None:
    devkit.add("a", xml(), suffix)
    assert load_voc(devkit.folder, "train").samples[0].path.suffix == suffix


def test_file_name_is_used_where_the_id_finds_nothing(devkit: Devkit) -> None:
    devkit.add("a", xml(size="<filename>photo 7.jpg</filename>"))
    images = devkit.folder / "JPEGImages"
    (images / "a.jpg").rename(images / "photo 7.jpg")
    assert load_voc(devkit.folder, "train").samples[0].path == images / "photo 7.jpg"


@pytest.mark.parametrize(
    "name",
    ["../secret.jpg", "x/../../../secret.jpg", "{root}/secret.jpg", "..\\secret.jpg", "C:\\s.jpg"],
)
def test_file_name_cannot_leave_the_data_set(devkit: Devkit, name: str) -> None:
    Image.new("RGB", (WIDTH, HEIGHT)).save(devkit.folder / "secret.jpg")
    name = name.format(root=devkit.folder)
    path = devkit.add("a", xml(size=f"<filename>{name}</filename>"))
    (devkit.folder / "JPEGImages" / "a.jpg").unlink()
    with pytest.raises(AnnotationError, match="leads out of JPEGImages") as caught:
        load_voc(devkit.folder, "train")
    assert caught.value.path == str(path)


def test_ids_cannot_leave_the_data_set(devkit: Devkit) -> None:
    (devkit.folder / "secret.xml").write_text(xml(), encoding="utf-8")
    devkit.split("train", "../secret\n")
    with pytest.raises(AnnotationError, match="leads out of Annotations"):
        load_voc(devkit.folder, "train")


def test_empty_and_repeating_splits(devkit: Devkit) -> None:
    devkit.split("train", "\n \n")
    with pytest.raises(DatasetError, match=r"train\.txt: the split lists no images"):
        load_voc(devkit.folder, "train")
    devkit.split("train", "a\nb\na\n")
    with pytest.raises(DatasetError, match=r"train\.txt: lists a twice"):
        load_voc(devkit.folder, "train")


def test_missing_split_lists_those_that_exist(devkit: Devkit) -> None:
    for name in ("val", "dog_train", "dog_val"):
        devkit.split(name, "a 1\n")
    assert voc_splits(devkit.folder) == ("train", "val")
    with pytest.raises(DatasetError, match="no split 'tset'; splits that exist: train, val"):
        load_voc(devkit.folder, "tset")


def test_order_line_ends_and_marks_of_split_files(devkit: Devkit) -> None:
    for image_id in ("a", "b", "c d"):
        devkit.add(image_id, xml())
    devkit.split("val", "\ufeffb\r\n\r\nc d\r\na\r\n")
    assert [s.image_id for s in load_voc(devkit.folder, "val")] == ["b", "c d", "a"]
    devkit.split("dog_val", "b  1\na -1\nc d\n")
    assert [s.image_id for s in load_voc(devkit.folder, "dog_val")] == ["b", "c d"]


@pytest.mark.parametrize(
    "ids", [["cam -1", "cam 5"], ["IMG 0", "IMG 1", "IMG 2"], ["night 1"], ["1", "-1"]]
)
def test_ids_that_end_in_a_number(devkit: Devkit, ids: list[str]) -> None:
    for image_id in ids:
        devkit.add(image_id, xml())
    devkit.split("train", "\n".join(ids))
    assert [s.image_id for s in load_voc(devkit.folder, "train")] == ids
    # A per-class list alone has flags; the ids in it may end in a number too.
    devkit.split("dog_train", "".join(f"{image_id}  1\n" for image_id in ids) + "gone -1\n")
    assert [s.image_id for s in load_voc(devkit.folder, "dog_train")] == ids


@pytest.mark.parametrize("suffix", [".Jpg", ".Png"])
def test_sizes_with_a_point_and_endings_with_a_capital(devkit: Devkit, suffix: str) -> None:
    size = f"<size><width>{WIDTH}.0</width><height>{HEIGHT}.0</height></size>"
    devkit.add("a", xml(obj(), size=size), suffix)
    (sample,) = load_voc(devkit.folder, "train")
    assert (sample.width, sample.height, sample.path.suffix) == (WIDTH, HEIGHT, suffix)


@pytest.mark.parametrize("encoding", ["gbk", "big5", "utf-8-sig"])
def test_encodings_that_files_declare(devkit: Devkit, encoding: str) -> None:
    name = "\u65e5\u672c"
    head = "" if encoding == "utf-8-sig" else f'<?xml version="1.0" encoding="{encoding}"?>'
    path = devkit.add("a", "")
    path.write_bytes(f"{head}{xml(obj(name))}".encode(encoding))
    assert read_annotation(path).objects[0].name == name


def test_a_class_list_that_repeats_is_named(devkit: Devkit) -> None:
    (devkit.folder / "classes.txt").write_text("cat\ncat\n")
    devkit.add("a", xml())
    with pytest.raises(DatasetError, match=r"classes\.txt: names 'cat' twice"):
        load_voc(devkit.folder, "train")


def test_split_from_a_file_of_ones_own(devkit: Devkit, tmp_path: Path) -> None:
    devkit.add("a", xml())
    mine = tmp_path / "mine.txt"
    mine.write_text("a\n", encoding="utf-8")
    data = load_voc(devkit.folder, str(mine))
    assert (len(data), data.name) == (1, "VOC2007 mine")
    mine.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DatasetError, match=r"mine\.txt: the split cannot be read"):
        load_voc(devkit.folder, str(mine))


def test_roots_that_name_the_same_folder(tmp_path: Path) -> None:
    folder = Devkit(tmp_path / "VOCdevkit" / "VOC2007").folder
    for root in (folder, tmp_path / "VOCdevkit", tmp_path):
        assert voc_folder(root) == folder
        assert voc_folder(root, 2007) == folder


def test_years_are_listed_where_none_or_several_fit(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no VOC data"):
        voc_folder(tmp_path)
    with pytest.raises(DatasetError, match="no such folder"):
        voc_folder(tmp_path / "gone")
    first = Devkit(tmp_path / "VOC2007").folder
    second = Devkit(tmp_path / "VOC2012").folder
    assert voc_folder(tmp_path, 2012) == second
    with pytest.raises(DatasetError, match="several years; choose year 2007 or 2012"):
        voc_folder(tmp_path)
    with pytest.raises(DatasetError, match="has no VOC2010; choose year 2007 or 2012"):
        voc_folder(tmp_path, 2010)
    with pytest.raises(DatasetError, match="is not VOC 2012"):
        voc_folder(first, 2012)


def test_real_trainval_agrees_with_an_independent_reading(voc_root: Path) -> None:
    """The counts, and every 50th annotation against Python's own XML reader."""
    data = load_voc(voc_root, "val")
    assert len({sample.image_id for sample in data}) == len(data) > 0
    for sample in data.samples[::50]:
        tree = StdTree.parse(voc_root / "Annotations" / f"{sample.image_id}.xml")
        corners = [
            [int(box.findtext(tag) or "") for tag in ("xmin", "ymin", "xmax", "ymax")]
            for box in tree.iterfind("object/bndbox")
        ]
        np.testing.assert_array_equal(sample.boxes, np.array(corners).reshape(-1, 4) - [1, 1, 0, 0])
        names = [node.text for node in tree.iterfind("object/name")]
        assert [data.classes[n] for n in sample.labels] == names
        with Image.open(sample.path) as image:
            assert image.size == (sample.width, sample.height)
