"""The synthetic data set: the same for a seed, true to its annotations, read by the VOC reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.errors import DatasetError
from sppdet.core.images import read_sample
from sppdet.datasets import SYNTHETIC_CLASSES, load_dataset, make_synthetic_voc
from sppdet.datasets.synthetic import draw_scene
from sppdet.datasets.voc_xml import read_annotation

COMMITTED = Path(__file__).resolve().parent.parent.parent / "data" / "synthetic"
SPLITS = ("train", "val", "trainval", "test")


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_splits_of_no_images_are_left_out(tmp_path: Path) -> None:
    root = make_synthetic_voc(tmp_path / "set", train=0, val=2, test=0, width=64, height=64)
    names = sorted(path.name for path in (root / "ImageSets" / "Main").iterdir())
    assert names == ["trainval.txt", "val.txt"]
    assert len(load_dataset(root, "val")) == 2


def test_committed_set_is_what_the_generator_makes(tmp_path: Path) -> None:
    """But for what another release of Pillow rounds in another way."""
    root = make_synthetic_voc(
        tmp_path / "set", train=12, val=4, test=4, width=160, height=120, max_objects=3, seed=0
    )
    made, committed = files(root), files(COMMITTED)
    assert sorted(made) == sorted(committed)
    assert sum(map(len, committed.values())) < 300_000
    for name in made:
        if name.endswith(".txt"):
            assert made[name] == committed[name], name
    for split in SPLITS:
        for ours, theirs in zip(
            load_dataset(root, split), load_dataset(COMMITTED, split), strict=True
        ):
            assert ours.labels.tolist() == theirs.labels.tolist()
            np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=2)
            difference = read_sample(ours).astype(int) - read_sample(theirs)
            assert np.abs(difference).mean() < 2


def test_committed_set_has_every_class_in_training() -> None:
    data = load_dataset(COMMITTED, "train")
    assert data.classes == SYNTHETIC_CLASSES
    assert {int(n) for s in data for n in s.labels} == set(range(len(data.classes)))


def test_splits_do_not_overlap_and_trainval_is_both(tmp_path: Path) -> None:
    root = make_synthetic_voc(tmp_path / "set", train=3, val=2, test=2, width=64, height=64)
    train, val, trainval, test = (
        [s.image_id for s in load_dataset(root, split)] for split in SPLITS
    )
    assert train + val == trainval
    assert not set(trainval) & set(test)
    assert (len(train), len(val), len(test)) == (3, 2, 2)


def test_same_seed_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    def made(name: str, seed: int) -> dict[str, bytes]:
        root = tmp_path / name
        return files(make_synthetic_voc(root, train=2, val=1, test=1, width=96, seed=seed))

    first = made("a", 5)
    assert first == made("b", 5)
    assert first != made("c", 6)


def test_an_image_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    few = files(make_synthetic_voc(tmp_path / "few", train=2, val=0, test=0, width=64, height=64))
    many = files(make_synthetic_voc(tmp_path / "many", train=5, val=2, test=1, width=64, height=64))
    for name in ("JPEGImages/000002.jpg", "Annotations/000002.xml"):
        assert few[name] == many[name]


def test_samples_fit_their_images(tmp_path: Path) -> None:
    root = make_synthetic_voc(tmp_path / "set", train=12, val=0, test=0, width=200, height=100)
    for sample in load_dataset(root, "train"):
        assert read_sample(sample).shape == (100, 200, 3)
        assert len(sample.boxes) >= 1


@given(
    st.integers(0, 2**32 - 1),
    st.integers(64, 200),
    st.integers(64, 200),
    st.sampled_from(SYNTHETIC_CLASSES),
)
@settings(max_examples=40, deadline=None)
def test_scenes_keep_their_promises(seed: int, width: int, height: int, first: str) -> None:
    image, objects = draw_scene(
        np.random.default_rng(seed), width, height, SYNTHETIC_CLASSES, first=first, max_objects=4
    )
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8
    assert 1 <= len(objects) <= 4
    assert objects[0].name == first
    assert not objects[0].difficult
    for item in objects:
        x1, y1, x2, y2 = item.box
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height


def test_a_box_is_tight_around_what_was_drawn() -> None:
    """Where one shape alone differs from the ground, its box is that difference's extent."""
    for seed in range(20):
        image, objects = draw_scene(
            np.random.default_rng(seed), 160, 120, ["star"], first="star", max_objects=1
        )
        # A star is yellow: its blue lies far below its red, which no ground comes near.
        contrast = image[:, :, 0].astype(int) - image[:, :, 2]
        rows, columns = np.nonzero(contrast > 115)
        x1, y1, x2, y2 = objects[0].box
        drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(drawn, [x1, y1, x2, y2], atol=2)


def test_flags_are_written(tmp_path: Path) -> None:
    root = make_synthetic_voc(tmp_path / "set", train=40, val=0, test=0, width=160, height=120)
    objects = [o for p in (root / "Annotations").iterdir() for o in read_annotation(p).objects]
    assert {o.difficult for o in objects} == {False, True}
    assert {o.truncated for o in objects} == {False, True}


def test_a_folder_in_use_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    keep = tmp_path / "set" / "keep.txt"
    keep.write_text("mine", encoding="utf-8")
    with pytest.raises(DatasetError, match="set: is already there"):
        make_synthetic_voc(tmp_path / "set")
    assert keep.read_text(encoding="utf-8") == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_arguments_out_of_range(tmp_path: Path) -> None:
    root = tmp_path / "set"
    with pytest.raises(DatasetError, match="needs images"):
        make_synthetic_voc(root, train=0, val=0, test=0)
    with pytest.raises(DatasetError, match="63x64 is too small"):
        make_synthetic_voc(root, width=63, height=64)
    with pytest.raises(DatasetError, match="max_objects is 0"):
        make_synthetic_voc(root, max_objects=0)
    with pytest.raises(DatasetError, match="seed is -1"):
        make_synthetic_voc(root, seed=-1)
    for classes in ([], ["blob"], ["star", "star"]):
        with pytest.raises(DatasetError, match="name each once, of circle, cross"):
            make_synthetic_voc(root, classes=classes)
    assert list(tmp_path.iterdir()) == []
