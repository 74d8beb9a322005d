from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sppdet.core.errors import DatasetError
from sppdet.core.types import Dataset, Sample
from sppdet.datasets.load import load_dataset
from sppdet.datasets.raw import Findings
from sppdet.datasets.tools import convert
from sppdet.datasets.tools.convert import convert_dataset, load_splits
from sppdet.datasets.tools.writers import TARGETS, Target
from tests.helpers.made_annotations import write_image

WIDTH, HEIGHT = 97, 61
COPIES = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

_x = st.floats(0, WIDTH - 3, width=32)
_y = st.floats(0, HEIGHT - 3, width=32)
_side = st.floats(2, WIDTH, width=32)


class Object(NamedTuple):
    """A drawn object."""

    label: int
    box: tuple[float, float, float, float]
    difficult: bool


@st.composite
def objects(draw: st.DrawFn) -> Object:
    x, y = draw(_x), draw(_y)
    right, bottom = min(x + draw(_side), WIDTH), min(y + draw(_side), HEIGHT)
    return Object(draw(st.integers(0, 2)), (x, y, right, bottom), draw(st.booleans()))


images = st.lists(st.lists(objects(), max_size=4), min_size=1, max_size=4)
names = st.lists(
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8),
    min_size=3,
    max_size=3,
    unique=True,
)


def make_dataset(
    folder: Path, items: list[list[Object]], classes: tuple[str, ...] = ("c", "a", "b b")
) -> Dataset:
    """Make a data set of images of one size; each class has an object in the first."""
    first = [Object(label, (1, 2, 30, 40), False) for label in range(len(classes))]
    samples = []
    for number, each in enumerate([[*first, *items[0]], *items[1:]]):
        path = folder / f"image {number}.png"
        if not path.exists():
            write_image(path, (WIDTH, HEIGHT))
        samples.append(
            Sample(
                image_id=path.stem,
                path=path,
                width=WIDTH,
                height=HEIGHT,
                boxes=np.array([one.box for one in each], np.float32).reshape(-1, 4),
                labels=np.array([one.label for one in each], np.int64),
                difficult=np.array([one.difficult for one in each], np.bool_),
            )
        )
    return Dataset("made", classes, tuple(samples))


def assert_same(one: Dataset, other: Dataset, to: Target) -> None:
    assert one.classes == other.classes
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.path.resolve() == b.path.resolve()
        assert (a.width, a.height) == (b.width, b.height)
        assert a.labels.tolist() == b.labels.tolist()
        if to == "yolo":
            np.testing.assert_allclose(a.boxes, b.boxes, atol=0.1 / 50)
        else:
            np.testing.assert_allclose(a.boxes, b.boxes, atol=2e-5, rtol=0)
            assert a.difficult.tolist() == b.difficult.tolist()


@pytest.mark.parametrize("to", TARGETS)
@COPIES
@given(items=images, classes=names)
@example(items=[[]], classes=["0", "#", "00"])
def test_there_and_back_gives_the_same_boxes(
    to: Target,
    items: list[list[Object]],
    classes: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("there")
    dataset = make_dataset(folder / "from", items, tuple(classes))
    convert_dataset({None: dataset}, folder / "out", to)
    assert_same(dataset, load_dataset(folder / "out"), to)


@pytest.mark.parametrize("to", TARGETS)
def test_splits_come_back(to: Target, tmp_path: Path) -> None:
    train = make_dataset(tmp_path / "train", [[], [Object(1, (2, 3, 9, 9), True)], []])
    val = make_dataset(tmp_path / "val", [[Object(2, (2, 3, 9.5, 9.25), False)], []])
    findings = convert_dataset({"train": train, "val": val}, tmp_path / "out", to)
    for split, dataset in (("train", train), ("val", val)):
        assert_same(dataset, load_dataset(tmp_path / "out", split), to)
    # Both images of val are called as two of train.
    assert findings.counts()[convert.RENAMED] == len(val)
    assert (convert.LOST_DIFFICULT in findings.counts()) == (to == "yolo")
    assert (convert.DIFFICULT_AS_CROWD in findings.counts()) == (to == "coco")


@pytest.mark.parametrize("start", TARGETS)
@pytest.mark.parametrize("to", TARGETS)
def test_from_each_format_to_each(start: Target, to: Target, tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "from", [[Object(2, (2, 3, 9.5, 9.25), False)], []])
    convert_dataset({"val": dataset}, tmp_path / "one", start)
    splits = load_splits(tmp_path / "one")
    assert list(splits) == ["val"]
    convert_dataset(splits, tmp_path / "two", to)
    atol = 0.01 if "yolo" in (start, to) else 2e-5
    back = load_dataset(tmp_path / "two", "val")
    assert back.classes == dataset.classes
    for a, b in zip(dataset, back, strict=True):
        np.testing.assert_allclose(a.boxes, b.boxes, atol=atol)


def test_images_are_linked_or_copied(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "from", [[]])
    convert_dataset({None: dataset}, tmp_path / "linked", "voc")
    link = tmp_path / "linked" / "JPEGImages" / "image 0.png"
    assert link.is_symlink()
    assert link.resolve() == dataset.samples[0].path.resolve()
    convert_dataset({None: dataset}, tmp_path / "copied", "voc", copy=True)
    image = tmp_path / "copied" / "JPEGImages" / "image 0.png"
    assert not image.is_symlink()
    assert image.read_bytes() == dataset.samples[0].path.read_bytes()


def test_areas_of_masks_are_told(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "from", [[]])
    first = dataset.samples[0]
    areas = np.array([1, 2, 3], np.float32)
    sample = Sample(
        first.image_id, first.path, WIDTH, HEIGHT, first.boxes, first.labels, first.difficult, areas
    )
    own = Dataset("made", dataset.classes, (sample,))
    assert convert.LOST_AREAS in convert_dataset({None: own}, tmp_path / "csv", "csv").counts()
    boxes = first.boxes
    sides = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) * np.float32(1.0005)
    plain = Dataset("made", dataset.classes, (replace(sample, areas=sides),))
    assert not len(convert_dataset({None: plain}, tmp_path / "plain", "csv"))
    assert not len(convert_dataset({None: own}, tmp_path / "coco", "coco"))
    back = load_dataset(tmp_path / "coco").samples[0]
    assert back.areas is not None
    assert back.areas.tolist() == [1, 2, 3]


