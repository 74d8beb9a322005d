"""Detections go to other libraries and come back; supervision and pandas are the real ones."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import supervision as sv
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sppdet import Detections, SppdetError
from sppdet.core.errors import EvaluationError

CLASSES = ("cat", "dog", "cow")
NONE = Detections(
    np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), CLASSES
)
TWO = Detections(
    np.array([[10, 20, 30, 60], [0.5, 0, 40, 80]], np.float32),
    np.array([0.75, 0.25], np.float32),
    np.array([2, 0]),
    CLASSES,
    np.array([1.5, -0.5], np.float32),
)


@st.composite
def some_detections(draw: st.DrawFn) -> Detections:
    count = draw(st.integers(0, 5))
    values = st.floats(0, 500, width=32)
    first, second = (draw(arrays(np.float32, (count, 2), elements=values)) for _ in range(2))
    boxes = np.hstack([np.minimum(first, second), np.maximum(first, second)])
    scores = draw(arrays(np.float32, count, elements=st.floats(0, 1, width=32)))
    labels = draw(arrays(np.int64, count, elements=st.integers(0, len(CLASSES) - 1)))
    return Detections(boxes, -np.sort(-scores), labels, CLASSES, 2 * -np.sort(-scores) - 1)


def assert_same(found: Detections, expected: Detections, *names: str) -> None:
    assert found.classes == expected.classes
    for name in ("boxes", "scores", "labels", *names):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@given(some_detections())
@settings(deadline=None)
def test_there_and_back_is_the_same(found: Detections) -> None:
    assert_same(Detections.from_supervision(found.to_supervision(), CLASSES), found)
    assert_same(Detections.from_torchvision(found.to_torchvision(), CLASSES), found)
    assert_same(Detections.from_transformers(found.to_transformers(), CLASSES), found)
    assert_same(Detections.from_pandas(found.to_pandas(), CLASSES), found, "margins")


def test_supervision_takes_them() -> None:
    assert isinstance(TWO.to_supervision(), sv.Detections)
    given: Any = TWO.to_supervision()
    assert given["class_name"].tolist() == ["cow", "cat"]
    assert given.class_id.tolist() == [2, 0]
    assert given.area.tolist() == [800, 39.5 * 80]
    # Its own code works on them.
    assert len(given[given.confidence > 0.5]) == 1
    assert len(given.with_nms(0.5)) == 2
    drawn = sv.BoxAnnotator().annotate(np.zeros((90, 90, 3), np.uint8), given)
    assert drawn.any()
    both = sv.Detections.merge([given, NONE.to_supervision()])
    assert len(both) == 2
    assert not TWO.boxes.flags.writeable
    assert given.xyxy.flags.writeable


def test_supervision_gives_numbers_alone_or_names_alone() -> None:
    plain = sv.Detections(
        TWO.boxes[::-1].copy(), confidence=np.array([0.25, 0.75]), class_id=np.array([0, 2])
    )
    assert_same(Detections.from_supervision(plain, CLASSES), TWO)
    with pytest.raises(EvaluationError, match="classes"):
        Detections.from_supervision(plain)
    named = Detections.from_supervision(TWO.to_supervision())
    assert named.classes == ("cat", "cow")
    assert [one.name for one in named] == ["cow", "cat"]
    with pytest.raises(EvaluationError, match="confidence"):
        Detections.from_supervision(sv.Detections(TWO.boxes))
    assert len(Detections.from_supervision(sv.Detections.empty(), CLASSES)) == 0


def test_pandas_has_a_row_per_detection(tmp_path: Any) -> None:
    table = TWO.to_pandas()
    assert isinstance(table, pd.DataFrame)
    assert table.columns.tolist() == ["class", "score", "margin", "x1", "y1", "x2", "y2"]
    assert table.iloc[0].tolist() == ["cow", 0.75, 1.5, 10, 20, 30, 60]
    assert NONE.to_pandas().shape == (0, 7)
    table.to_csv(tmp_path / "found.csv", index=False)
    again = pd.read_csv(tmp_path / "found.csv")
    assert_same(Detections.from_pandas(again, CLASSES), TWO, "margins")
    shuffled = Detections.from_pandas(again.iloc[::-1].drop(columns="margin"), CLASSES)
    assert_same(shuffled, TWO)
    np.testing.assert_array_equal(shuffled.margins, TWO.scores)
    with pytest.raises(EvaluationError, match="no column score"):
        Detections.from_pandas(again.drop(columns="score"))


def test_torchvision_and_transformers_have_their_documented_fields() -> None:
    tensors = TWO.to_torchvision()
    assert {name: one.dtype for name, one in tensors.items()} == {
        "boxes": torch.float32,
        "labels": torch.int64,
        "scores": torch.float32,
    }
    assert tensors["boxes"].shape == (2, 4)
    assert TWO.to_transformers()[0] == {
        "score": 0.75,
        "label": "cow",
        "box": {"xmin": 10, "ymin": 20, "xmax": 30, "ymax": 60},
    }
    assert NONE.to_transformers() == []


def test_fiftyone_has_shares_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    # As its documentation has them: label, bounding_box [x, y, w, h] in [0, 1], confidence.
    fiftyone = ModuleType("fiftyone")
    vars(fiftyone).update(Detection=SimpleNamespace, Detections=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "fiftyone", fiftyone)
    first, second = TWO.to_fiftyone(40, 80).detections
    assert vars(first) == {
        "label": "cow",
        "bounding_box": [0.25, 0.25, 0.5, 0.5],
        "confidence": 0.75,
    }
    assert second.bounding_box == [0.0125, 0, 0.9875, 1]
    assert NONE.to_fiftyone(40, 80).detections == []


def test_ultralytics_results_are_read() -> None:
    # As its documentation has them: `boxes` with tensors xyxy, conf and cls, and `names` by number.
    boxes = SimpleNamespace(
        xyxy=torch.tensor([[0.5, 0, 40, 80], [10, 20, 30, 60]]),
        conf=torch.tensor([0.25, 0.75]),
        cls=torch.tensor([0.0, 2.0]),
    )
    result = SimpleNamespace(boxes=boxes, names=dict(enumerate(CLASSES)))
    assert_same(Detections.from_ultralytics(result), TWO)
    other = Detections.from_ultralytics(result, ("cow", "horse", "cat"))
    assert other.labels.tolist() == [0, 2]
    with pytest.raises(EvaluationError, match="'cat', which is not among"):
        Detections.from_ultralytics(result, ("cow",))


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(SppdetError, match="pip install fiftyone"):
        TWO.to_fiftyone(10, 10)
