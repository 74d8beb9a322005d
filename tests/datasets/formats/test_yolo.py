from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sppdet.core.errors import AnnotationError, DatasetError
from sppdet.core.types import Dataset
from sppdet.datasets import raw as kinds
from sppdet.datasets.formats import yolo
from sppdet.datasets.load import load_dataset, read_dataset
from sppdet.datasets.raw import Findings
from tests.helpers.made_annotations import NAMES, write_image, write_images
from tests.helpers.made_yolo import BOXES, CLASSES, write_labels, write_text


def parallel(root: Path, split: str = "train") -> None:
    write_images(root / "images" / split)
    write_labels(root / "labels" / split)


def by_split(root: Path, split: str = "train") -> None:
    write_images(root / split / "images")
    write_labels(root / split / "labels")


def classes_txt(root: Path) -> None:
    write_text(root / "classes.txt", "cat\ndog\n")


def yaml(root: Path, text: str) -> None:
    write_text(root / "data.yaml", f"{text}\nnc: 2\nnames: ['cat', 'dog']")


def layout_roboflow(root: Path) -> None:
    by_split(root)
    yaml(root, "train: ../train/images\nval: ../valid/images")


def layout_ultralytics(root: Path) -> None:
    parallel(root)
    yaml(root, "path: ../datasets/mine\ntrain: images/train\nval: images/train")


def layout_other_machine(root: Path) -> None:
    by_split(root)
    yaml(root, "train: /content/drive/MyDrive/mine/train/images")


def layout_windows(root: Path) -> None:
    parallel(root)
    yaml(root, r"train: C:\Users\me\mine\images\train")


def layout_split_alone(root: Path) -> None:
    by_split(root)
    yaml(root, "train: train")


def layout_flat(root: Path) -> None:
    write_images(root / "images")
    write_labels(root / "labels")
    yaml(root, "train: images")


def layout_without_yaml(root: Path) -> None:
    parallel(root)
    classes_txt(root)


def layout_split_without_yaml(root: Path) -> None:
    by_split(root)
    classes_txt(root)


def layout_beside(root: Path) -> None:
    write_images(root)
    write_labels(root)
    classes_txt(root)
    write_text(root / "README.txt", "Labels of cats\n")


def layout_list(root: Path) -> None:
    write_images(root / "images")
    write_labels(root / "labels")
    write_text(root / "train.txt", "".join(f"./images/{name}\n" for name in NAMES))
    yaml(root, "path: .\ntrain: train.txt")


