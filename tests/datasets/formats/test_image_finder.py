"""Images around annotation files: those that no file names, and those of other data sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sppdet.core.errors import DatasetError
from sppdet.datasets.load import load_dataset, read_dataset
from sppdet.datasets.raw import MISSING_IMAGE, NO_ANNOTATION, Findings
from tests.helpers.made_annotations import (
    NAMES,
    coco_document,
    cvat_root,
    label_studio_tasks,
    labelme_documents,
    write_image,
    write_images,
    write_json,
    write_xml,
)
from tests.helpers.made_yolo import table_rows, write_text


def _csv(folder: Path) -> None:
    write_text(folder / "labels.csv", "\n".join(table_rows("filename x1 y1 x2 y2 class")))


def _labelme(folder: Path) -> None:
    for name, document in labelme_documents().items():
        write_json(folder / name, document)


# Each writes annotations of `made_annotations.NAMES` into a folder.
WRITERS: dict[str, Callable[[Path], object]] = {
    "coco": lambda folder: write_json(folder / "coco.json", coco_document()),
    "csv": _csv,
    "cvat": lambda folder: write_xml(folder / "annotations.xml", cvat_root()),
    "labelme": _labelme,
    "labelstudio": lambda folder: write_json(folder / "export.json", label_studio_tasks()),
}


@pytest.mark.parametrize("format", ["coco", "csv", "cvat", "labelme"])
def test_images_that_no_annotation_names_are_told(format: str, tmp_path: Path) -> None:
    WRITERS[format](tmp_path)
    write_images(tmp_path / "images")
    bare = [write_image(tmp_path / "images" / f"more{n}.jpg") for n in range(2)]
    write_image(tmp_path / "docs" / "screenshot.png")
    findings = Findings()
    assert len(load_dataset(tmp_path, findings=findings)) == len(NAMES)
    assert findings.counts() == {NO_ANNOTATION: 2}
    assert [one.path for one in findings.all] == bare


def test_images_of_the_file_beside_are_not_called_bare(tmp_path: Path) -> None:
    """A user names one of two files, or its split; the images of both lie in one folder."""
    write_images(tmp_path / "images")
    document = coco_document()
    for split, numbers in (("train", (1, 2)), ("val", (3,))):
        images = [image for image in document["images"] if image["id"] in numbers]
        own = [one for one in document["annotations"] if one["image_id"] in numbers]
        part = document | {"images": images, "annotations": own}
        write_json(tmp_path / "annotations" / f"{split}.json", part)
    for source in (tmp_path, tmp_path / "annotations" / "train.json"):
        findings = Findings()
        assert len(load_dataset(source, "train", findings=findings)) == 2
        assert not len(findings)


@pytest.mark.parametrize("format", WRITERS)
def test_images_of_another_data_set_are_not_taken(format: str, tmp_path: Path) -> None:
    """Two data sets, side by side, of images of the same names; one came without its own."""
    for folder in ("other/images", "more"):
        write_images(tmp_path / folder)
    WRITERS[format](tmp_path / "mine")
    findings = Findings()
    raw = read_dataset(tmp_path / "mine", findings)
    assert all(image.path.is_relative_to(tmp_path / "mine") for image in raw.images)
    with pytest.raises(DatasetError, match=f"{MISSING_IMAGE}: 3.*with --images$"):
        load_dataset(tmp_path / "mine")
    assert len(load_dataset(tmp_path / "mine", images=tmp_path / "more")) == len(NAMES)


@pytest.mark.parametrize("format", ["coco", "csv", "cvat"])
def test_a_folder_of_annotations_is_part_of_the_one_above(format: str, tmp_path: Path) -> None:
    WRITERS[format](tmp_path / "annotations")
    write_images(tmp_path / "photos")
    for source in (tmp_path, tmp_path / "annotations"):
        assert len(load_dataset(source)) == len(NAMES)
