from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sppdet.core.errors import AnnotationError
from sppdet.datasets import raw as kinds
from sppdet.datasets.formats import csv_boxes
from sppdet.datasets.load import describe, load_dataset, read_dataset
from sppdet.datasets.raw import Findings
from tests.datasets.formats.test_yolo import assert_boxes
from tests.helpers.made_annotations import write_images
from tests.helpers.made_yolo import table_rows, write_text

TENSORFLOW = "filename width height class x1 y1 x2 y2"
HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax"
RETINANET = "filename x1 y1 x2 y2 class"


def write_table(path: Path, rows: list[str], header: str = "", delimiter: str = ",") -> Path:
    lines = [header] * bool(header) + rows
    return write_text(path, "\n".join(lines).replace(",", delimiter))


@pytest.mark.parametrize(
    ("order", "header"),
    [
        (TENSORFLOW, HEADER),
        (TENSORFLOW, ""),
        (RETINANET, ""),
        ("filename class x1 y1 x2 y2", ""),
        ("class x1 y1 x2 y2 filename", ""),
        ("x1 y1 x2 y2 class filename", ""),
        ("filename class x1 y1 x2 y2", "Image Path,Label,X1,Y1,X2,Y2"),
        ("filename class x1 y1 x2 y2", "datei,klasse,links,oben,rechts,unten"),
        ("class filename x1 x2 y1 y2", "label,image_id,xmin,xmax,ymin,ymax"),
    ],
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_in_any_order(order: str, header: str, delimiter: str, tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    write_table(tmp_path / "labels.csv", table_rows(order), header, delimiter)
    assert_boxes(load_dataset(tmp_path))
    assert_boxes(load_dataset(tmp_path / "labels.csv"))


def test_columns_are_told(tmp_path: Path) -> None:
    write_images(tmp_path)
    write_table(tmp_path / "a.csv", table_rows(TENSORFLOW), HEADER)
    raw = read_dataset(tmp_path, Findings())
    assert describe(raw) == (
        "CSV (columns: image filename, class class, x1 y1 x2 y2 xmin ymin xmax ymax), 3 images, "
        "3 boxes, 2 classes: cat, dog; no splits"
    )
    assert raw.images[0].size == (160, 120)
    write_table(tmp_path / "a.csv", table_rows(RETINANET))
    told = read_dataset(tmp_path, Findings()).format
    assert told == "CSV (no header, columns: image 1, class 6, x1 y1 x2 y2 2 3 4 5)"


def test_a_header_shorter_than_its_rows(tmp_path: Path) -> None:
    write_images(tmp_path)
    write_text(tmp_path / "a.csv", "filename\na.jpg,1,2,30,40,cat\nb.jpg,5,6,70,80,dog\n")
    assert load_dataset(tmp_path).classes == ("cat", "dog")


@pytest.mark.parametrize("place", [".", "images", "train", "../images", "../photos/all"])
def test_images_are_found_around_the_table(place: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_images((root / place).resolve())
    write_table(root / "train_labels.csv", table_rows(TENSORFLOW), HEADER)
    assert_boxes(load_dataset(root / "train_labels.csv"))


def test_names_with_folders_of_another_machine(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    rows = [f"C:\\data\\mine\\images\\{row}" for row in table_rows(RETINANET)]
    write_table(tmp_path / "labels.csv", rows)
    assert_boxes(load_dataset(tmp_path))


def test_splits_by_the_names_of_tables(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_images(tmp_path / split)
        write_table(tmp_path / f"{split}_labels.csv", table_rows(TENSORFLOW), HEADER)
    write_table(tmp_path / "all.csv", table_rows(TENSORFLOW), HEADER)
    findings = Findings()
    raw = read_dataset(tmp_path, findings)
    assert raw.splits == ("train", "test")
    assert {image.path.parent.name for image in raw.images if image.split == "test"} == {"test"}
    assert findings.counts() == {kinds.OTHER_TABLE: 1}
    assert_boxes(load_dataset(tmp_path, "test"))


def test_splits_by_the_folders_of_tables(tmp_path: Path) -> None:
    for split in ("test", "train", "valid"):
        write_images(tmp_path / split)
        write_table(tmp_path / split / "_annotations.csv", table_rows(TENSORFLOW), HEADER)
    findings = Findings()
    raw = read_dataset(tmp_path, findings)
    assert raw.splits == ("train", "valid", "test")
    assert all(image.path.parent.name == image.split for image in raw.images)
    assert not len(findings)
    assert_boxes(load_dataset(tmp_path, "val"))
    (tmp_path / "test" / "_annotations.csv").unlink()
    (tmp_path / "valid" / "_annotations.csv").unlink()
    assert read_dataset(tmp_path, Findings()).splits == ()


def test_a_column_of_splits(tmp_path: Path) -> None:
    write_images(tmp_path)
    rows = [f"{'TEST' if row[0] == 'c' else 'TRAIN'},{row}" for row in table_rows(RETINANET)]
    write_table(tmp_path / "labels.csv", rows)
    assert read_dataset(tmp_path, Findings()).splits == ("train", "test")


def test_sides_in_place_of_corners(tmp_path: Path) -> None:
    write_images(tmp_path)
    write_text(tmp_path / "b.csv", "image,x,y,w,h,label\na.jpg,20,20,60,70,cat\n")
    sample = load_dataset(tmp_path).samples[0]
    np.testing.assert_array_equal(sample.boxes, [[20, 20, 80, 90]])


def test_open_images(tmp_path: Path) -> None:
    write_images(tmp_path / "train")
    write_text(
        tmp_path / "train-annotations-bbox.csv",
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf\n"
        "a,xclick,/m/01yrx,1,0.125,0.5,0.25,0.75,0,0,0\n"
        "b,xclick,/m/0bt9lr,1,0,1,0,1,0,0,1\n",
    )
    write_text(tmp_path / "class-descriptions-boxable.csv", "/m/01yrx,Cat\n/m/0bt9lr,Dog\n")
    dataset = load_dataset(tmp_path)
    assert dataset.classes == ("Cat", "Dog")
    np.testing.assert_array_equal(dataset.samples[0].boxes, [[20, 30, 80, 90]])
    assert dataset.samples[1].difficult.tolist() == [True]


def test_the_order_of_classes_beside_the_table(tmp_path: Path) -> None:
    write_images(tmp_path)
    write_table(tmp_path / "annotations.csv", table_rows(RETINANET))
    write_text(tmp_path / "classes.csv", "dog,0\ncat,1\n")
    assert load_dataset(tmp_path).classes == ("dog", "cat")


def test_bad_rows_are_counted(tmp_path: Path) -> None:
    write_images(tmp_path)
    good = table_rows(TENSORFLOW) * 20
    bad = ["a.jpg,160,120,cat,1,2,x,4", "a.jpg,160,120,,1,2,3,4", ",160,120,cat,1,2,3,4"]
    short = ["a.jpg,160,120,cat,5", "a.jpg,160,120,cat,9,9,3,4"]
    write_table(tmp_path / "labels.csv", good + bad + short, HEADER)
    findings = Findings()
    load_dataset(tmp_path, findings=findings)
    assert findings.counts() == {kinds.BAD_OBJECT: 4, kinds.EMPTY_BOX: 1}
    assert next(findings.of(kinds.BAD_OBJECT)).message == "line 82 has no whole box (1, 2, x, 4)"


def test_names_lead_nowhere_else(tmp_path: Path) -> None:
    write_images(tmp_path)
    rows = [f"../../{row}" for row in table_rows(RETINANET)]
    write_table(tmp_path / "set" / "labels.csv", rows)
    raw = read_dataset(tmp_path / "set" / "labels.csv", Findings())
    assert all(".." not in image.path.parts for image in raw.images)


@pytest.mark.parametrize(
    "text", ["", "a,b,c\n1,2,3\n", "filename,class\na.jpg,cat\n", "1,2,3,4\n5,6,7,8\n"]
)
def test_other_tables_are_refused_in_one_line(text: str, tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.csv", text)
    assert not csv_boxes.matches(path)
    assert not csv_boxes.matches(tmp_path)
    with pytest.raises(AnnotationError, match="not a table of boxes"):
        load_dataset(path, format="csv")


def test_byte_order_mark_and_old_encodings(tmp_path: Path) -> None:
    write_images(tmp_path)
    rows = [row.replace("cat", "Käfer") for row in table_rows(RETINANET)]
    text = "file,x1,y1,x2,y2,class\r\n" + "\r\n".join(rows)
    for data in (b"\xef\xbb\xbf" + text.encode(), text.encode("latin-1")):
        (tmp_path / "labels.csv").write_bytes(data)
        assert load_dataset(tmp_path).classes == ("Käfer", "dog")


def test_a_real_set(sets_root: Path) -> None:
    train = load_dataset(sets_root / "cards", "train", format="csv")
    xml = load_dataset(sets_root / "cards", "train", format="voc")
    assert len(train) == 296
    assert train.classes == xml.classes
    same = {sample.path.name: sample for sample in xml}
    for sample in train:
        other = same[sample.path.name]
        assert sample.path == other.path
        assert len(sample.boxes) == len(other.boxes)


def test_rows_of_one_image_under_two_names_belong_together(tmp_path: Path) -> None:
    write_images(tmp_path / "imgs")
    (tmp_path / "imgs" / "c.jpg").unlink()
    rows = ["imgs/a.jpg,1,2,30,40,cat", "imgs/a,5,6,70,80,dog", "imgs/b.jpg,5,6,70,80,dog"]
    write_table(tmp_path / "labels.csv", rows)
    findings = Findings()
    raw = read_dataset(tmp_path, findings)
    assert [len(image.objects) for image in raw.images] == [2, 1]
    dataset = load_dataset(tmp_path, findings=findings)
    assert [sample.labels.tolist() for sample in dataset] == [[0, 1], [1]]
    assert not len(findings)


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize("order", ["filename x1 y1 x2 y2 class", "filename class x1 y1 x2 y2"])
def test_a_last_line_that_is_cut_anywhere(order: str, delimiter: str, tmp_path: Path) -> None:
    write_images(tmp_path)
    whole = [row.replace(",", delimiter) for row in table_rows(order) * 2]
    last = whole[0]
    for end in range(1, last.rindex(delimiter) + 1):
        write_text(tmp_path / "a.csv", "\n".join([*whole, last[:end]]))
        findings = Findings()
        raw = read_dataset(tmp_path / "a.csv", findings)
        assert len(raw.images) == 3
        assert sum(len(image.objects) for image in raw.images) == 6
        assert findings.counts() == {kinds.BAD_OBJECT: 1}
        assert f"line {len(whole) + 1} " in findings.all[0].message
