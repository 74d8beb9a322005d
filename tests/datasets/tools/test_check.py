from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from sppdet.core.errors import DatasetError
from sppdet.datasets import raw as kinds
from sppdet.datasets.tools import check
from sppdet.datasets.tools.check import check_dataset, format_report
from sppdet.datasets.tools.duplicates import find_duplicates, fingerprint, fingerprint_all
from tests.helpers.made_yolo import write_text


def photo(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Draw smooth noise: as different from each other as photos are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def save(image: Image.Image, path: Path, quality: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=quality)
    return path


def make_set(root: Path) -> Path:
    """A YOLO data set of two splits with a pair of images of each kind."""
    for number in range(8):
        save(photo(number), root / "train/images" / f"{number}.jpg")
        write_text(root / "train/labels" / f"{number}.txt", "0 0.5 0.5 0.5 0.5\n")
    save(photo(100), root / "val/images" / "100.jpg")
    save(photo(3), root / "val/images" / "again.jpg")
    save(photo(5, (320, 240)), root / "val/images" / "larger.jpg", 60)
    write_text(root / "val/labels/100.txt", "1 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.6 0.5\n")
    write_text(root / "val/labels/again.txt", "")
    write_text(root / "data.yaml", "train: train/images\nval: val/images\nnames: [cat, dog]\n")
    return root


def test_a_report_of_all(tmp_path: Path) -> None:
    report = check_dataset(make_set(tmp_path))
    assert report.summary.startswith("YOLO (data.yaml), 11 images, 10 boxes, 2 classes: cat, dog")
    assert report.images == {"train": 8, "val": 3}
    assert report.images_without_objects == {"train": 0, "val": 2}
    assert report.classes == {"cat": {"train": 8, "val": 1}, "dog": {"train": 0, "val": 1}}
    assert report.small_share == 0.1
    assert report.image_sizes == {"160x120": 10, "320x240": 1}
    assert {kind: len(pairs) for kind, pairs in report.duplicates.items()} == {
        "images of the same bytes in different splits": 1,
        "nearly the same images in different splits": 1,
    }
    assert report.notes[kinds.NO_LABEL_FILE].count == 1
    assert not report.refused
    assert json.loads(json.dumps(report.to_dict()))["problem_count"] == 0
    text = format_report(report)
    assert "val: 3 images, 2 of them without objects" in text
    assert "  dog: 0 in train, 1 in val" in text
    assert "10 % smaller than 32 x 32 pixels" in text


def test_all_that_is_wrong_is_named_and_what_would_be_refused(tmp_path: Path) -> None:
    root = make_set(tmp_path)
    lines = "".join(f"{n} 0.5 0.5 0.1 0.1\n" for n in range(2, 14)) + "0 2 2 0.1 0.1\n"
    write_text(root / "val/labels/100.txt", lines + "1 0.5 0.5 0.1 0.1")
    data = (root / "train/images/1.jpg").read_bytes()
    (root / "train/images/1.jpg").write_bytes(data[: len(data) // 2])
    (root / "train/images/2.jpg").write_bytes(b"no image")
    report = check_dataset(root)
    assert report.problems[kinds.CLASS_NUMBER].count == 12
    assert len(report.problems[kinds.CLASS_NUMBER].named) == 12
    assert report.problems[kinds.OUTSIDE].count == 1
    assert report.problems[check.DAMAGED].count == 1
    assert report.problems[kinds.UNREADABLE_IMAGE].count == 1
    assert set(report.refused) == {"all", "train", "val"}
    text = format_report(report)
    assert all(f"line {n} has the class" in text for n in range(1, 13))
    assert "val cannot be used as it is: 13 of" in text


def test_notes_are_told_apart_from_what_is_wrong(tmp_path: Path) -> None:
    root = make_set(tmp_path)
    write_text(root / "val/labels/larger.txt", "0 0.5 0.5 0.5 0.5\n")
    text = "train: train/images\nval: val/images\nnames: [cat, dog, cow]"
    write_text(root / "data.yaml", text)
    report = check_dataset(root)
    assert not report.problems
    assert {kind: note.count for kind, note in report.notes.items()} == {kinds.NO_OBJECTS: 1}
    assert report.problem_count == 0
    lines = format_report(report).splitlines()
    assert lines[-3] == f"note: {kinds.NO_OBJECTS}: 1"
    assert lines[-1] == "nothing is wrong"
    assert "'cow'" in report.to_dict()["notes"][kinds.NO_OBJECTS]["named"][0]


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such"):
        check_dataset(tmp_path / "gone")


def test_a_set_without_objects_has_a_report(tmp_path: Path) -> None:
    save(photo(1), tmp_path / "images/1.jpg")
    write_text(tmp_path / "labels/1.txt", "")
    write_text(tmp_path / "data.yaml", "train: images\nnames: [cat]\n")
    report = check_dataset(tmp_path)
    assert "no object" in report.refused["all"]
    assert "cannot be used as it is" in format_report(report)


def test_copies_are_found_and_others_are_not(tmp_path: Path) -> None:
    paths = []
    for seed in range(40):
        image = photo(seed)
        paths += [
            save(image, tmp_path / f"{seed}.jpg"),
            save(image, tmp_path / f"{seed}-q30.jpg", 30),
            save(image.resize((80, 60)), tmp_path / f"{seed}-half.png"),
            save(ImageEnhance.Brightness(image).enhance(1.1), tmp_path / f"{seed}-bright.jpg"),
        ]
    pairs = find_duplicates(fingerprint_all(paths))
    assert {one.exact for one in pairs} == {False}
    for one in pairs:
        assert one.first // 4 == one.second // 4
    assert len(pairs) >= 0.95 * 40 * 6


def test_flat_images_are_no_duplicates_but_for_their_bytes(tmp_path: Path) -> None:
    colors = ("red", "blue", "red")
    paths = [
        save(Image.new("RGB", (50, 50), color), tmp_path / f"{n}.png")
        for n, color in enumerate(colors)
    ]
    pairs = find_duplicates(fingerprint_all(paths))
    assert [(one.first, one.second, one.exact) for one in pairs] == [(0, 2, True)]


def test_no_images_have_no_duplicates() -> None:
    assert find_duplicates(fingerprint_all([])) == []


def test_unreadable_images_have_a_problem(tmp_path: Path) -> None:
    assert "cannot be read" in fingerprint(tmp_path / "gone.jpg").problem
    (tmp_path / "a.jpg").write_bytes(b"abc")
    assert "damaged" in fingerprint(tmp_path / "a.jpg").problem
    data = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(data, "PNG")
    (tmp_path / "b.png").write_bytes(data.getvalue())
    assert fingerprint(tmp_path / "b.png").problem


def test_photos_of_voc_have_two_near_duplicates(voc_root: Path) -> None:
    paths = sorted((voc_root / "JPEGImages").glob("*.jpg"))
    pairs = find_duplicates(fingerprint_all(paths))
    named = [(paths[one.first].stem, paths[one.second].stem) for one in pairs]
    assert named == [("000863", "008364"), ("006437", "007546")]


def test_labels_without_images_are_told_with_the_option_that_finds_them(tmp_path: Path) -> None:
    write_text(tmp_path / "labels" / "a.txt", "0 0.5 0.5 0.5 0.5\n")
    report = check_dataset(tmp_path)
    assert report.problems[kinds.MISSING_IMAGE].count == 1
    assert report.refused["all"].endswith("name the folder of the images with --images")
