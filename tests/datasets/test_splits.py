"""Splits: names as tools have them, a seeded and stratified draw, lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.errors import DatasetError
from sppdet.core.types import Dataset, Sample
from sppdet.datasets.raw import RawDataset, RawImage
from sppdet.datasets.splits import (
    EVALUATION_SPLITS,
    TRAIN_SPLITS,
    choose_split,
    hold_out,
    match_splits,
    select_images,
    split_of_name,
    write_split_list,
)


def sample(number: int, labels: list[int]) -> Sample:
    boxes = np.tile(np.array([0, 0, 9, 9], np.float32), (len(labels), 1))
    ids = np.array(labels, np.int64)
    name = f"{number:03}"
    return Sample(name, Path(f"{name}.jpg"), 9, 9, boxes, ids, np.zeros(len(labels), np.bool_))


def made(labels: list[list[int]]) -> Dataset:
    return Dataset("set", ("a", "b", "c"), tuple(sample(n, k) for n, k in enumerate(labels)))


def raw_images(**splits: str) -> RawDataset:
    images = [
        RawImage(name, Path(folder, f"{name}.jpg"), Path(f"{name}.xml"), split=split)
        for split, names in splits.items()
        for folder, name in (one.split("/") for one in names.split())
    ]
    return RawDataset("VOC XML", "set", images, splits=tuple(splits))


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("train2017", "train"),
        ("val2017", "val"),
        ("valid", "val"),
        ("validate", "val"),
        ("validation", "val"),
        ("TEST", "test"),
        ("test_2007", "test"),
        ("trainval", "trainval"),
        ("training_data", None),
        ("images", None),
        ("2017", None),
    ],
)
def test_names_of_splits(name: str, meaning: str | None) -> None:
    assert split_of_name(name) == meaning


@pytest.mark.parametrize(
    ("splits", "wanted", "found"),
    [
        (("train", "valid"), "val", ("valid",)),
        (("train", "val"), "valid", ("val",)),
        (("train2017", "val2017"), "train", ("train2017",)),
        (("train", "valid"), "trainval", ("train", "valid")),
        (("train", "trainval", "val"), "trainval", ("trainval",)),
        (("train",), "trainval", ()),
        (("train", "val"), "test", ()),
        (("default",), "default", ("default",)),
        (("default",), "train", ()),
        ((), "train", ()),
    ],
)
def test_a_split_may_be_named_as_any_tool_does(
    splits: tuple[str, ...], wanted: str, found: tuple[str, ...]
) -> None:
    assert match_splits(splits, wanted) == found


def test_splits_that_are_chosen_where_none_is_named() -> None:
    assert choose_split(("train", "valid", "test"), TRAIN_SPLITS) == "train"
    assert choose_split(("trainval", "train", "test"), TRAIN_SPLITS) == "train"
    assert choose_split(("train", "valid", "test"), EVALUATION_SPLITS) == "valid"
    assert choose_split(("train", "test"), EVALUATION_SPLITS) == "test"
    assert choose_split(("default",), TRAIN_SPLITS) is None


def test_images_of_several_splits_are_given_once() -> None:
    raw = raw_images(train="x/a x/b", val="x/c", trainval="x/a x/b x/c")
    assert [image.image_id for image in select_images(raw, None).images] == ["a", "b", "c"]
    assert [image.image_id for image in select_images(raw, "trainval").images] == ["a", "b", "c"]
    with pytest.raises(DatasetError, match="no split 'tset'; splits that exist: train, val, tr"):
        select_images(raw, "tset")
    with pytest.raises(DatasetError, match="no split 'val'; it has no splits: name none"):
        select_images(raw_images(), "val")


def test_ids_stay_apart() -> None:
    raw = raw_images(train="x/a x/b", valid="y/a")
    ids = [image.image_id for image in select_images(raw, None).images]
    assert ids == ["train/a", "b", "valid/a"]
    assert [image.image_id for image in select_images(raw, "val").images] == ["a"]


@pytest.mark.parametrize("line", ["c", "c.jpg", "y/c.jpg", "/else/where/c.jpg", "D:\\x\\c.jpg"])
def test_lists_of_ids_and_file_names(tmp_path: Path, line: str) -> None:
    raw = raw_images(train="x/a x/b", val="y/c")
    path = tmp_path / "mine.txt"
    path.write_text(f"\ufeff{line}\r\nb\r\n", encoding="utf-8")
    chosen = select_images(raw, str(path))
    assert [image.image_id for image in chosen.images] == ["c", "b"]
    assert chosen.splits == ("mine",)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "lists no images"), ("a\na\n", "lists a twice"), ("z\n", "lists z, which is no image")],
)
def test_lists_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(text)
    with pytest.raises(DatasetError, match=rf"mine\.txt: .*{message}"):
        select_images(raw_images(train="x/a x/b"), str(path))
    with pytest.raises(DatasetError, match=r"gone\.txt: no such split file"):
        select_images(raw_images(train="x/a x/b"), str(tmp_path / "gone.txt"))


@given(
    st.lists(st.lists(st.integers(0, 2), max_size=3), min_size=2, max_size=60),
    st.integers(0, 99),
    st.sampled_from([0.1, 0.2, 0.5]),
)
@settings(max_examples=100, deadline=None)
def test_a_share_is_drawn(labels: list[list[int]], seed: int, share: float) -> None:
    data = made(labels)
    rest, held = hold_out(data, share, seed)
    again = hold_out(data, share, seed)
    ids = [[one.image_id for one in part] for part in (rest, held)]
    assert ids == [[one.image_id for one in part] for part in again]
    assert all(part == sorted(part) and part for part in ids)
    assert sorted(ids[0] + ids[1]) == [one.image_id for one in data]
    for label in range(3):
        images = [one.image_id for one in data if label in one.labels]
        # A class of one image is trained on, unless that image is all that can be held out.
        if len(images) == 1 and len(data) > 4 * sum(len(set(k)) > 0 for k in labels):
            assert images[0] in ids[0]


def test_classes_are_shared_out_alike() -> None:
    labels = [[0]] * 80 + [[1]] * 15 + [[0, 2]] * 5
    rest, held = hold_out(made(labels), 0.2, seed=3)
    counts = [sum(k in one.labels for one in held) for k in range(3)]
    assert (len(rest), len(held)) == (80, 20)
    assert counts == [17, 3, 1]
    other = hold_out(made(labels), 0.2, seed=4)[1]
    assert [one.image_id for one in held] != [one.image_id for one in other]


def test_nothing_can_be_held_out_of_one_image() -> None:
    with pytest.raises(
        DatasetError, match="set: nothing can be held out of 1 image; annotate more"
    ):
        hold_out(made([[0]]))


def test_a_written_list_is_a_split(tmp_path: Path) -> None:
    raw = raw_images(train="x/000 x/001 x/002")
    write_split_list(tmp_path / "val.txt", made([[0], [1], [2]]).samples[1:])
    chosen = select_images(raw, str(tmp_path / "val.txt"))
    assert [image.image_id for image in chosen.images] == ["001", "002"]
