"""Which regions fine-tuning sees: shares, overlaps, labels and targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from sppdet.core.boxes import box_iou, decode_deltas
from sppdet.core.types import FloatArray, Sample
from sppdet.training.region_sampling import (
    BACKGROUND,
    RegionSample,
    RegionTargets,
    match_regions,
    sample_regions,
)

SIDE = 100


def sample(boxes: ArrayLike, labels: ArrayLike) -> Sample:
    return Sample(
        "000001",
        Path("000001.jpg"),
        SIDE,
        SIDE,
        np.array(boxes, np.float32),
        np.array(labels, np.int64),
        np.zeros(len(np.asarray(labels)), np.bool_),
    )


def random_boxes(count: int, rng: np.random.Generator) -> FloatArray:
    corners = np.sort(rng.integers(0, SIDE + 1, (count, 2, 2)), axis=1)
    return corners.reshape(count, 4).astype(np.float32)


def near(box: list[float], count: int, rng: np.random.Generator) -> FloatArray:
    """Boxes that overlap one box a lot."""
    moved = np.array(box) + rng.uniform(-2, 2, (count, 4))
    return np.clip(moved, 0, SIDE).astype(np.float32)


def far(count: int) -> FloatArray:
    """Different boxes along the image's lower edge."""
    x = np.linspace(0, SIDE - 10, count)
    return np.stack([x, x * 0 + 90, x + 5, x * 0 + 99], axis=1).astype(np.float32)


def draw(found: RegionTargets, count: int = 32, seed: int = 0, **changes: object) -> RegionSample:
    rules = {"foreground_fraction": 0.25, "foreground_iou": 0.5, "background_iou": (0.1, 0.5)}
    return sample_regions(found, count, np.random.default_rng(seed), **{**rules, **changes})  # type: ignore[arg-type]


def is_among(rows: FloatArray, all_rows: FloatArray) -> bool:
    return all((all_rows == row).all(axis=1).any() for row in rows)


NO_PROPOSALS = np.zeros((0, 4), np.float32)


def test_no_regions_at_all() -> None:
    found = match_regions(sample([], []), NO_PROPOSALS)
    assert found.boxes.shape == (0, 4)
    batch = draw(found)
    assert batch.boxes.shape == batch.targets.shape == (0, 4)
    assert batch.labels.shape == (0,)


def test_without_objects_all_is_background() -> None:
    found = match_regions(sample([], []), far(50))
    assert not found.max_iou.any()
    batch = draw(found)
    assert len(batch.boxes) == 32
    assert (batch.labels == BACKGROUND).all()
    assert not batch.targets.any()


def test_without_proposals_the_objects_are_taken() -> None:
    found = match_regions(sample([[0, 0, 9, 9], [20, 20, 50, 60]], [3, 0]), NO_PROPOSALS)
    batch = draw(found)
    assert sorted(batch.labels) == [1, 4]
    assert not batch.targets.any()


def test_objects_come_first_and_find_themselves() -> None:
    objects: list[list[float]] = [[0, 0, 9, 9], [20, 20, 50, 60], [20, 20, 50, 60.5]]
    found = match_regions(sample(objects, [3, 0, 7]), far(4))
    np.testing.assert_array_equal(found.boxes[:3], np.array(objects, np.float32))
    np.testing.assert_array_equal(found.max_iou[:3], 1)
    np.testing.assert_array_equal(found.matched_object[:3], [0, 1, 2])
    np.testing.assert_array_equal(found.boxes[3:], far(4))


def test_boxes_without_area_are_left_out() -> None:
    flat = np.array([[5, 5, 5, 9], [1, 1, 1, 1], [0, 0, 4, 4]], np.float32)
    found = match_regions(sample([[3, 3, 3, 8], [0, 0, 8, 8]], [2, 5]), flat)
    np.testing.assert_array_equal(found.gt_boxes, [[0, 0, 8, 8]])
    np.testing.assert_array_equal(found.gt_labels, [5])
    np.testing.assert_array_equal(found.boxes, [[0, 0, 8, 8], [0, 0, 4, 4]])
    np.testing.assert_allclose(found.max_iou, [1, 0.25])


@pytest.mark.parametrize("count", [0, 1, 3, 10, 99])
def test_the_first_proposals(count: int) -> None:
    found = match_regions(sample([[0, 0, 9, 9], [20, 20, 50, 60]], [3, 0]), far(10))
    some = found.first(count)
    kept = 10 if count == 0 else min(count, 10)
    np.testing.assert_array_equal(some.boxes, found.boxes[: 2 + kept])
    np.testing.assert_array_equal(some.max_iou, found.max_iou[: 2 + kept])
    np.testing.assert_array_equal(some.matched_object, found.matched_object[: 2 + kept])
    np.testing.assert_array_equal(some.gt_labels, found.gt_labels)


