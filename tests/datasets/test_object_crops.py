"""Object crops: which pixels, which files, and what happens to what cannot be cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sppdet.core.errors import DatasetError
from sppdet.core.images import read_image
from sppdet.core.types import Dataset, Sample
from sppdet.datasets import (
    load_class_folders,
    load_dataset,
    make_synthetic_voc,
    write_object_crops,
)
from sppdet.datasets.object_crops import crop_bounds


def sample(
    folder: Path, name: str, boxes: list[list[float]], labels: list[int], difficult: list[bool]
) -> Sample:
    rng = np.random.default_rng(len(name))
    smooth = rng.integers(0, 256, (3, 4, 3)).astype(np.uint8)
    path = folder / f"{name.replace('/', '-')}.png"
    Image.fromarray(smooth).resize((80, 60), Image.Resampling.BICUBIC).save(path)
    return Sample(
        name, path, 80, 60, np.array(boxes, np.float32), np.array(labels), np.array(difficult)
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    first = sample(
        tmp_path, "one", [[10, 5, 40, 45], [0, 0, 8, 60], [5, 5, 75, 55]], [1, 0, 1], [False] * 3
    )
    second = sample(tmp_path, "t/wo", [[1, 2, 30, 50], [9, 9, 20, 20]], [2, 2], [False, True])
    return Dataset("made", ("ant", "bee", "cat", "dog"), (first, second))


def test_a_data_set_without_objects_gives_nothing(tmp_path: Path) -> None:
    empty = sample(tmp_path, "none", [], [], [])
    for samples in ((), (empty,)):
        with pytest.raises(DatasetError, match="gives no crops"):
            write_object_crops(Dataset("void", ("ant",), samples), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["none.png"]


def test_crops_are_the_objects_pixels(dataset: Dataset, tmp_path: Path) -> None:
    told = write_object_crops(dataset, tmp_path / "out")
    assert told.crops == {"ant": 1, "bee": 2, "cat": 1}
    assert (told.left_out, told.problems) == (1, ())
    files = sorted(p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.glob("out/*/*"))
    assert files == ["ant/one_2.jpg", "bee/one_1.jpg", "bee/one_3.jpg", "cat/t-wo_1.jpg"]
    crop = read_image(tmp_path / "out/bee/one_1.jpg").astype(int)
    true = read_image(dataset.samples[0].path)[5:45, 10:40].astype(int)
    assert crop.shape == true.shape
    assert np.abs(crop - true).mean() < 3
    found = load_class_folders(tmp_path / "out")
    assert (found.classes, found.labels.tolist()) == (("ant", "bee", "cat"), [0, 1, 1, 2])


def test_margin_difficult_and_small_objects(dataset: Dataset, tmp_path: Path) -> None:
    told = write_object_crops(dataset, tmp_path / "out", margin=0.5, difficult=True, min_side=11)
    assert told.crops == {"bee": 2, "cat": 2}
    assert told.left_out == 1
    assert read_image(tmp_path / "out/bee/one_1.jpg").shape == (60, 55, 3)


@given(
    st.tuples(*[st.floats(0, 99)] * 4),
    st.floats(0, 3),
)
def test_bounds_hold_the_box_and_stay_inside(
    corners: tuple[float, float, float, float], margin: float
) -> None:
    x1, x2 = sorted(corners[:2])
    y1, y2 = sorted(corners[2:])
    box = (x1, y1, x2 + 1, y2 + 1)
    left, top, right, bottom = crop_bounds(box, margin, 100, 100)
    assert 0 <= left <= x1 < x2 + 1 <= right <= 100
    assert 0 <= top <= y1 < y2 + 1 <= bottom <= 100
    whole = (int(x1), int(y1), int(x2) + 1, int(y2) + 1)
    assert crop_bounds(whole, 0.0, 100, 100) == whole


def test_a_broken_image_is_named_and_the_rest_written(dataset: Dataset, tmp_path: Path) -> None:
    dataset.samples[0].path.write_bytes(b"no image")
    told = write_object_crops(dataset, tmp_path / "out")
    assert told.crops == {"cat": 1}
    assert "one.png" in str(told.problems[0])
    dataset.samples[1].path.unlink()
    with pytest.raises(DatasetError, match=r"gives no crops: .*one\.png"):
        write_object_crops(dataset, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_bad_requests_are_refused_and_leave_nothing(dataset: Dataset, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").touch()
    with pytest.raises(DatasetError, match="is already there"):
        write_object_crops(dataset, taken)
    with pytest.raises(DatasetError, match="margin"):
        write_object_crops(dataset, tmp_path / "out", margin=-0.1)
    for name in ("a/b", "..", ".hidden", "c:\\d", "nul\0"):
        odd = Dataset("odd", (name, "bee", "cat", "dog"), dataset.samples)
        with pytest.raises(DatasetError, match="cannot be a folder's name"):
            write_object_crops(odd, tmp_path / "out")
    first, second = dataset.samples
    twins = (
        second,
        Sample("t-wo", second.path, 80, 60, second.boxes, second.labels, second.difficult),
    )
    with pytest.raises(DatasetError, match="two images would be called so"):
        write_object_crops(Dataset("twins", dataset.classes, (first, *twins)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_the_same_crops_come_out_twice(tmp_path: Path) -> None:
    root = make_synthetic_voc(tmp_path / "shapes", train=4, val=0, test=0)
    dataset = load_dataset(root, "train")
    for name in ("a", "b"):
        write_object_crops(dataset, tmp_path / name, margin=0.2)
    a, b = (
        {p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*.jpg")}
        for n in ("a", "b")
    )
    assert a == b
    assert len(a) >= 4
