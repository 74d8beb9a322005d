"""Label Studio's exports: percents, uploads' names, labels of several people."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sppdet.core.errors import AnnotationError, DatasetError
from sppdet.core.types import Dataset
from sppdet.datasets.formats import label_studio
from sppdet.datasets.load import load_dataset, locate
from sppdet.datasets.raw import (
    BAD_OBJECT,
    MISSING_IMAGE,
    NO_IMAGE,
    OTHER_SHAPE,
    ROTATED,
    STATED_SIZE,
    UNLABELED,
    Findings,
)
from tests.helpers.made_annotations import (
    HEIGHT,
    NAMES,
    OBJECTS,
    WIDTH,
    label_studio_tasks,
    write_image,
    write_images,
    write_json,
)


def check(dataset: Dataset) -> None:
    """Check that a data set has the objects that were made."""
    assert [sample.path.name[-5:] for sample in dataset] == list(NAMES)
    for sample, items in zip(dataset, OBJECTS, strict=True):
        assert [dataset.classes[label] for label in sample.labels] == [name for name, _ in items]
        expected = np.array([box for _, box in items]).reshape(-1, 4)
        np.testing.assert_allclose(sample.boxes, expected, atol=1e-3)


def opened(folder: Path, tasks: Any) -> tuple[Dataset, Findings]:
    """Write tasks beside their images, and open them."""
    write_images(folder / "images")
    findings = Findings()
    path = write_json(folder / "export.json", tasks)
    return load_dataset(path, findings=findings, max_lost=0.9), findings


def test_an_export_is_found_out(tmp_path: Path) -> None:
    dataset, findings = opened(tmp_path, label_studio_tasks())
    assert locate(tmp_path)[0] == "labelstudio"
    check(dataset)
    assert dataset.classes == ("cat", "dog")
    assert [sample.image_id for sample in dataset] == ["a", "b", "c"]
    assert not findings.lines()
    check(load_dataset(tmp_path))


@pytest.mark.parametrize(
    "address",
    [
        "/data/upload/1/0a1b2c3d-{}",
        "/data/upload/0a1b2c3d-{}",
        "/data/local-files/?d=photos%2F{}",
        "s3://bucket/some/folder/{}",
        "https://example.org/photos/{}?token=1",
        "photos/{}",
        "C:\\photos\\{}",
    ],
)
def test_images_of_all_storages_are_found(tmp_path: Path, address: str) -> None:
    tasks = label_studio_tasks()
    for task, name in zip(tasks, NAMES, strict=True):
        task["data"] = {"text": "a word", "img": address.format(name)}
        del task["file_upload"]
    dataset, findings = opened(tmp_path, tasks)
    check(dataset)
    assert not findings.lines()


def test_images_that_kept_their_prefix_and_blanks(tmp_path: Path) -> None:
    """Label Studio writes `_` for a blank of a name."""
    tasks = label_studio_tasks()
    tasks[0]["data"]["image"] = "/data/upload/1/0a1b2c3d-my_photo_a.jpg"
    write_image(tmp_path / "0a1b2c3d-b.jpg")
    write_image(tmp_path / "my photo a.jpg")
    write_image(tmp_path / "c.jpg")
    check(load_dataset(write_json(tmp_path / "export.json", tasks)))


def test_the_short_form(tmp_path: Path) -> None:
    tasks = [
        {
            "image": task["data"]["image"],
            "id": task["id"],
            "label": [
                {**one["value"], "original_width": WIDTH, "original_height": HEIGHT}
                for one in task["annotations"][0]["result"]
            ],
        }
        for task in label_studio_tasks()
    ]
    tasks[2].pop("label")
    dataset, findings = opened(tmp_path, tasks)
    check(dataset)
    assert not findings.lines()


def _result(tasks: list[dict[str, Any]]) -> dict[str, Any]:
    region: dict[str, Any] = tasks[0]["annotations"][0]["result"][0]
    return region


def test_other_shapes(tmp_path: Path) -> None:
    tasks = label_studio_tasks()
    region = _result(tasks)
    region["type"] = "polygonlabels"
    corners = [[12.5, 100 / 6], [50, 100 / 6], [50, 75], [12.5, 20]]
    region["value"] = {"points": corners, "closed": True, "polygonlabels": ["cat"]}
    tasks[1]["annotations"][0]["result"][0]["value"] = {
        "x": 100 * 30.25 / WIDTH,
        "y": 100 * 50.125 / HEIGHT,
        "radiusX": 100 * 20.25 / WIDTH,
        "radiusY": 100 * 20.125 / HEIGHT,
        "ellipselabels": ["cat"],
    }
    results = tasks[2]["annotations"][0]["result"]
    results.append({"type": "brushlabels", "value": {"rle": [1], "brushlabels": ["cat"]}})
    results.append({"type": "choices", "value": {"choices": ["good"]}})
    results.append({"type": "relation", "from_id": "r0", "to_id": "r1"})
    dataset, findings = opened(tmp_path, tasks)
    check(dataset)
    assert findings.counts() == {OTHER_SHAPE: 1}


def test_a_rotated_box_is_enclosed(tmp_path: Path) -> None:
    tasks = label_studio_tasks()
    # 40 x 20 pixels from (80, 20), turned by 90 degrees about there: 20 wide to the left.
    value = {"x": 50, "y": 100 / 6, "width": 25, "height": 100 / 6}
    _result(tasks)["value"].update(value, rotation=90)
    dataset, findings = opened(tmp_path, tasks)
    np.testing.assert_allclose(dataset.samples[0].boxes[0], [60, 20, 80, 60], atol=1e-3)
    assert findings.counts() == {ROTATED: 1}
    _result(tasks)["value"]["rotation"] = 45
    side = math.sqrt(0.5)
    box = opened(tmp_path, tasks)[0].samples[0].boxes[0]
    expected = [80 - 20 * side, 20, 80 + 40 * side, 20 + 60 * side]
    np.testing.assert_allclose(box, expected, atol=1e-3)


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    tasks: list[Any] = [*label_studio_tasks()]
    _result(tasks)["value"]["width"] = None
    tasks[1]["annotations"].append({"result": [], "was_cancelled": False})
    tasks += [
        {"id": 4, "data": {"image": "d.jpg"}, "annotations": []},
        {"id": 5, "data": {"text": "no image"}, "annotations": [{"result": []}]},
        {"id": 6, "data": {"image": "gone.jpg"}, "annotations": [{"result": []}]},
        {"id": 7, "data": {"image": "c.jpg"}, "annotations": [{"result": [], "was_cancelled": 1}]},
        5,
    ]
    dataset, findings = opened(tmp_path, tasks)
    assert [len(sample.boxes) for sample in dataset] == [1, 1, 0]
    assert findings.counts() == {
        NO_IMAGE: 2,
        BAD_OBJECT: 1,
        label_studio.SEVERAL: 1,
        UNLABELED: 2,
        MISSING_IMAGE: 1,
    }
    assert UNLABELED not in {one.kind for one in findings.wrong()}


def test_sizes_that_are_wrong_are_told(tmp_path: Path) -> None:
    tasks = label_studio_tasks()
    for region in tasks[0]["annotations"][0]["result"]:
        region["original_width"] = 320
    dataset, findings = opened(tmp_path, tasks)
    check(dataset)
    assert findings.counts() == {STATED_SIZE: 1}


def test_several_exports_are_refused_unless_they_are_splits(tmp_path: Path) -> None:
    write_images(tmp_path)
    for name in ("project-1.json", "project-2.json"):
        write_json(tmp_path / name, label_studio_tasks())
    with pytest.raises(DatasetError, match="2 Label Studio exports"):
        load_dataset(tmp_path)
    (tmp_path / "project-1.json").rename(tmp_path / "train.json")
    (tmp_path / "project-2.json").rename(tmp_path / "val.json")
    check(load_dataset(tmp_path, "val"))


def test_another_document_is_one_error(tmp_path: Path) -> None:
    path = write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(AnnotationError, match="not a list of tasks"):
        load_dataset(path, format="labelstudio")