def test_names_that_tools_stumble_over_are_changed_and_told(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "from", [[], []])
    odd = write_image(tmp_path / "from" / "#a, 'b'\n.JPG", (WIDTH, HEIGHT))
    first = dataset.samples[0]
    sample = Sample("odd", odd, WIDTH, HEIGHT, first.boxes, first.labels, first.difficult)
    own = Dataset("made", dataset.classes, (sample, dataset.samples[1]))
    for to in TARGETS:
        findings = convert_dataset({None: own}, tmp_path / to, to)
        told = {convert.SAME_VAL: 1} if to == "yolo" else {}
        assert findings.counts() == {convert.RENAMED: 1, **told}
        assert_same(own, load_dataset(tmp_path / to), to)


def test_what_is_there_stays(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "from", [[]])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    with pytest.raises(DatasetError, match="already there"):
        convert_dataset({None: dataset}, tmp_path / "out", "csv")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_nothing_is_left_of_what_failed(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "from", [[]])
    dataset.samples[0].path.unlink()
    with pytest.raises(DatasetError, match="cannot be linked"):
        convert_dataset({None: dataset}, tmp_path / "out", "coco")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from"]


def test_an_unknown_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no writer"):
        convert_dataset({None: make_dataset(tmp_path, [[]])}, tmp_path / "o", "xml")  # type: ignore[arg-type]


def test_findings_are_given_once(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "from", [[], []])
    convert_dataset({"val": dataset}, tmp_path / "out", "yolo", copy=True)
    (tmp_path / "out/labels/val/image 1.txt").unlink()
    findings = Findings()
    load_splits(tmp_path / "out", findings)
    assert len(findings) == 1


@pytest.mark.parametrize(
    ("names", "lines", "back"),
    [
        ([None], ["train: images", "val: images"], ["train", "val"]),
        (["Train", "valid"], ["train: images/Train", "val: images/valid"], ["train", "val"]),
        (
            ["trainval", "test"],
            ["train: images/trainval", "test: images/test", "val: images/test"],
            ["train", "val", "test"],
        ),
        (["train"], ["train: images/train", "val: images/train"], ["train", "val"]),
        (["test"], ["test: images/test", "nc: 3"], ["test"]),
        (
            ["train", "valid", "Validation"],
            ["train: images/train", "val:", "  - images/valid", "  - images/Validation"],
            ["train", "val"],
        ),
    ],
)
def test_yolo_names_splits_as_tools_do(
    names: list[str | None], lines: list[str], back: list[str], tmp_path: Path
) -> None:
    splits = {name: make_dataset(tmp_path / f"in {name}", [[], []]) for name in names}
    findings = convert_dataset(splits, tmp_path / "out", "yolo")
    assert (tmp_path / "out/data.yaml").read_text().splitlines()[: len(lines)] == lines
    is_same = len(back) > len(names)
    assert (convert.SAME_VAL in findings.counts()) == is_same
    made = load_splits(tmp_path / "out")
    assert list(made) == back
    assert sum(map(len, made.values())) == 2 * len(names) + 2 * is_same


def test_only_a_class_that_no_split_has_is_told(tmp_path: Path) -> None:
    classes = ("c", "a", "b b")
    train = make_dataset(tmp_path / "train", [[], []], classes)
    val = replace(train, samples=make_dataset(tmp_path / "val", [[], []]).samples[1:])
    convert_dataset({"train": train, "val": val}, tmp_path / "out", "yolo")
    findings = Findings()
    assert list(load_splits(tmp_path / "out", findings)) == ["train", "val"]
    assert not len(findings)
