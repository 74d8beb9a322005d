"""Boxes stay with their object: numbers, smoothing, classes by vote, nothing that is not there."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sppdet.core.types import Detections
from sppdet.media.steady import SteadyBoxes

CLASSES = ("cat", "dog")
Row = tuple[float, float, float, float, float, int]


def found(*rows: Row) -> Detections:
    """Detections of rows of box, score and label."""
    table = sorted(rows, key=lambda row: -row[4])
    boxes = np.array([row[:4] for row in table], np.float32).reshape(-1, 4)
    scores = np.array([row[4] for row in table], np.float32)
    return Detections(boxes, scores, np.array([row[5] for row in table], np.int64), CLASSES)


def cat(x: float, score: float = 0.9, label: int = 0) -> Row:
    return x, 10, x + 40, 50, score, label


def test_no_detections_give_none() -> None:
    shown, tracks = SteadyBoxes(0.5).update(found(), 0.0)
    assert len(shown) == len(tracks) == 0
    assert shown.classes == CLASSES


def test_an_object_at_rest_keeps_its_box_and_number() -> None:
    steady = SteadyBoxes(0.5)
    for n in range(5):
        shown, tracks = steady.update(found(cat(20)), n / 10)
        np.testing.assert_array_equal(shown.boxes, [[20, 10, 60, 50]])
        assert tracks.tolist() == [1]
        assert shown.scores.tolist() == [np.float32(0.9)]


def test_trembling_boxes_tremble_less() -> None:
    rng = np.random.default_rng(0)
    steady, moved = SteadyBoxes(0.5), []
    places = 20 + rng.normal(size=200)
    for n, x in enumerate(places):
        shown, _ = steady.update(found(cat(float(x))), n / 25)
        moved.append(float(shown.boxes[0, 0]))
    assert np.std(np.diff(moved)) < 0.4 * np.std(np.diff(places))


def test_a_moving_object_is_followed_under_one_number() -> None:
    steady = SteadyBoxes(0.5)
    for n in range(30):
        shown, tracks = steady.update(found(cat(5.0 * n), cat(300 - 5.0 * n, label=1)), n / 25)
        numbers = {one.name: int(t) for one, t in zip(shown, tracks, strict=True)}
        assert len(tracks) == 2
        if n < 25:
            assert numbers == {"cat": 1, "dog": 2}
            # Behind by less than a third of its width.
            assert abs(shown.boxes[0, 0] - 5 * n) < 13


def test_a_number_survives_a_short_gap_and_no_long_one() -> None:
    steady = SteadyBoxes(0.5)
    seen = []
    for seconds, rows in (
        (0.0, [cat(20)]),
        (0.1, []),
        (0.4, [cat(21)]),
        (0.5, []),
        (2.0, [cat(20)]),
    ):
        shown, tracks = steady.update(found(*rows), seconds)
        assert len(shown) == len(rows)
        seen += tracks.tolist()
    assert seen == [1, 1, 2]
    # Frames that are seconds apart follow on one another all the same.
    slow = SteadyBoxes(0.5)
    assert [slow.update(found(cat(20)), 5.0 * n)[1].tolist() for n in range(3)] == [[1]] * 3


def test_a_weak_detection_continues_a_track_and_begins_none() -> None:
    steady = SteadyBoxes(0.5)
    assert len(steady.update(found(cat(20, 0.4)), 0.0)[0]) == 0
    assert len(steady.update(found(cat(20, 0.6)), 0.1)[0]) == 1
    shown, tracks = steady.update(found(cat(20, 0.3), cat(200, 0.4)), 0.2)
    assert tracks.tolist() == [1]
    assert shown.scores.tolist() == [np.float32(0.3)]
    assert len(steady.update(found(cat(20, 0.2)), 0.3)[0]) == 0


def test_the_surer_of_two_boxes_continues_the_track() -> None:
    steady = SteadyBoxes(0.5)
    steady.update(found(cat(20)), 0.0)
    shown, tracks = steady.update(found(cat(20, 0.3), cat(24, 0.9)), 0.1)
    assert tracks.tolist() == [1]
    assert shown.scores.tolist() == [np.float32(0.9)]


def test_the_class_is_the_one_most_of_the_track_is_of() -> None:
    steady = SteadyBoxes(0.5)
    names = []
    for n, label in enumerate((0, 0, 0, 1, 0, 1, 1, 1, 1, 1)):
        shown, tracks = steady.update(found(cat(20, label=label)), n / 10)
        assert tracks.tolist() == [1]
        names.append(shown[0].name)
    assert names == ["cat"] * 8 + ["dog"] * 2


corners = arrays(np.float32, 2, elements=st.floats(0, 100, width=32))
rows = st.tuples(corners, corners, st.floats(0, 1), st.integers(0, 1))


@given(st.lists(st.lists(rows, max_size=6), max_size=6), st.floats(0, 1))
@settings(deadline=None)
def test_numbers_are_unique_and_boxes_inside(frames: list[list[tuple]], threshold: float) -> None:  # type: ignore[type-arg]
    steady = SteadyBoxes(threshold)
    for n, frame in enumerate(frames):
        table = [
            (*np.minimum(a, b).tolist(), *np.maximum(a, b).tolist(), score, label)
            for a, b, score, label in frame
        ]
        every = found(*table)
        shown, tracks = steady.update(every, n / 10)
        assert len(set(tracks.tolist())) == len(tracks) == len(shown)
        assert set(shown.scores.tolist()) <= set(every.scores.tolist())
        assert (np.diff(shown.scores) <= 0).all()
        assert (shown.boxes >= -1e-3).all()
        assert (shown.boxes <= 100 + 1e-3).all()
        # What is sure is always shown.
        assert len(shown) >= (every.scores >= threshold).sum()
