"""The function for a COCO file and a folder of images: `load_coco`."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from sppdet.core.errors import AnnotationError, DatasetError
from sppdet.datasets import load_coco


def document(**changes: Any) -> dict[str, Any]:
    whole = {
        "images": [
            {"id": 7, "file_name": "b.jpg", "width": 50, "height": 40},
            {"id": 3, "file_name": "sub/a.jpg", "width": 30, "height": 20},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [0, 0, 50, 40], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [1.5, 2.25, 10.5, 4], "iscrowd": 1},
        ],
    }
    return whole | changes


def annotation(**changes: Any) -> dict[str, Any]:
    return {"id": 5, "image_id": 7, "category_id": 18, "bbox": [0, 0, 5, 5]} | changes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (50, 40)).save(tmp_path / "b.jpg")
    Image.new("RGB", (30, 20)).save(tmp_path / "sub" / "a.jpg")
    return tmp_path


def written(folder: Path, value: Any) -> Path:
    path = folder / "instances.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_a_file_without_objects_is_refused(folder: Path) -> None:
    path = written(folder, document(annotations=[]))
    with pytest.raises(DatasetError, match="has no object"):
        load_coco(path, folder)
    path = written(folder, document(annotations=[], images=[]))
    with pytest.raises(DatasetError, match="holds no annotations"):
        load_coco(path, folder)


def test_whole_file(folder: Path) -> None:
    data = load_coco(written(folder, document()), folder)
    assert data.name == "instances"
    assert data.classes == ("person", "dog")  # by id: 1, 18
    first, second = data
    assert (first.image_id, first.path) == ("7", folder / "b.jpg")
    assert (first.width, first.height) == (50, 40)
    assert first.boxes.tolist() == [[0, 0, 50, 40], [1.5, 2.25, 12, 6.25]]
    assert first.labels.tolist() == [1, 0]
    assert first.difficult.tolist() == [False, True]
    assert (second.image_id, second.path) == ("3", folder / "sub" / "a.jpg")
    assert second.boxes.shape == (0, 4)


def test_agrees_with_pycocotools(folder: Path) -> None:
    path = written(folder, document())
    with contextlib.redirect_stdout(io.StringIO()):
        oracle = COCO(str(path))
    for sample in load_coco(path, folder):
        items = oracle.loadAnns(oracle.getAnnIds(imgIds=[int(sample.image_id)]))
        boxes = np.array([item["bbox"] for item in items]).reshape(-1, 4)
        np.testing.assert_array_equal(sample.boxes[:, :2], boxes[:, :2])
        np.testing.assert_array_equal(sample.boxes[:, 2:] - sample.boxes[:, :2], boxes[:, 2:])
        assert oracle.getImgIds().count(int(sample.image_id)) == 1


def test_classes_of_ones_own(folder: Path) -> None:
    path = written(folder, document())
    assert load_coco(path, folder, ["dog", "person"]).samples[0].labels.tolist() == [0, 1]
    some = load_coco(path, folder, ["person"], ignore_unknown=True)
    assert some.samples[0].labels.tolist() == [0]
    with pytest.raises(AnnotationError, match="annotation 1 has the unknown class 'dog'"):
        load_coco(path, folder, ["person"])


def test_missing_size_is_looked_up(folder: Path) -> None:
    images = [{"id": 7, "file_name": "b.jpg"}]
    items = document()["annotations"]
    data = load_coco(written(folder, document(images=images, annotations=items)), folder)
    assert (data.samples[0].width, data.samples[0].height) == (50, 40)


def test_boxes_without_area_are_left_out_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    items = [annotation(id=10 + n) for n in range(20)]
    items[3]["bbox"], items[5]["bbox"] = [1, 1, 4, 0], [1, 1, 0, 4]
    data = load_coco(written(folder, document(annotations=items)), folder)
    assert data.samples[0].boxes.tolist() == [[0, 0, 5, 5]] * 18
    assert "empty or inverted boxes left out: 2" in caplog.text


def test_outside_by_rounding_is_clipped(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = [annotation(bbox=[-0.4, 0, 50.9, 41])]
    data = load_coco(written(folder, document(annotations=items)), folder)
    assert data.samples[0].boxes.tolist() == [[0, 0, 50, 40]]
    assert not [line for line in caplog.messages if "clipped" in line]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [60, 0, 60, 10]}, r"annotation 5 \(dog\) is outside its 50x40 image"),
        ({"bbox": [9, 9, -4, 4]}, r"annotation 5 \(dog\) is empty, inverted or not finite"),
        ({"bbox": [0, 0, float("nan"), 4]}, "annotation 5 has no bbox of four numbers"),
        ({"bbox": [0, 0, 4]}, "annotation 5 has no bbox of four numbers"),
        ({"bbox": "0 0 4 4"}, "annotation 5 has no bbox of four numbers"),
        ({"bbox": [0, 0, "four", 4]}, "annotation 5 has no bbox of four numbers"),
        ({"bbox": [0, 0, True, 4]}, "annotation 5 has no bbox of four numbers"),
        ({"bbox": None}, "annotation 5 has no bbox"),
        ({"bbox": [0, 0, 10**400, 4]}, "annotation 5 has no bbox of four numbers"),
        ({"image_id": 8}, "annotation 5 is of image 8, which is not listed"),
        ({"image_id": [7]}, "annotation 5 is of image"),
        ({"category_id": 2}, "annotation 5 is of category 2, which is not listed"),
    ],
)
def test_bad_annotations_are_named(folder: Path, change: dict[str, Any], message: str) -> None:
    path = written(folder, document(annotations=[annotation(id=1), annotation(**change)]))
    with pytest.raises(DatasetError, match=message) as caught:
        load_coco(path, folder)
    assert caught.value.path == str(path)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "no list of objects named 'categories'"),
        ({}, "no list of objects named 'categories'"),
        (document(images={}), "no list of objects named 'images'"),
        (document(annotations=1), "no list of objects named 'annotations'"),
    ],
)
def test_bad_documents(folder: Path, value: Any, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        load_coco(written(folder, value), folder)


def test_names_that_lead_out_are_not_followed(folder: Path) -> None:
    Image.new("RGB", (50, 40)).save(folder.parent / "outside.jpg")
    for name in ("../outside.jpg", str(folder.parent / "outside.jpg")):
        images = [{"id": 7, "file_name": name, "width": 50, "height": 40}]
        with pytest.raises(DatasetError, match="1 of 1 images cannot be used"):
            load_coco(written(folder, document(images=images)), folder)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_broken_json(folder: Path, data: bytes) -> None:
    path = folder / "instances.json"
    path.write_bytes(data)
    with pytest.raises(AnnotationError, match=r"instances\.json: (broken JSON|the file is empty)"):
        load_coco(path, folder)


def test_missing_files(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"gone\.json: no such annotation file"):
        load_coco(folder / "gone.json", folder)
    path = written(folder, document())
    with pytest.raises(DatasetError, match="no such image folder"):
        load_coco(path, folder / "gone")
    (folder / "b.jpg").unlink()
    with pytest.raises(DatasetError, match=r"1 of 2 images cannot be used .* is not there"):
        load_coco(path, folder)