def test_scales_with_objects_are_those_of_regions_that_count_as_objects() -> None:
    objects: list[list[float]] = [[0, 0, 9, 9], [20, 20, 50, 60]]
    found = match_regions(sample(objects, [3, 0]), far(4))
    assert found.scales_with_objects(np.array([1, 1, 0, 2, 0, 2]), 0.5).tolist() == [1]
    assert found.scales_with_objects(np.array([2, 1, 0, 2, 0, 2]), 0.5).tolist() == [1, 2]
    none = match_regions(sample([], []), far(4))
    assert none.scales_with_objects(np.array([0, 2, 0, 2]), 0.5).tolist() == [0, 2]
    assert not len(none.take(slice(0)).scales_with_objects(np.zeros(0, np.int64), 0.5))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_objects=st.integers(0, 4),
    n_proposals=st.integers(0, 60),
    count=st.integers(1, 64),
    foreground=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    foreground_iou=st.sampled_from([0.3, 0.5, 0.7]),
    background_iou=st.sampled_from([(0.0, 0.5), (0.1, 0.5), (0.1, 0.3)]),
)
def test_the_rules_of_sampling(
    seed: int,
    n_objects: int,
    n_proposals: int,
    count: int,
    foreground: float,
    foreground_iou: float,
    background_iou: tuple[float, float],
) -> None:
    rng = np.random.default_rng(seed)
    objects = random_boxes(n_objects, rng)
    labels = rng.integers(0, 20, n_objects)
    found = match_regions(sample(objects, labels), random_boxes(n_proposals, rng))
    batch = sample_regions(
        found,
        count,
        rng,
        foreground_fraction=foreground,
        foreground_iou=foreground_iou,
        background_iou=background_iou,
    )
    low, high = background_iou
    best = np.max(box_iou(found.boxes, found.gt_boxes), axis=1, initial=0.0)
    object_like = best >= foreground_iou if len(found.gt_boxes) else np.zeros(len(best), bool)
    background_like = ~object_like & (best >= low) & (best < high)
    if not background_like.any():
        background_like = ~object_like & (best < high)
    n_positive, n_negative = int(object_like.sum()), int(background_like.sum())

    # As many as can be had, each region once, objects first.
    assert len(batch.boxes) == min(count, n_positive + n_negative)
    is_object = batch.labels != BACKGROUND
    got = int(is_object.sum())
    assert got == min(n_positive, max(round(count * foreground), count - n_negative))
    assert is_object[:got].all()
    assert is_among(batch.boxes[is_object], found.boxes[object_like])
    assert is_among(batch.boxes[~is_object], found.boxes[background_like])
    pool, times = np.unique(found.boxes, axis=0, return_counts=True)
    drawn, drawn_times = np.unique(batch.boxes, axis=0, return_counts=True)
    allowed = {tuple(box): n for box, n in zip(pool.tolist(), times, strict=True)}
    for box, n in zip(drawn.tolist(), drawn_times, strict=True):
        assert n <= allowed[tuple(box)]

    # Labels and targets are those of an object that overlaps the region most.
    assert not batch.targets[~is_object].any()
    for box, label, target in zip(batch.boxes, batch.labels, batch.targets, strict=True):
        if label == BACKGROUND:
            continue
        overlaps = box_iou(box[None], found.gt_boxes)[0]
        winners = np.flatnonzero(overlaps == overlaps.max())
        moved = decode_deltas(target[None], box[None])
        assert any(
            found.gt_labels[w] == label - 1 and np.allclose(moved, found.gt_boxes[w], atol=0.01)
            for w in winners
        )


def test_the_share_of_objects() -> None:
    rng = np.random.default_rng(0)
    box = [10.0, 10, 60, 60]
    proposals = np.concatenate([near(box, 200, rng), random_boxes(2000, rng)])
    found = match_regions(sample([box], [4]), proposals)
    for count, foreground, objects in ((64, 0.25, 16), (64, 0.5, 32), (10, 0.0, 0), (8, 1.0, 8)):
        batch = draw(found, count, foreground_fraction=foreground)
        assert len(batch.labels) == count
        assert (batch.labels == 5).sum() == objects


def test_where_negatives_lack_objects_fill_the_batch() -> None:
    box = [10.0, 10, 60, 60]
    found = match_regions(sample([box], [4]), near(box, 40, np.random.default_rng(0)))
    batch = draw(found, 32)
    assert (batch.labels == 5).sum() == 32


def test_where_objects_lack_background_fills_the_batch() -> None:
    found = match_regions(sample([[10, 10, 60, 60]], [4]), far(100))
    batch = draw(found, 32)
    assert (batch.labels == 5).sum() == 1
    assert (batch.labels == BACKGROUND).sum() == 31


def test_a_region_in_the_background_interval_keeps_others_out() -> None:
    # One box overlaps the object by a quarter; the hundred far ones by nothing.
    quarter = np.array([[10, 10, 35, 35]], np.float32)
    found = match_regions(sample([[10, 10, 60, 60]], [4]), np.concatenate([quarter, far(100)]))
    batch = draw(found, 32)
    np.testing.assert_array_equal(batch.boxes[batch.labels == BACKGROUND], quarter)


@pytest.mark.parametrize(
    ("width", "label"), [(50, 5), (49, BACKGROUND), (10, BACKGROUND), (9, None)]
)
def test_the_ends_of_the_intervals(width: int, label: int | None) -> None:
    """An IoU of exactly 0.5 is an object; of exactly 0.1 background; below it is left out."""
    object_box = [0.0, 0, 100, 10]
    inside = np.array([[0, 0, width, 10]], np.float32)
    always = np.array([[0, 0, 20, 10]], np.float32)  # keeps the interval from being empty
    found = match_regions(sample([object_box], [4]), np.concatenate([inside, always]))
    batch = draw(found, 32)
    rows = np.flatnonzero((batch.boxes == inside[0]).all(axis=1))
    assert [batch.labels[row] for row in rows] == ([] if label is None else [label])


def test_no_region_is_object_and_background_at_once() -> None:
    box = [0.0, 0, 100, 10]
    between = np.array([[0, 0, 40, 10]] * 30, np.float32)
    found = match_regions(sample([box], [4]), between)
    batch = draw(found, 32, foreground_iou=0.3)
    assert len(batch.labels) == 31
    assert (batch.labels == 5).all()


def test_draws_follow_the_generator() -> None:
    rng = np.random.default_rng(1)
    found = match_regions(sample([[10, 10, 60, 60]], [4]), random_boxes(500, rng))
    first, again, other = draw(found, seed=3), draw(found, seed=3), draw(found, seed=4)
    for name in ("boxes", "labels", "targets"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.boxes, other.boxes)
