"""The values that stages hand each other: right when made, and unchangeable after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sppdet.core.types import Dataset, Detection, Detections, FloatArray, Sample, as_boxes

BOXES = [[0, 0, 4, 3], [1.5, 2, 1.5, 2]]


def sample(**changes: object) -> Sample:
    values = {
        "image_id": "000001",
        "path": Path("000001.jpg"),
        "width": 10,
        "height": 8,
        "boxes": np.array(BOXES),
        "labels": np.array([1, 0]),
        "difficult": np.array([False, True]),
    }
    return Sample(**{**values, **changes})  # type: ignore[arg-type]


def detections(scores: Sequence[float] = (0.5, -1.0), labels: Sequence[int] = (0, 2)) -> Detections:
    return Detections(
        np.array(BOXES, np.float32),
        np.array(scores, np.float32),
        np.array(labels, np.int64),
        ("cat", "dog", "cow"),
    )


@pytest.mark.parametrize("empty", [np.zeros((0, 4)), np.array([]), np.array([], np.int64)])
def test_no_boxes(empty: NDArray[Any]) -> None:
    out = as_boxes(empty)
    assert out.shape == (0, 4)
    assert out.dtype == np.float32


def test_no_detections() -> None:
    nothing = np.zeros(0, np.float32)
    found = Detections(nothing, nothing, np.zeros(0, np.int64), ())
    assert len(found) == 0
    assert list(found) == []
    assert found.boxes.shape == (0, 4)
    assert len(found.above(0.0)) == 0


def test_a_sample_without_objects() -> None:
    made = sample(boxes=np.array([]), labels=np.array([]), difficult=np.array([]))
    assert made.boxes.shape == (0, 4)
    assert made.labels.dtype == np.int64
    assert made.difficult.dtype == np.bool_


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.uint16, np.float32])
def test_boxes_become_float32(dtype: type) -> None:
    given: NDArray[Any] = np.array([[1, 2, 30, 40]], dtype)
    out = as_boxes(given)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, given)


def test_boxes_are_a_contiguous_copy() -> None:
    given: FloatArray = np.zeros((4, 6), np.float32).T[:, :4]
    out = as_boxes(given)
    assert out.flags.c_contiguous
    given[:] = 7
    assert not out.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_boxes_must_be_finite(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        as_boxes(np.array([[0, 0, 1, 1], [0, 0, bad, 1]]))


@pytest.mark.parametrize("inverted", [[2, 0, 1, 1], [0, 2, 1, 1]])
def test_boxes_must_not_be_inverted(inverted: list[int]) -> None:
    with pytest.raises(ValueError, match="box 1 is inverted"):
        as_boxes(np.array([[0, 0, 1, 1], inverted]))


@pytest.mark.parametrize("shape", [(4,), (2, 5), (2, 3), (1, 2, 4)])
def test_boxes_have_four_columns(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        as_boxes(np.zeros(shape))


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": np.array([1])},
        {"labels": np.array([])},
        {"difficult": np.array([False, True, True])},
        {"labels": np.array([[1], [0]])},
        {"boxes": np.zeros((2, 5))},
    ],
)
def test_a_sample_has_one_label_and_flag_a_box(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="shape"):
        sample(**changes)


def test_detections_have_one_score_and_label_a_box() -> None:
    with pytest.raises(ValueError, match="shape"):
        detections(scores=(1.0,))
    with pytest.raises(ValueError, match="shape"):
        detections(labels=(0, 1, 2))


@pytest.mark.parametrize("labels", [(0, 3), (-1, 0)])
def test_labels_index_the_classes(labels: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="outside the 3 classes"):
        detections(labels=labels)


def test_arrays_cannot_be_written_to() -> None:
    made, found = sample(), detections()
    for array in (made.boxes, made.labels, made.difficult, found.boxes, found.scores, found.labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_the_caller_keeps_its_own_arrays() -> None:
    boxes, labels = np.array(BOXES, np.float32), np.array([1, 0])
    made = sample(boxes=boxes, labels=labels)
    boxes[0], labels[0] = 9, 9
    np.testing.assert_array_equal(made.boxes, np.array(BOXES, np.float32))
    assert made.labels[0] == 1


def test_fields_cannot_be_set() -> None:
    for value, field in ((sample(), "boxes"), (detections(), "scores")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, field, np.zeros((0, 4)))
    with pytest.raises(FrozenInstanceError):
        Dataset("x", (), ()).name = "y"  # type: ignore[misc]


def test_iterating_gives_plain_values() -> None:
    first, second = detections()
    assert (first.name, second.name) == ("cat", "cow")
    assert (first.score, second.score) == (0.5, -1.0)
    assert first.box == (0.0, 0.0, 4.0, 3.0)
    assert isinstance(first, Detection)
    assert {type(v) for v in (*first.box, first.score)} == {float}


def test_detections_are_a_sequence() -> None:
    found = detections()
    assert found[1].name == "cow"
    assert found[-1].box == found[1].box
    assert [one.name for one in found[:1]] == ["cat"]
    assert found[:1].classes == found.classes
    assert len(found[5:]) == 0
    with pytest.raises(IndexError):
        found[2]


def test_above_keeps_the_threshold_itself() -> None:
    found = detections()
    assert [one.name for one in found.above(0.5)] == ["cat"]
    assert len(found.above(-1.0)) == 2
    assert len(found.above(0.6)) == 0
    assert found.above(0.6).classes == found.classes


def test_a_dataset_is_an_ordered_collection() -> None:
    assert len(Dataset("none", (), ())) == 0
    a, b = sample(image_id="a"), sample(image_id="b")
    data = Dataset("two", ("cat", "dog"), (b, a))
    assert len(data) == 2
    assert list(data) == [b, a]


def test_margins_are_the_scores_where_none_are_given() -> None:
    found = detections()
    assert np.array_equal(found.margins, found.scores)
    assert [one.margin for one in found] == [0.5, -1.0]


def test_margins_stay_with_their_detections() -> None:
    made = Detections(
        np.array(BOXES),
        np.array([0.9, 0.2]),
        np.array([0, 2]),
        ("cat", "dog", "cow"),
        np.array([3.0, -2.0]),
    )
    assert made.margins.dtype == np.float32
    assert [one.margin for one in made] == [3.0, -2.0]
    assert [one.margin for one in made.above(0.5)] == [3.0]
    assert made[1:].margins.tolist() == [-2.0]
    with pytest.raises(ValueError, match="shape"):
        Detections(made.boxes, made.scores, made.labels, made.classes, np.zeros(3, np.float32))