def layout_darknet(root: Path) -> None:
    write_images(root / "obj_train_data")
    write_labels(root / "obj_train_data")
    write_text(root / "train.txt", "".join(f"data/obj_train_data/{name}\n" for name in NAMES))
    write_text(root / "obj.names", "cat\ndog\n")
    write_text(root / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n")


def layout_label_inside_images(root: Path) -> None:
    write_images(root / "train")
    write_labels(root / "train" / "labels")
    classes_txt(root)


def layout_joined_names(root: Path) -> None:
    write_images(root / "train_images")
    write_labels(root / "train_labels")
    classes_txt(root)


def layout_yaml_below(root: Path) -> None:
    parallel(root)
    yaml(root / "config", "train: ../images/train")


LAYOUTS = [value for name, value in list(globals().items()) if name.startswith("layout_")]


def assert_boxes(dataset: Dataset) -> None:
    assert dataset.classes == CLASSES
    assert {sample.image_id for sample in dataset} == set(BOXES)
    for sample in dataset:
        want = BOXES[sample.image_id]
        assert [dataset.classes[label] for label in sample.labels] == [name for name, _ in want]
        boxes = np.array([box for _, box in want]).reshape(-1, 4)
        np.testing.assert_allclose(sample.boxes, boxes, atol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda one: one.__name__[7:])
def test_every_layout_opens_with_its_path_alone(
    layout: Callable[[Path], None], tmp_path: Path
) -> None:
    root = tmp_path / "set" / "data"
    layout(root)
    for source in (root, tmp_path / "set"):
        assert_boxes(load_dataset(source))
    assert not yolo.matches(tmp_path / "set")


def test_a_yaml_file_can_be_given(tmp_path: Path) -> None:
    layout_roboflow(tmp_path)
    assert_boxes(load_dataset(tmp_path / "data.yaml", "train"))


def test_a_yaml_in_a_folder_of_its_own(tmp_path: Path) -> None:
    parallel(tmp_path)
    yaml(tmp_path / "config", "train: ../images/train")
    assert_boxes(load_dataset(tmp_path / "config" / "data.yaml"))


def test_a_split_alone_has_the_names_of_its_set(tmp_path: Path) -> None:
    layout_roboflow(tmp_path)
    assert_boxes(load_dataset(tmp_path / "train"))


def test_images_can_be_named(tmp_path: Path) -> None:
    parallel(tmp_path / "far" / "away")
    yaml(tmp_path / "config", "path: /somewhere\ntrain: images/train")
    with pytest.raises(DatasetError, match="no folder of images"):
        load_dataset(tmp_path / "config")
    assert_boxes(load_dataset(tmp_path / "config", images=tmp_path / "far" / "away"))


def test_a_split_in_another_folder_is_told(tmp_path: Path) -> None:
    by_split(tmp_path)
    by_split(tmp_path, "validate")
    yaml(tmp_path, "train: ../train/images\nval: ../valid/images\ntest: ../test/images")
    findings = Findings()
    raw = read_dataset(tmp_path, findings)
    assert raw.splits == ("train", "val")
    assert findings.counts() == {kinds.OTHER_FOLDER: 1, kinds.NO_SPLIT: 1}
    assert "validate/images is" in next(findings.of(kinds.OTHER_FOLDER)).message


def test_paths_lead_nowhere_else(tmp_path: Path) -> None:
    parallel(tmp_path / "secret" / "set")
    root = tmp_path / "deep" / "er" / "mine"
    by_split(root, "val")
    yaml(root, f"train: {tmp_path}/secret/set/images/train\nval: val/images")
    findings = Findings()
    raw = read_dataset(root, findings)
    assert {image.split for image in raw.images} == {"val"}
    yaml(root, "train: ../../../secret/set/images/train\nval: val/images")
    assert {image.split for image in read_dataset(root, findings).images} == {"val"}


def test_lines_in_all_spellings(tmp_path: Path) -> None:
    layout_beside(tmp_path)
    (tmp_path / "a.txt").write_bytes(
        b"\xef\xbb\xbf0 0.5 0.5 0.5 0.5\r\n"  # byte order mark
        b"1,0.5,0.5,0.25,0.25\r\n"
        b"0 0,5 0,5 0,5 0,5\n"  # commas for points
        b"1.0\t0.5 0.5 0.5 0.5 0.9\n\n"  # a confidence
        b"0 0.25 0.25 0.75 0.25 0.75 0.5"  # a polygon, no end of line
    )
    findings = Findings()
    sample = load_dataset(tmp_path, findings=findings).samples[0]
    want = [[40, 30, 120, 90], [60, 45, 100, 75], [40, 30, 120, 90], [40, 30, 120, 90]]
    np.testing.assert_allclose(sample.boxes, [*want, [40, 30, 120, 60]])
    assert sample.labels.tolist() == [0, 1, 0, 1, 0]
    assert findings.counts() == {kinds.CONFIDENCE: 1, kinds.POLYGON: 1}


def test_bad_lines_are_counted(tmp_path: Path) -> None:
    layout_beside(tmp_path)
    good = "0 0.5 0.5 0.5 0.5\n" * 90 + "1 0.5 0.5 0.5 0.5\n"
    bad = "0 0.5 0.5\nbird 0.5 0.5 0.1 0.1\n0 nan 0.5 0.1 0.1\n0 1 2 3 4 5 6 7\n0.5 0 0 1 1\n"
    write_text(tmp_path / "a.txt", good + bad + "7 0.5 0.5 0.1 0.1\n-1 0.5 0.5 0.1 0.1\n")
    findings = Findings()
    dataset = load_dataset(tmp_path, findings=findings)
    assert len(dataset.samples[0].boxes) == 91
    assert findings.counts() == {kinds.BAD_OBJECT: 5, kinds.CLASS_NUMBER: 2}
    first = next(findings.of(kinds.CLASS_NUMBER))
    assert first.message == "line 97 has the class 7, but the names are of 0 to 1"


def test_polygons_alone_are_no_finding(tmp_path: Path) -> None:
    layout_without_yaml(tmp_path)
    for name in ("a", "b", "c"):
        write_text(tmp_path / "labels/train" / f"{name}.txt", "0 0 0 1 0 1 1\n1 0 0 1 0 1 1 0 1\n")
    findings = Findings()
    assert len(load_dataset(tmp_path, findings=findings).samples[2].boxes) == 2
    assert not len(findings)


def test_keypoints_follow_boxes(tmp_path: Path) -> None:
    layout_flat(tmp_path)
    yaml(tmp_path, "train: images\nkpt_shape: [2, 3]")
    write_text(tmp_path / "labels/a.txt", "0 0.5 0.5 0.5 0.5 0.1 0.1 2 0.2 0.2 2")
    sample = load_dataset(tmp_path).samples[0]
    np.testing.assert_allclose(sample.boxes, [[40, 30, 120, 90]])


def test_images_without_labels_and_labels_without_images(tmp_path: Path) -> None:
    layout_roboflow(tmp_path)
    for number in range(20):
        write_image(tmp_path / "train/images" / f"more{number}.jpg")
    write_text(tmp_path / "train/labels" / "gone.txt", "0 0.5 0.5 0.1 0.1")
    for folder in ("train", "train/images", "train/labels"):
        write_text(tmp_path / folder / "#temp", " ")
        write_text(tmp_path / folder / ".DS_Store", "\0\1")
    (tmp_path / "train/labels/c.txt").write_bytes(b"\xff\xfe\x00")
    findings = Findings()
    dataset = load_dataset(tmp_path, findings=findings)
    assert len(dataset) == 22
    del findings.all[0]  # val is not there
    assert findings.counts() == {
        kinds.NO_LABEL_FILE: 20,
        kinds.BROKEN_ANNOTATION: 1,
        kinds.NO_LABELED_IMAGE: 1,
    }


def test_classes_without_names_are_called_by_their_numbers(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    write_labels(tmp_path / "labels")
    write_text(tmp_path / "labels" / "b.txt", "10 0.5 0.5 0.1 0.1")
    findings = Findings()
    assert load_dataset(tmp_path, findings=findings).classes == ("0", "1", "10")
    assert findings.counts() == {kinds.NO_NAMES: 1}


def test_ids_tell_images_of_one_name_apart(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_images(tmp_path / "images" / folder)
        write_labels(tmp_path / "labels" / folder)
    yaml(tmp_path, "train: [images/one, images/two]")
    ids = [sample.image_id for sample in load_dataset(tmp_path)]
    assert ids[0] == "images/one/a"
    assert len(set(ids)) == 6


def test_other_texts_are_no_data_set(tmp_path: Path) -> None:
    write_images(tmp_path)
    write_text(tmp_path / "a.txt", "A cat on a mat\n")
    assert not yolo.matches(tmp_path)
    with pytest.raises(DatasetError, match="no annotations of a known format"):
        load_dataset(tmp_path)


def test_a_broken_yaml_is_one_line(tmp_path: Path) -> None:
    layout_roboflow(tmp_path)
    write_text(tmp_path / "data.yaml", "train: train/images\nnames: [cat, dog")
    with pytest.raises(AnnotationError, match="line 2 is not understood"):
        load_dataset(tmp_path)


def test_a_real_dirty_set(sets_root: Path) -> None:
    source = sets_root / "ships_yolo"
    findings = Findings()
    train = load_dataset(source, "train", findings=findings)
    assert (len(train), train.classes) == (405, ("Ships",))
    assert sum(len(sample.boxes) for sample in train) == 472
    assert findings.counts()[kinds.NO_LABEL_FILE] == 88
    with pytest.raises(DatasetError, match=r"79 of 99 images.*has the class 3, but.*--lenient"):
        load_dataset(source, "val")
    findings = Findings()
    raw = read_dataset(source, findings)
    assert raw.splits == ("train", "val", "test")
    counts = findings.counts()
    assert counts[kinds.OTHER_FOLDER] == 1
    assert counts[kinds.NO_LABELED_IMAGE] == 34
    assert counts[kinds.CLASS_NUMBER] == 150
    assert counts[kinds.POLYGON] == 90


def exported_by_label_studio(root: Path) -> None:
    write_labels(root / "labels")
    classes_txt(root)


def exported_by_cvat(root: Path) -> None:
    write_labels(root / "obj_train_data")
    write_text(root / "obj.names", "cat\ndog\n")
    write_text(root / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names")
    write_text(root / "train.txt", "\n".join(f"data/obj_train_data/{name}" for name in NAMES))


def exported_in_splits(root: Path) -> None:
    write_labels(root / "labels" / "train")
    yaml(root, "train: images/train")


@pytest.mark.parametrize(
    ("write", "place"),
    [
        (exported_by_label_studio, "images"),
        (exported_by_cvat, "obj_train_data"),
        (exported_in_splits, "images/train"),
    ],
)
def test_labels_without_their_images(
    write: Callable[[Path], None], place: str, tmp_path: Path
) -> None:
    root, images = tmp_path / "set", tmp_path / "photos"
    write(root)
    findings = Findings()
    with pytest.raises(DatasetError, match="name the folder of the images with --images"):
        load_dataset(root, findings=findings)
    assert findings.counts() == {kinds.MISSING_IMAGE: 3, kinds.NO_OBJECTS_HERE: 2}
    assert {one.path.parent for one in findings.of(kinds.MISSING_IMAGE)} == {root / place}
    write_images(images)
    found = Findings()
    assert_boxes(load_dataset(root, images=images, findings=found))
    assert not len(found)
    raw = read_dataset(root, found, images=images)
    assert raw.splits == (() if place == "images" else ("train",))


def test_an_image_of_the_named_folder_without_a_label_has_no_objects(tmp_path: Path) -> None:
    exported_by_label_studio(tmp_path / "set")
    write_images(tmp_path / "photos")
    write_image(tmp_path / "photos" / "d.jpg")
    findings = Findings()
    dataset = load_dataset(tmp_path / "set", images=tmp_path / "photos", findings=findings)
    assert len(dataset) == 4
    assert findings.counts() == {kinds.NO_LABEL_FILE: 1}


def test_a_named_folder_of_other_images_adds_none(tmp_path: Path) -> None:
    exported_by_label_studio(tmp_path / "set")
    write_image(tmp_path / "photos" / "d.jpg")
    with pytest.raises(DatasetError, match="3 of 3 images cannot be used"):
        load_dataset(tmp_path / "set", images=tmp_path / "photos")
