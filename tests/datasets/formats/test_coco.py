"""COCO as many tools write it: images found, values understood, everything wrong told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sppdet.core.errors import AnnotationError, DatasetError
from sppdet.core.types import Dataset
from sppdet.datasets.formats import coco, coco_entries
from sppdet.datasets.load import load_dataset, locate
from sppdet.datasets.raw import (
    BAD_OBJECT,
    BROKEN_SPLIT,
    CLIPPED,
    DUPLICATE,
    MISSING_IMAGE,
    NO_ANNOTATION,
    NO_OBJECTS,
    NOTES,
    OUTSIDE,
    STATED_SIZE,
    UNLISTED_CLASS,
    UNLISTED_IMAGE,
    Findings,
)
from sppdet.datasets.tools.check import check_dataset
from tests.helpers.made_annotations import (
    OBJECTS,
    coco_document,
    write_image,
    write_images,
    write_json,
)

Change = Callable[[dict[str, Any]], object]


def boxes_of(dataset: Dataset) -> list[list[tuple[str, tuple[float, ...]]]]:
    """Class and box of the objects of each image."""
    return [
        [
            (dataset.classes[label], tuple(box))
            for label, box in zip(sample.labels.tolist(), sample.boxes.tolist(), strict=True)
        ]
        for sample in dataset
    ]


WHOLE = [list(items) for items in OBJECTS]


def opened(folder: Path, document: dict[str, Any], **options: Any) -> tuple[Dataset, Findings]:
    """Write a document beside its images, and open it; a share of the set may be lost."""
    write_images(folder / "images")
    findings = Findings()
    path = write_json(folder / "coco.json", document)
    return load_dataset(path, findings=findings, max_lost=0.9, **options), findings


def test_a_plain_file_is_found_out(tmp_path: Path) -> None:
    dataset, findings = opened(tmp_path, coco_document())
    assert locate(tmp_path / "coco.json")[0] == "coco"
    assert dataset.classes == ("cat", "dog")
    assert [sample.image_id for sample in dataset] == ["1", "2", "3"]
    assert boxes_of(dataset) == WHOLE
    assert not findings.lines()
    areas = dataset.samples[0].areas
    assert areas is not None
    assert areas.tolist() == [2100, 9600]


LAYOUTS: dict[str, tuple[str, str, list[str]]] = {
    "beside": ("coco.json", "", ["a.jpg", "b.jpg", "c.jpg"]),
    "in a folder beside": ("coco.json", "images", ["a.jpg", "b.jpg", "c.jpg"]),
    "relative to the folder above": ("ann/x.json", "", ["im/a.jpg", "im/b.jpg", "im/c.jpg"]),
    "in a sibling folder": ("annotations/all.json", "photos", ["a.jpg", "b.jpg", "c.jpg"]),
    "two folders down": ("annotations/all.json", "images/all", ["a.jpg", "b.jpg", "c.jpg"]),
    "windows": ("coco.json", "", ["im\\a.jpg", ".\\im\\b.jpg", "im\\c.jpg"]),
    "absolute": (
        "coco.json",
        "images",
        ["/content/data/images/a.jpg", "D:\\photos\\images\\b.jpg", "../images/c.jpg"],
    ),
    "of another case": ("coco.json", "images", ["A.JPG", "B.jpg", "c.JPG"]),
}


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_images_are_found(tmp_path: Path, layout: str) -> None:
    place, folder, names = LAYOUTS[layout]
    for name, plain in zip(names, "abc", strict=True):
        inner = "im" if "im" in name.replace("images", "").replace("\\", "/").split("/") else ""
        write_image(tmp_path / folder / inner / f"{plain}.jpg")
    document = coco_document()
    for image, name in zip(document["images"], names, strict=True):
        image["file_name"] = name
    dataset = load_dataset(write_json(tmp_path / place, document))
    assert boxes_of(dataset) == WHOLE
    assert all(sample.path.is_file() for sample in dataset)


def test_coco_s_own_layout(tmp_path: Path) -> None:
    """Files of captions and key points are not read, and splits keep apart equal names."""
    for split, objects in (("train", "annotations"), ("val", "annotations")):
        write_images(tmp_path / f"{split}2017")
        document = coco_document()
        if split == "val":
            document[objects] = document[objects][:2]
        write_json(tmp_path / "annotations" / f"instances_{split}2017.json", document)
        write_json(tmp_path / "annotations" / f"person_keypoints_{split}2017.json", document)
        write_json(tmp_path / "annotations" / f"captions_{split}2017.json", document)
    train, val = (load_dataset(tmp_path, split) for split in ("train", "val"))
    assert boxes_of(train) == WHOLE
    assert boxes_of(val) == [WHOLE[0], [], []]
    assert {sample.path.parent.name for sample in val} == {"val2017"}
    both = load_dataset(tmp_path)
    assert len({sample.image_id for sample in both}) == len(both) == 6


@pytest.mark.parametrize("outer", ["", "data", "download/data"])
def test_detr_s_layout_is_found_further_down(tmp_path: Path, outer: str) -> None:
    for split in ("train", "val"):
        write_images(tmp_path / outer / f"{split}2017")
        write_json(tmp_path / outer / "annotations" / f"custom_{split}.json", coco_document())
    assert boxes_of(load_dataset(tmp_path, "train")) == WHOLE
    with pytest.raises(DatasetError, match="splits that exist: train, val"):
        load_dataset(tmp_path, "test")


def test_roboflow_s_layout(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        write_images(tmp_path / split)
        document = coco_document()
        document["categories"].insert(0, {"id": 0, "name": "pets", "supercategory": "none"})
        for category in document["categories"][1:]:
            category["supercategory"] = "pets"
        write_json(tmp_path / split / "_annotations.coco.json", document)
    findings = Findings()
    dataset = load_dataset(tmp_path, "val", findings=findings)
    assert dataset.classes == ("cat", "dog")
    assert boxes_of(dataset) == WHOLE
    assert {sample.path.parent.name for sample in dataset} == {"valid"}
    assert findings.lines()[0] == "super-categories without objects, left out of the classes: 1"


@pytest.mark.parametrize("text", ["", "{", '{"images": []}'])
def test_a_broken_file_refuses_its_own_split_alone(tmp_path: Path, text: str) -> None:
    for split in ("train", "valid"):
        write_images(tmp_path / split)
        write_json(tmp_path / split / "_annotations.coco.json", coco_document())
    broken = tmp_path / "valid" / "_annotations.coco.json"
    broken.write_text(text)
    findings = Findings()
    assert boxes_of(load_dataset(tmp_path, "train", findings=findings, strict=True)) == WHOLE
    assert not findings.all
    assert boxes_of(load_dataset(tmp_path, findings=findings)) == WHOLE
    (found,) = findings.all
    assert (found.kind, found.path) == (BROKEN_SPLIT, broken)
    assert found.message.startswith("valid: ")
    report = check_dataset(tmp_path)
    assert set(report.problems) == {BROKEN_SPLIT}
    assert report.images == {"train": len(WHOLE)}
    for options in ({"strict": True}, {"split": "val"}):
        with pytest.raises(AnnotationError, match="valid/_annotations"):
            load_dataset(tmp_path, **options)
    with pytest.raises(AnnotationError, match="valid/_annotations"):
        load_dataset(tmp_path / "valid")


def test_files_of_no_split_are_called_by_their_names(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    for name in ("north", "south"):
        write_json(tmp_path / "annotations" / f"{name}.json", coco_document())
    assert len(load_dataset(tmp_path, "north")) == 3


def test_a_named_folder_alone_is_searched(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    write_images(tmp_path / "other" / "deep")
    path = write_json(tmp_path / "coco.json", coco_document())
    dataset = load_dataset(path, images=tmp_path / "other")
    assert {sample.path.parent for sample in dataset} == {tmp_path / "other" / "deep"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="3 of 3 images cannot be used"):
        load_dataset(path, images=tmp_path / "empty")


def _set(where: str, index: int, **values: Any) -> Change:
    return lambda document: document[where][index].update(values)


def _drop(where: str, index: int, key: str) -> Change:
    return lambda document: document[where][index].pop(key)


def _text_ids(document: dict[str, Any]) -> None:
    for image in document["images"]:
        image["id"] = f"im{image['id']}"
    for item in document["annotations"]:
        item["image_id"] = f"im{item['image_id']}"


def _ids_as_text(document: dict[str, Any]) -> None:
    for item in document["annotations"]:
        item["image_id"] = str(item["image_id"])
        item["category_id"] = float(item["category_id"])


def _gaps(document: dict[str, Any]) -> None:
    for image in document["images"]:
        image["id"] = image["id"] * 10**12 - 5
    for item in document["annotations"]:
        item["image_id"] = item["image_id"] * 10**12 - 5


def _texts(document: dict[str, Any]) -> None:
    for item in document["annotations"]:
        item["bbox"] = [str(v) for v in item["bbox"]]


def _polygons(document: dict[str, Any]) -> None:
    for item in document["annotations"]:
        x, y, w, h = item.pop("bbox")
        item["segmentation"] = [[x, y, x + w, y, x + w, y + h], [x, y + h, x + 1, y, x, y]]


def _zero_boxes(document: dict[str, Any]) -> None:
    for item in document["annotations"]:
        x, y, w, h = item["bbox"]
        item["segmentation"] = [x, y, x + w, y, x + w, y + h]
        item["bbox"] = [0, 0, 0, 0]


def _bare(document: dict[str, Any]) -> None:
    for item in document["annotations"]:
        del item["area"], item["iscrowd"]


SAME_BOXES: dict[str, Change] = {
    "text ids": _text_ids,
    "ids as text and as floats": _ids_as_text,
    "ids with gaps": _gaps,
    "sizes as text": _set("images", 0, width="160", height=" 120 "),
    "sizes as floats": _set("images", 1, width=160.0, height=120.0),
    "sizes of 0": _set("images", 0, width=0, height=0),
    "no sizes": lambda d: d["images"][0].pop("width") and d["images"][0].pop("height"),
    "null sizes": _set("images", 0, width=None, height=None),
    "boxes as text": _texts,
    "polygons without boxes": _polygons,
    "polygons and empty boxes": _zero_boxes,
    "no area, no flag": _bare,
    "a blank behind a name": _set("categories", 0, name=" cat "),
    "no id": _drop("annotations", 0, "id"),
}


@pytest.mark.parametrize("name", sorted(SAME_BOXES))
def test_values_of_other_tools(tmp_path: Path, name: str) -> None:
    document = coco_document()
    SAME_BOXES[name](document)
    dataset, findings = opened(tmp_path, document)
    assert boxes_of(dataset) == WHOLE
    assert not findings.lines()


TOLD: dict[str, tuple[Change, str, list[int]]] = {
    "a box that sticks out": (_set("annotations", 0, bbox=[100, 20, 63, 70]), CLIPPED, [2, 1, 0]),
    "a box left of the image": (_set("annotations", 2, bbox=[-3, 20, 60, 70]), CLIPPED, [2, 1, 0]),
    "a box outside": (_set("annotations", 0, bbox=[200, 20, 60, 70]), OUTSIDE, [1, 1, 0]),
    "no box": (_set("annotations", 0, bbox=None), BAD_OBJECT, [1, 1, 0]),
    "three numbers": (_set("annotations", 0, bbox=[1, 2, 3]), BAD_OBJECT, [1, 1, 0]),
    "a huge number": (_set("annotations", 0, bbox=[1, 2, 3, 10**400]), BAD_OBJECT, [1, 1, 0]),
    "not a number": (_set("annotations", 0, bbox=[1, 2, 3, float("nan")]), BAD_OBJECT, [1, 1, 0]),
    "a crowd without a box": (
        lambda d: d["annotations"][0].update(
            bbox=[], iscrowd=1, segmentation={"counts": [1, 2], "size": [120, 160]}
        ),
        BAD_OBJECT,
        [1, 1, 0],
    ),
    "an unlisted image": (_set("annotations", 0, image_id=99), UNLISTED_IMAGE, [1, 1, 0]),
    "an image of no kind": (_set("annotations", 0, image_id=[1]), UNLISTED_IMAGE, [1, 1, 0]),
    "an unlisted category": (_set("annotations", 0, category_id=99), UNLISTED_CLASS, [1, 1, 0]),
    "a missing image": (_set("images", 2, file_name="gone.jpg"), MISSING_IMAGE, [2, 1]),
    "a name that leads out": (_set("images", 2, file_name="/etc/passwd"), MISSING_IMAGE, [2, 1]),
    "a size of no kind": (_set("images", 0, width=-4), STATED_SIZE, [2, 1, 0]),
    "a huge size": (_set("images", 0, width=10**400), STATED_SIZE, [2, 1, 0]),
    "swapped sides": (_set("images", 0, width=120, height=160), STATED_SIZE, [2, 1, 0]),
    "no name": (_drop("images", 2, "file_name"), coco_entries.BROKEN_ENTRY, [2, 1]),
    "an image id twice": (_set("images", 2, id=1), coco_entries.REPEATED_ID, [2, 1]),
    "an image twice": (_set("images", 2, file_name="b.jpg"), DUPLICATE, [2, 1]),
    "a category without a name": (
        lambda d: d["categories"].append({"id": 9}),
        coco_entries.BROKEN_ENTRY,
        [2, 1, 0],
    ),
    "one name of two categories": (
        lambda d: d["categories"].append({"id": 8, "name": "cat"}),
        coco.SAME_NAME,
        [2, 1, 0],
    ),
    "a class without an object": (
        lambda d: d["categories"].append({"id": 8, "name": "bird"}),
        NO_OBJECTS,
        [2, 1, 0],
    ),
}


@pytest.mark.parametrize("name", sorted(TOLD))
def test_what_is_wrong_is_told_and_the_rest_kept(tmp_path: Path, name: str) -> None:
    change, kind, kept = TOLD[name]
    document = coco_document()
    change(document)
    dataset, findings = opened(tmp_path, document)
    assert [len(sample.boxes) for sample in dataset] == kept
    # The third image is there, and no entry names it.
    assert findings.counts() == {kind: 1} | ({NO_ANNOTATION: 1} if len(kept) == 2 else {})
    if kind not in NOTES:
        with pytest.raises((AnnotationError, DatasetError)):
            load_dataset(tmp_path / "coco.json", strict=True)


def test_categories_of_one_name_are_named_with_their_ids(tmp_path: Path) -> None:
    document = coco_document()
    document["categories"].append({"id": 8, "name": "cat"})
    document["annotations"][2]["category_id"] = 8
    dataset, findings = opened(tmp_path, document)
    assert boxes_of(dataset) == WHOLE
    assert "'cat' is the name of the categories 1, 8" in findings.lines()[1]
    assert coco.category_ids(tmp_path / "coco.json", dataset.classes) == [1, 7]


def test_all_problems_are_found_not_the_first_only(tmp_path: Path) -> None:
    document = coco_document()
    for item in document["annotations"]:
        item["bbox"] = [150, 20, 60, 70]
    document["images"] += [{"id": n, "file_name": f"{n}.jpg"} for n in (9, 10)]
    _, findings = opened(tmp_path, document)
    assert findings.counts() == {CLIPPED: 3, MISSING_IMAGE: 2}


def test_a_crowd_is_difficult_and_keeps_its_box(tmp_path: Path) -> None:
    document = coco_document()
    document["annotations"][1].update(
        iscrowd=1, segmentation={"counts": "PPYo0", "size": [120, 160]}
    )
    dataset, _ = opened(tmp_path, document)
    assert dataset.samples[0].difficult.tolist() == [False, True]
    assert boxes_of(dataset) == WHOLE


def test_a_byte_order_mark_is_taken(tmp_path: Path) -> None:
    write_images(tmp_path)
    write_json(tmp_path / "marked.json", coco_document(), mark=True)
    assert boxes_of(load_dataset(tmp_path / "marked.json")) == WHOLE
    text = json.dumps(coco_document())
    (tmp_path / "wide.json").write_text(text, encoding="utf-16")
    assert boxes_of(load_dataset(tmp_path / "wide.json", format="coco")) == WHOLE


def test_more_than_a_tenth_lost_stops(tmp_path: Path) -> None:
    write_images(tmp_path)
    document = coco_document()
    document["annotations"][0]["category_id"] = 99
    with pytest.raises(DatasetError, match="1 of 3 objects cannot be used"):
        load_dataset(write_json(tmp_path / "coco.json", document))


def test_classes_that_nothing_has_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path)
    path = write_json(tmp_path / "coco.json", coco_document())
    assert load_dataset(path, classes=["dog ", "cat"]).classes == ("dog", "cat")
    with pytest.raises(DatasetError, match="no object has the class 'Cat'; did you mean 'cat'"):
        load_dataset(path, classes=["Cat"])


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([1], "no list of objects named 'categories'"),
        ({"images": [], "categories": []}, "no list of objects named 'annotations'"),
        ({"images": {}, "annotations": [], "categories": []}, "named 'images'"),
        ({"image_id": 1, "category_id": 2}, "no list of objects named 'categories'"),
    ],
)
def test_what_is_not_coco_is_one_error(tmp_path: Path, document: Any, message: str) -> None:
    path = write_json(tmp_path / "coco.json", document)
    with pytest.raises(AnnotationError, match=message):
        load_dataset(path, format="coco")


def test_a_folder_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no COCO instances file"):
        load_dataset(tmp_path, format="coco")
    assert not coco.matches(tmp_path)


def test_a_real_set_opens_with_its_path_alone(sets_root: Path) -> None:
    train, val = (load_dataset(sets_root / "facemask_coco", split) for split in ("train", "val"))
    assert (len(train), sum(len(s.boxes) for s in train)) == (677, 3106)
    assert (len(val), sum(len(s.boxes) for s in val)) == (171, 915)
    assert train.classes == val.classes == ("mask_weared_incorrect", "with_mask", "without_mask")
