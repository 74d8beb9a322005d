"""LabelMe's files: a folder of them, shapes as boxes, images found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sppdet.core.errors import DatasetError
from sppdet.datasets.load import load_dataset, locate
from sppdet.datasets.raw import (
    BAD_OBJECT,
    BROKEN_ANNOTATION,
    MISSING_IMAGE,
    NO_ANNOTATION,
    OTHER_SHAPE,
    Findings,
)
from tests.datasets.formats.test_label_studio import check
from tests.helpers.made_annotations import labelme_documents, write_image, write_images, write_json


def write(folder: Path, documents: dict[str, dict[str, Any]]) -> Path:
    """Write LabelMe files."""
    for name, document in documents.items():
        write_json(folder / name, document)
    return folder


@pytest.mark.parametrize(
    ("files", "images", "stated"),
    [
        ("", "", "{}"),
        ("labels", "images", "..\\images\\{}"),
        ("annotations", "photos", "../photos/{}"),
        ("json", "", "/data/me/photos/{}"),
        ("", "", "another name of {}.png"),
        ("", "images", ""),
    ],
)
def test_layouts(tmp_path: Path, files: str, images: str, stated: str) -> None:
    write_images(tmp_path / images)
    documents = labelme_documents()
    for document in documents.values():
        document["imagePath"] = stated.format(document["imagePath"])
    write(tmp_path / files, documents)
    assert locate(tmp_path)[0] == "labelme"
    findings = Findings()
    dataset = load_dataset(tmp_path, findings=findings)
    check(dataset)
    assert [sample.image_id for sample in dataset] == ["a", "b", "c"]
    assert not findings.lines()


def test_splits_are_folders(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        write_images(tmp_path / split)
        write(tmp_path / split, labelme_documents())
    check(load_dataset(tmp_path, "val"))
    ids = [sample.image_id for sample in load_dataset(tmp_path)]
    assert ids == [f"{split}/{name}" for split in ("train", "valid") for name in "abc"]


def test_a_single_file(tmp_path: Path) -> None:
    write_images(tmp_path)
    write(tmp_path, labelme_documents())
    assert len(load_dataset(tmp_path / "a.json")) == 1


def test_shapes(tmp_path: Path) -> None:
    write_images(tmp_path)
    documents = labelme_documents()
    shape = documents["a.json"]["shapes"][0]
    shape.update(points=[[20, 20], [80, 25], [50, 90]], shape_type="polygon")
    circle = {"label": "cat", "points": [[50, 50], [50, 60]], "shape_type": "circle"}
    line = {"label": "cat", "points": [[50, 50], [50, 60]], "shape_type": "line"}
    documents["c.json"]["shapes"] = [circle, line]
    findings = Findings()
    dataset = load_dataset(write(tmp_path, documents), findings=findings)
    np.testing.assert_allclose(dataset.samples[0].boxes[0], [20, 20, 80, 90])
    np.testing.assert_allclose(dataset.samples[2].boxes, [[40, 40, 60, 60]])
    assert findings.counts() == {OTHER_SHAPE: 1}


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    write_images(tmp_path)
    write_image(tmp_path / "unlabeled.jpg")
    documents = labelme_documents()
    documents["a.json"]["shapes"] += [
        {"label": "", "points": [[1, 1], [2, 2]], "shape_type": "rectangle"},
        {"label": "cat", "points": [[1, "one"], [2, 2]], "shape_type": "rectangle"},
        5,
    ]
    documents["gone.json"] = {**documents["b.json"], "imagePath": "gone.jpg"}
    documents["other.json"] = {"version": 1}
    write(tmp_path, documents)
    (tmp_path / "broken.json").write_text('{"shapes": [', encoding="utf-8")
    write_image(tmp_path / "broken.jpg")  # told with its file, not by itself
    findings = Findings()
    dataset = load_dataset(tmp_path, findings=findings, max_lost=0.9)
    check(dataset)
    assert findings.counts() == {
        BROKEN_ANNOTATION: 2,
        BAD_OBJECT: 3,
        NO_ANNOTATION: 1,
        MISSING_IMAGE: 1,
    }
    with pytest.raises(DatasetError, match="images cannot be used"):
        load_dataset(tmp_path)


def test_a_folder_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no LabelMe file"):
        load_dataset(tmp_path, format="labelme")
