"""VOC annotation files, one by one: what is written is read back, what is bad is named."""

from __future__ import annotations

import xml.etree.ElementTree as StdTree
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.errors import AnnotationError
from sppdet.datasets.voc_xml import VocAnnotation, VocObject, format_annotation, read_annotation

GOOD = "<object><name>cat</name><bndbox>{}</bndbox></object>"


def corners(box: str) -> str:
    pairs = zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=True)
    return "".join(f"<{tag}>{value}</{tag}>" for tag, value in pairs)


def read_text(folder: Path, text: str) -> VocAnnotation:
    path = folder / "a.xml"
    path.write_text(text, encoding="utf-8")
    return read_annotation(path)


def test_nothing_is_in_an_empty_file(tmp_path: Path) -> None:
    assert read_text(tmp_path, "<annotation/>") == VocAnnotation(None, None, None, ())


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
    folder = tmp_path_factory.mktemp("round")
    back = read_text(folder, format_annotation("set", "a.jpg", 50, 40, objects))
    assert back == VocAnnotation("a.jpg", 50, 40, objects)


def test_written_corners_are_one_based_and_inclusive() -> None:
    text = format_annotation("set", "a.jpg", 50, 40, [VocObject("dog", (0.0, 4.0, 10.0, 40.0))])
    box = StdTree.fromstring(text).find("object/bndbox")
    assert box is not None
    assert [node.text for node in box] == ["1", "5", "10", "40"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"<object><name>dog</name><bndbox>{corners('one 1 20 40')}</bndbox></object>",
            "object 2 (dog): <xmin> should hold a number, but holds 'one'",
        ),
        ("<object><name>dog</name></object>", "object 2 (dog) has no <bndbox>"),
        ("<object><name> </name></object>", "object 2 has no <name>"),
        (
            "<object><name>dog</name><bndbox/></object>",
            "object 2 (dog): <xmin> should hold a number, but holds nothing",
        ),
    ],
)
def test_bad_objects_are_left_out_and_named_by_number(
    tmp_path: Path, text: str, message: str
) -> None:
    good = GOOD.format(corners("1 1 9 9"))
    found = read_text(tmp_path, f"<annotation>{good}{text}{good}</annotation>")
    assert [one.number for one in found.objects] == [1, 3]
    assert found.problems == (message,)


@pytest.mark.parametrize("width", ["big", "9" * 400, "inf", "nan", "0", "-4", "", " "])
def test_sides_that_no_image_has(tmp_path: Path, width: str) -> None:
    size = f"<size><width>{width}</width><height> 40.0 </height></size>"
    found = read_text(tmp_path, f"<annotation>{size}</annotation>")
    assert (found.width, found.height) == (None, 40)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
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
    ],
)
def test_broken_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message) as caught:
        read_text(tmp_path, text)
    assert caught.value.path == str(tmp_path / "a.xml")
    assert caught.value.hint
    with pytest.raises(AnnotationError, match=r"gone\.xml: cannot be read"):
        read_annotation(tmp_path / "gone.xml")
