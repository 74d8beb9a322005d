"""Damaged annotation files give a data set or one typed error: nothing else, and no hang."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import tostring

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sppdet.core.errors import AnnotationError, DatasetError
from sppdet.core.types import Dataset
from sppdet.datasets.load import load_dataset
from sppdet.datasets.raw import Findings
from tests.helpers.made_annotations import (
    coco_document,
    cvat_root,
    label_studio_tasks,
    labelme_documents,
    write_images,
)

WRITERS: dict[str, Callable[[], bytes]] = {
    "coco": lambda: json.dumps(coco_document()).encode(),
    "labelstudio": lambda: json.dumps(label_studio_tasks()).encode(),
    "labelme": lambda: json.dumps(labelme_documents()["a.json"]).encode(),
    "cvat": lambda: tostring(cvat_root()),
}

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**3), 10**3),
    st.sampled_from([0, -1, 2**31, 2**63, 10**30, 10**400, 1e308, -1e308]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["\0", "../a.jpg", "/", "nan", "1e999", "b.jpg", "\ud800", "\ud800/a.jpg"]),
    st.lists(st.integers(-5, 5), max_size=5),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@pytest.fixture(scope="module")
def folder() -> Path:
    """A folder with the images, in which files are written again and again."""
    place = Path(tempfile.mkdtemp(prefix="sppdet-mutated-"))
    write_images(place)
    return place


def try_to_open(folder: Path, format: str, data: bytes) -> None:
    """Open a file in all ways; anything but a data set or a typed error fails."""
    path = folder / ("file.xml" if format == "cvat" else "file.json")
    path.write_bytes(data)
    for name in (format, None):
        findings, message = Findings(), "none"
        try:
            dataset = load_dataset(path, format=name, max_lost=1.0, findings=findings)
        except (AnnotationError, DatasetError) as error:
            message = str(error)
        else:
            assert isinstance(dataset, Dataset)
            for sample in dataset:
                assert sample.path.is_relative_to(folder)
                assert (sample.boxes >= 0).all()
                assert (sample.boxes[:, 2] <= sample.width).all()
                assert (sample.boxes[:, 3] <= sample.height).all()
        assert message
        assert not any("\n" in line for line in (message, *findings.lines()))


many = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to everything in a JSON document."""
    nested: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        nested = list(value.items())
    elif isinstance(value, list):
        nested = list(enumerate(value))
    return [way] * bool(way) + [p for key, item in nested for p in places(item, (*way, key))]


@pytest.mark.parametrize("format", ["coco", "labelstudio", "labelme"])
@many
@given(data=st.data())
def test_json_with_other_values(folder: Path, format: str, data: st.DataObject) -> None:
    document = json.loads(WRITERS[format]())
    for _ in range(data.draw(st.integers(1, 3))):
        ways = places(document)
        if not ways:
            break
        *outer, last = data.draw(st.sampled_from(ways))
        target = document
        for key in outer:
            target = target[key]
        if data.draw(st.booleans()):
            target[last] = data.draw(VALUES)
        else:
            del target[last]
    try_to_open(folder, format, json.dumps(document).encode())


@many
@given(data=st.data())
def test_xml_with_other_values(folder: Path, data: st.DataObject) -> None:
    root = cvat_root()
    for _ in range(data.draw(st.integers(1, 3))):
        node = data.draw(st.sampled_from(list(root.iter())))
        key = data.draw(st.sampled_from([*node.attrib, "rotation", "points"]))
        node.set(key, data.draw(st.from_regex(r"[-+.0-9eEnaif,;/\\ ]{0,12}", fullmatch=True)))
        if data.draw(st.booleans()):
            node.tag = data.draw(st.sampled_from(["box", "polygon", "mask", "image", "x"]))
    try_to_open(folder, "cvat", tostring(root))


@pytest.mark.parametrize("format", sorted(WRITERS))
@many
@given(data=st.data())
def test_damaged_bytes(folder: Path, format: str, data: st.DataObject) -> None:
    whole = WRITERS[format]()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 40)))
    put = data.draw(st.binary(max_size=6) | st.sampled_from([b"[" * 2000, b'"', b"<a>" * 2000]))
    try_to_open(folder, format, whole[:start] + put + whole[end:])
