"""CVAT's XML for images: labels in its order, subsets as splits, shapes as boxes."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

import numpy as np
import pytest

from sppdet.core.errors import AnnotationError, DatasetError
from sppdet.datasets.load import load_dataset, locate
from sppdet.datasets.raw import BAD_OBJECT, MISSING_IMAGE, NO_IMAGE, OTHER_SHAPE, ROTATED, Findings
from tests.datasets.formats.test_label_studio import check
from tests.helpers.made_annotations import cvat_root, write_images, write_xml


@pytest.mark.parametrize("images", ["", "images", "images/default", "data"])
def test_layouts(tmp_path: Path, images: str) -> None:
    write_images(tmp_path / images)
    path = write_xml(tmp_path / "annotations.xml", cvat_root())
    assert locate(tmp_path)[0] == locate(path)[0] == "cvat"
    findings = Findings()
    dataset = load_dataset(tmp_path, findings=findings)
    assert dataset.classes == ("dog", "cat")
    check(dataset)
    check(load_dataset(path))
    assert not findings.lines()


def test_subsets_are_splits(tmp_path: Path) -> None:
    root = cvat_root()
    for image, subset in zip(root.iter("image"), ("Train", "Validation", "Train"), strict=True):
        image.set("subset", subset)
        image.set("name", f"{subset}/{image.get('name')}")
        write_images(tmp_path / "images" / subset)
    write_xml(tmp_path / "annotations.xml", root)
    assert [sample.image_id for sample in load_dataset(tmp_path, "train")] == ["a", "c"]
    assert len(load_dataset(tmp_path, "val")) == 1


def _add(root: Element, tag: str, image: int = 2, **attributes: str) -> None:
    SubElement(root.findall("image")[image], tag, {"label": "cat", **attributes})


def test_shapes(tmp_path: Path) -> None:
    root = cvat_root()
    _add(root, "polygon", points="10.0,20.0;30.5,20.0;20.0,40.0")
    _add(root, "ellipse", cx="50", cy="60", rx="10", ry="20")
    _add(root, "mask", rle="1, 2", left="5", top="6", width="7", height="8")
    _add(root, "box", xtl="40", ytl="40", xbr="80", ybr="60", rotation="90.0")
    _add(root, "polyline", points="1,1;2,2")
    _add(root, "points", points="1,1")
    _add(root, "tag")
    write_images(tmp_path)
    findings = Findings()
    dataset = load_dataset(write_xml(tmp_path / "a.xml", root), findings=findings)
    expected: list[list[float]] = [
        [10, 20, 30.5, 40],
        [40, 40, 60, 80],
        [5, 6, 12, 14],
        [50, 30, 70, 70],
    ]
    np.testing.assert_allclose(dataset.samples[2].boxes, np.array(expected), atol=1e-3)
    assert findings.counts() == {ROTATED: 1, OTHER_SHAPE: 2}


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    root = cvat_root()
    _add(root, "box", 0, xtl="one", ytl="1", xbr="2", ybr="2")
    _add(root, "polygon", 0, points="")
    _add(root, "sphere", 1)
    SubElement(root, "image", id="8", name="")
    SubElement(root, "image", id="9", name="../gone.jpg", width="10", height="0")
    write_images(tmp_path)
    findings = Findings()
    path = write_xml(tmp_path / "a.xml", root)
    check(load_dataset(path, findings=findings, max_lost=0.9))
    assert findings.counts() == {NO_IMAGE: 1, BAD_OBJECT: 3, MISSING_IMAGE: 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotations><image", "broken XML"),
        ('<?xml version="1.0" encoding="nonsense"?><annotations/>', "broken XML"),
        ("<annotation/>", "its root is <annotation>"),
        ("<annotations><track/></annotations>", "tracks of a video"),
        ('<!DOCTYPE a [<!ENTITY e "x">]><annotations>&e;</annotations>', "DOCTYPE or entities"),
    ],
)
def test_what_is_not_cvat_is_one_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(AnnotationError, match=message):
        load_dataset(path, format="cvat")


def test_several_exports_are_refused(tmp_path: Path) -> None:
    for name in ("a.xml", "b.xml"):
        write_xml(tmp_path / name, cvat_root())
    with pytest.raises(DatasetError, match="2 CVAT exports"):
        load_dataset(tmp_path)
