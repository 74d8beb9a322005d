"""From raw annotations to a data set: what is kept, what is told, and what stops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.errors import AnnotationError, DatasetError
from sppdet.datasets.build import build_dataset
from sppdet.datasets.raw import (
    ALL_LOST,
    BAD_OBJECT,
    BROKEN_ANNOTATION,
    CLIPPED,
    DUPLICATE,
    EMPTY_BOX,
    MISSING_IMAGE,
    NO_ANNOTATION,
    NO_OBJECTS,
    NO_OBJECTS_HERE,
    OUTSIDE,
    SIMILAR_NAMES,
    UNKNOWN_CLASS,
    Findings,
    RawDataset,
    RawImage,
    RawObject,
)
from tests.helpers.made_voc import write_image

WIDTH, HEIGHT = 160, 120
GOOD = (20.0, 20.0, 80.0, 90.0)
EMPTY = (20.0, 20.0, 20.0, 90.0)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image(tmp_path_factory.mktemp("images") / "a.jpg")


def objects(names: str, box: tuple[float, float, float, float] = GOOD) -> list[RawObject]:
    return [RawObject(name, box, f"object {n}") for n, name in enumerate(names.split(), 1)]


def raw(image: Path, *images: list[RawObject], **options: object) -> RawDataset:
    """A data set of one image file under many names."""
    made = []
    for n, one in enumerate(images):
        link = image.with_name(f"{n}.jpg")
        if not link.exists():
            link.hardlink_to(image)
        made.append(RawImage(str(n), link, Path("all.json"), None, one))
    return RawDataset("COCO", "set", made, **options)  # type: ignore[arg-type]


def test_flags_areas_and_shares_of_sides(image: Path) -> None:
    first = [
        RawObject("cat", (0.25, 0.5, 0.5, 1.0), "line 1", relative=True),
        RawObject("dog", GOOD, "line 2", difficult=True),
        RawObject("cat", GOOD, "line 3", crowd=True),
    ]
    second = [RawObject("dog", GOOD, "line 1", area=7.5), RawObject("dog", GOOD, "l", area=9)]
    data = build_dataset(raw(image, first, second, classes=("dog", "cat")))
    one, two = data
    assert data.classes == ("dog", "cat")
    assert one.boxes[0].tolist() == [40, 60, 80, 120]
    assert one.labels.tolist() == [1, 0, 1]
    assert one.difficult.tolist() == [False, True, True]
    assert one.areas is None
    assert two.areas is not None
    assert two.areas.tolist() == [7.5, 9]


@given(
    st.lists(
        st.tuples(*(st.floats(-300, 300, width=32) | st.sampled_from([np.nan, np.inf, 0.0]),) * 4),
        max_size=8,
    )
)
@settings(max_examples=100, deadline=None)
def test_boxes_lie_in_their_image_and_all_are_counted(
    image: Path, boxes: list[tuple[float, float, float, float]]
) -> None:
    findings = Findings()
    given_objects = objects("cat") + [RawObject("cat", box, "one") for box in boxes]
    (sample,) = build_dataset(raw(image, given_objects), findings, max_lost=1.0)
    kept = sample.boxes
    assert (kept[:, :2] < kept[:, 2:]).all()
    assert (kept >= 0).all()
    assert (kept <= [WIDTH, HEIGHT, WIDTH, HEIGHT]).all()
    counts = findings.counts()
    assert len(kept) == 1 + len(boxes) - counts[EMPTY_BOX] - counts[OUTSIDE]
    inside = [b for b in boxes if 0 <= b[0] < b[2] <= WIDTH and 0 <= b[1] < b[3] <= HEIGHT]
    assert all(np.array(b, np.float32).tolist() in kept.tolist() for b in inside)
    assert counts[CLIPPED] <= len(kept) - 1 - len(inside)


@pytest.mark.parametrize(("bad", "stops"), [(2, False), (3, True)])
def test_more_than_a_tenth_left_out_stops(image: Path, bad: int, stops: bool) -> None:
    all_objects = objects("cat " * (20 - bad)) + objects("cat " * bad, EMPTY)
    if stops:
        findings = Findings()  # of what is no reason to stop
        for kind in (CLIPPED, SIMILAR_NAMES, NO_ANNOTATION, NO_OBJECTS):
            findings.add(kind, Path("all.json"), "is told")
        with pytest.raises(
            DatasetError,
            match=r"^here: 3 of 20 objects cannot be used \(empty or inverted boxes left out: 3\); "
            r"the first is all\.json: object 1 \(cat\) is empty.*; correct them \("
            r"`sppdet data check` names all\), or go on without them: --lenient$",
        ):
            build_dataset(raw(image, all_objects), findings, path=Path("here"))
    else:
        (sample,) = build_dataset(raw(image, all_objects))
        assert len(sample.boxes) == 18


def test_missing_images_and_those_that_a_reader_lost_stop_together(image: Path) -> None:
    made = raw(image, *[objects("cat")] * 20)
    made.images[3].path = image.with_name("gone.jpg")
    findings = Findings()
    assert len(build_dataset(made, findings)) == 19
    assert dict(findings.counts()) == {MISSING_IMAGE: 1}
    assert findings.all[0].message == "gone.jpg is not there (all.json annotates it)"
    findings = Findings()
    for _ in range(2):
        findings.add(BROKEN_ANNOTATION, Path(f"{_}.xml"), "broken")
    with pytest.raises(DatasetError, match="3 of 22 images cannot be used"):
        build_dataset(made, findings)
    findings = Findings()
    for _ in range(3):
        findings.add(BAD_OBJECT, Path("x.xml"), f"object {_} has no name")
    with pytest.raises(DatasetError, match="3 of 22 objects cannot be used"):
        build_dataset(made, findings)


def test_an_image_whose_objects_are_all_lost_is_not_one_without_objects(image: Path) -> None:
    lists = [objects("cat")] * 20
    lists += [objects("cat", EMPTY), objects("cat", EMPTY) + objects("dog"), []]
    made = raw(image, *lists)
    made.images[3] = replace(made.images[3], objects=[], lost=2)
    findings = Findings()
    dataset = build_dataset(made, findings, max_lost=0.1)
    assert len(dataset) == 21
    assert [sample.image_id for sample in dataset if not len(sample.boxes)] == ["22"]
    assert findings.counts() == {EMPTY_BOX: 2, ALL_LOST: 2}
    assert {one.path for one in findings.of(ALL_LOST)} == {made.images[n].path for n in (3, 20)}
    # They count as images that are lost: 3 of 23.
    made.images[4] = replace(made.images[4], objects=[], lost=1)
    with pytest.raises(DatasetError, match="3 of 23 images cannot be used"):
        build_dataset(made)
    # A class that nobody asked for is no loss: the image has no object of those asked for.
    only = build_dataset(
        raw(image, objects("dog"), objects("cat")), findings := Findings(), classes=["cat"]
    )
    assert not findings.wrong()
    assert [len(sample.boxes) for sample in only] == [0, 1]


def test_what_is_lost_can_be_gone_on_without(image: Path) -> None:
    made = raw(image, objects("cat"), objects("cat", EMPTY), objects("dog", EMPTY))
    with pytest.raises(DatasetError, match=r"2 of 3 images.*object 1 \(cat\) is empty.*--lenient$"):
        build_dataset(made)
    assert len(build_dataset(made, max_lost=1.0)) == 1
    # Where nothing is left, there is nothing to go on with.
    with pytest.raises(DatasetError, match=r"names all\)$"):
        build_dataset(raw(image, objects("cat", EMPTY)), max_lost=1.0)


def test_a_class_lost_by_it_stops(image: Path) -> None:
    made = raw(image, objects("cat " * 30) + objects("dog", EMPTY))
    with pytest.raises(DatasetError, match="no object of dog can be used"):
        build_dataset(made)
    assert build_dataset(made, max_lost=1.0).classes == ("cat", "dog")


def test_what_concerns_other_splits_is_not_told(image: Path) -> None:
    made = raw(image, *[objects("cat")] * 4, splits=("train", "val"))
    for n, one in enumerate(made.images):
        one.split = "train" if n < 3 else "val"
    findings = Findings()
    findings.add(BROKEN_ANNOTATION, Path("x.xml"), "broken", "val")
    assert build_dataset(made, findings, split="train").name == "set train"
    assert not len(findings)
    findings.add(BROKEN_ANNOTATION, Path("x.xml"), "broken", "val")
    with pytest.raises(DatasetError, match="1 of 2 images cannot be used"):
        build_dataset(made, findings, split="valid")


def test_what_concerns_images_that_a_list_lacks_is_not_told(image: Path, tmp_path: Path) -> None:
    made = raw(image, *[objects("cat")] * 4, splits=("train", "val"))
    findings = Findings()
    for n, one in enumerate(made.images):
        one.split, one.source = ("train" if n < 3 else "val"), Path(f"{n}.txt")
        findings.add(BAD_OBJECT, one.source, "line 2 has no class", one.split)
    findings.add(BROKEN_ANNOTATION, Path("x.txt"), "is not text", "val")
    (tmp_path / "list.txt").write_text("0\n1")
    made.images[0].objects *= 40
    assert len(build_dataset(made, findings, split=str(tmp_path / "list.txt"))) == 2
    assert [one.path.name for one in findings.all] == ["0.txt", "1.txt"]


def test_classes_of_the_format_without_objects(image: Path) -> None:
    findings = Findings()
    made = raw(image, objects("cat  dog"), classes=("animals", "dog", "cat"))
    assert build_dataset(made, findings, path=Path("x")).classes == ("dog", "cat")
    assert dict(findings.counts()) == {NO_OBJECTS: 1}
    assert "'animals'" in findings.all[0].message
    made.fixed_classes = True
    findings = Findings()
    assert build_dataset(made, findings).classes == ("animals", "dog", "cat")
    assert not len(findings)


def test_classes_that_a_split_lacks_keep_their_labels(image: Path) -> None:
    made = raw(image, objects("cat dog"), objects("dog"), splits=("train", "val"))
    made.images[0].split, made.images[1].split = "train", "val"
    findings = Findings()
    data = build_dataset(made, findings, split="val")
    assert data.classes == ("cat", "dog")
    assert data.samples[0].labels.tolist() == [1]
    assert dict(findings.counts()) == {NO_OBJECTS_HERE: 1}


def test_objects_of_classes_that_are_not_in_the_list(image: Path) -> None:
    made = raw(image, objects("cat " * 20 + "bird"), classes=("cat",))
    findings = Findings()
    (sample,) = build_dataset(made, findings)
    assert len(sample.labels) == 20
    assert dict(findings.counts()) == {UNKNOWN_CLASS: 1}
    made = raw(image, objects("cat bird"))
    assert len(build_dataset(made, classes=["cat"]).samples[0].labels) == 1


@pytest.mark.parametrize("classes", [[], ["dog", ""], ["dog", "dog "], "dog"])
def test_class_lists_that_cannot_be(image: Path, classes: list[str]) -> None:
    with pytest.raises(DatasetError, match="class"):
        build_dataset(raw(image, objects("dog")), classes=classes)


def test_nothing_at_all(image: Path) -> None:
    with pytest.raises(DatasetError, match="holds no annotations in COCO"):
        build_dataset(raw(image))
    with pytest.raises(DatasetError, match="has no object in any image; annotate some"):
        build_dataset(raw(image, []))


def test_strict_refuses_at_the_first(image: Path) -> None:
    made = raw(image, objects("cat " * 30) + objects("cat", EMPTY))
    with pytest.raises(
        AnnotationError, match=r"^all\.json: object 1 \(cat\) is empty.*\(empty or inverted"
    ):
        build_dataset(made, strict=True)


def test_strict_passes_notes(image: Path) -> None:
    made = raw(image, objects("cat"), classes=("dog", "cat"))
    findings = Findings()
    assert build_dataset(made, findings, strict=True).classes == ("cat",)
    assert findings.counts() == {NO_OBJECTS: 1}
    assert not findings.wrong()


def test_ten_of_a_kind_are_named(image: Path) -> None:
    findings = Findings()
    build_dataset(raw(image, objects("cat " * 400) + objects("cat " * 12, EMPTY)), findings)
    lines = findings.lines()
    assert lines[0] == "empty or inverted boxes left out: 12"
    assert len(lines) == 12
    assert lines[-1] == "  and 2 more"


def test_an_image_that_is_annotated_twice_is_taken_once_and_told(image: Path) -> None:
    source = raw(image, objects("cat"), objects("cat dog"), objects("dog"))
    source.images[1].path = source.images[0].path
    findings = Findings()
    dataset = build_dataset(source, findings)
    assert [len(sample.boxes) for sample in dataset] == [1, 1]
    assert findings.counts() == {DUPLICATE: 1}
    assert "again (2 objects left out)" in findings.all[0].message


def test_a_finding_is_one_line_whatever_a_name_holds() -> None:
    findings = Findings()
    findings.add("kind", Path("a\nb.jpg"), "c\r\nd is not there")
    assert findings.lines() == ["kind: 1", "  a b.jpg: c d is not there"]
