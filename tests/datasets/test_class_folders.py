"""Folders of images, one per class."""

from __future__ import annotations

from pathlib import Path

import pytest

from sppdet.core.errors import DatasetError
from sppdet.datasets import load_class_folders


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no folders of images; make one folder per class"):
        load_class_folders(tmp_path)
    with pytest.raises(DatasetError, match="no such folder"):
        load_class_folders(tmp_path / "none")


def test_classes_and_files_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    make(tmp_path, "owl/b.png", "owl/a.JPG", "cat/z.webp", "cat/notes.txt", "cat/.hidden.jpg")
    make(tmp_path, ".trash/a.jpg", "readme.md", "cat/raw/a.jpg")
    found = load_class_folders(tmp_path)
    assert found.classes == ("cat", "owl")
    assert [path.name for path in found.paths] == ["z.webp", "a.JPG", "b.png"]
    assert found.labels.tolist() == [0, 1, 1]
    assert len(found) == 3


def test_splits_share_classes(tmp_path: Path) -> None:
    make(tmp_path, "train/cat/1.jpg", "train/owl/2.jpg", "train/ant/3.jpg", "val/owl/4.jpg")
    train = load_class_folders(tmp_path, "train")
    val = load_class_folders(tmp_path, "val", classes=train.classes)
    assert val.classes == train.classes == ("ant", "cat", "owl")
    assert val.labels.tolist() == [2]
    assert val.name.endswith("val")


def test_a_class_that_is_not_known_is_named(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.jpg", "dgo/2.jpg")
    with pytest.raises(DatasetError, match=r"dgo: is not one of the classes cat, dog"):
        load_class_folders(tmp_path, classes=["cat", "dog"])
    with pytest.raises(DatasetError, match="repeats cat"):
        load_class_folders(tmp_path, classes=["cat", "cat", "dgo"])


def test_a_class_without_images_is_named(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.jpg", "dog/readme.txt")
    with pytest.raises(DatasetError, match=r"dog: holds no images; add some"):
        load_class_folders(tmp_path)


def test_a_forgotten_split_is_guessed(tmp_path: Path) -> None:
    make(tmp_path, "train/cat/1.jpg", "val/cat/2.jpg")
    with pytest.raises(DatasetError, match=r"holds folders, and no images; .*--split train"):
        load_class_folders(tmp_path)


def test_a_file_is_not_a_data_set(tmp_path: Path) -> None:
    make(tmp_path, "photo.jpg")
    with pytest.raises(DatasetError, match="cannot be listed"):
        load_class_folders(tmp_path / "photo.jpg")
    with pytest.raises(DatasetError, match="cannot be listed"):
        load_class_folders(tmp_path / "a\0b")
