"""From scores to detections, against a restatement in plain Python and exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.boxes import areas, box_iou
from sppdet.core.errors import ConfigError
from sppdet.core.types import Detections, FloatArray, IntArray
from sppdet.detection.config import DetectionConfig
from sppdet.detection.nms import box_voting, nms
from sppdet.detection.postprocess import Candidates, postprocess, select_candidates
from sppdet.detection.probabilities.calibration import Calibration
from sppdet.detection.scoring import predict
from tests.helpers.scored_view import Refine, ScoredView

Box = tuple[int, int, int, int]
Scored = tuple[float, Box]

CLASSES = ("cat", "dog", "cow")
SIZE = (40, 30)
RELEASE = DetectionConfig(margin_threshold=-1.5, vote_iou=0, soft_nms_sigma=0, nms_iou=0.3)
SAME = Calibration.uncalibrated(3)
NO_BOXES = np.zeros((0, 4), np.float32)
# Thresholds that floating point holds exactly, so that the plain code cuts at the same place.
EXACT = [0.0, 0.25, 0.5, 0.75, 1.0]


def plain_iou(a: Box, b: Box) -> Fraction:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(0, width) * max(0, height)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return Fraction(inter, union) if union else Fraction(0)


def plain_nms(candidates: list[Scored], iou: float) -> list[Scored]:
    """Takes the best, drops what overlaps it by more, and so on; the first of equals is better."""
    kept: list[Scored] = []
    for score, box in sorted(candidates, key=lambda one: -one[0]):
        if all(plain_iou(box, other) <= Fraction(iou) for _, other in kept):
            kept.append((score, box))
    return kept


def plain_select(
    boxes: list[Box], scores: list[list[float]], config: DetectionConfig, moves: list[int] | None
) -> list[tuple[str, float, Box]]:
    out = []
    for label, name in enumerate(CLASSES):
        mine = [(row[label], box) for box, row in zip(boxes, scores, strict=True)]
        above = [one for one in mine if one[0] > config.margin_threshold]
        above = sorted(above, key=lambda one: -one[0])[: config.max_candidates]
        if moves is not None:
            above = [(score, plain_move(box, moves[label])) for score, box in above]
        above = [(score, plain_clip(box)) for score, box in above]
        above = [one for one in above if one[1][0] < one[1][2] and one[1][1] < one[1][3]]
        kept = plain_nms(above, config.nms_iou)[: config.max_per_class]
        out += [(name, score, box) for score, box in kept]
    return sorted(out, key=lambda one: -one[1])


def plain_move(box: Box, by: int) -> Box:
    """What the regressor of the tests does: stretches to the right and downwards, then shifts."""
    return (box[0] + by, box[1] - by, box[2] + 2 * by, box[3])


def plain_clip(box: Box) -> Box:
    x1, x2 = (min(max(x, 0), SIZE[0]) for x in (box[0], box[2]))
    y1, y2 = (min(max(y, 0), SIZE[1]) for y in (box[1], box[3]))
    return (x1, y1, x2, y2)


def refiner(boxes: FloatArray, moves: list[int]) -> Refine:
    def refine(regions: IntArray, labels: IntArray) -> FloatArray:
        by = np.array(moves, np.float32)[labels][:, None]
        moved: FloatArray = boxes[regions] + by * np.array([1, -1, 2, 0], np.float32)
        return moved

    return refine


@st.composite
def regions(draw: st.DrawFn) -> list[Box]:
    """Boxes of a few cells, several of them alike, some over the edge of the image."""
    out = []
    for _ in range(draw(st.integers(0, 12))):
        x, y = draw(st.integers(-4, 30)), draw(st.integers(-4, 20))
        out.append((x, y, x + draw(st.integers(1, 12)), y + draw(st.integers(1, 12))))
    return out


def as_arrays(boxes: list[Box], scores: list[list[float]]) -> tuple[FloatArray, FloatArray]:
    return (
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32).reshape(-1, len(CLASSES)),
    )


def detected(
    boxes: FloatArray,
    scores: FloatArray,
    classes: tuple[str, ...],
    size: tuple[int, int],
    config: DetectionConfig,
    refine: Refine | None = None,
) -> Detections:
    """All the rules, one after the other."""
    view = ScoredView(scores, size, refine)
    calibration = Calibration.uncalibrated(len(classes))
    return postprocess(predict([view], boxes, config), classes, config, calibration)


# Few values, so that ties happen, and a class without an SVM.
score = st.sampled_from([-np.inf, -2.0, -1.5, -1.25, 0.0, 0.5, 1.0, 3.0])


def test_no_regions_and_no_classes() -> None:
    found = detected(NO_BOXES, np.zeros((0, 3), np.float32), CLASSES, SIZE, DetectionConfig())
    assert len(found) == 0
    assert found.classes == CLASSES
    box = np.array([[0, 0, 5, 5]], np.float32)
    assert len(detected(box, np.zeros((1, 0), np.float32), (), SIZE, DetectionConfig())) == 0
    assert nms(NO_BOXES, np.zeros(0, np.float32), 0.3).shape == (0,)


@settings(max_examples=80, deadline=None)
@given(data=st.data(), boxes=regions(), iou=st.sampled_from(EXACT))
def test_nms_is_the_greedy_one(data: st.DataObject, boxes: list[Box], iou: float) -> None:
    scores = data.draw(st.lists(score, min_size=len(boxes), max_size=len(boxes)))
    kept = nms(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), iou)
    found = [(scores[index], boxes[index]) for index in kept]
    assert found == plain_nms(list(zip(scores, boxes, strict=True)), iou)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), iou=st.floats(0.05, 0.95), count=st.integers(1, 60))
def test_the_law_of_nms(seed: int, iou: float, count: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 100, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 60, (count, 2))], 1).astype(
        np.float32
    )
    scores = rng.normal(size=count).astype(np.float32)
    kept = nms(boxes, scores, iou)
    assert (np.diff(scores[kept]) <= 0).all()
    overlaps = box_iou(boxes, boxes).astype(np.float64)
    tolerance = 1e-6
    for place, index in enumerate(kept):
        assert (overlaps[index, kept[:place]] <= iou + tolerance).all()
    for index in set(range(count)) - set(kept.tolist()):
        better = kept[scores[kept] >= scores[index]]
        assert (overlaps[index, better] > iou - tolerance).any()


@settings(max_examples=80, deadline=None)
@given(
    data=st.data(),
    boxes=regions(),
    threshold=st.sampled_from([-1.5, 0.0]),
    iou=st.sampled_from([0.25, 0.5]),
    cap=st.integers(1, 4),
    most=st.integers(1, 8),
    moves=st.none() | st.lists(st.integers(0, 9), min_size=3, max_size=3),
)
def test_select_is_its_restatement(
    data: st.DataObject,
    boxes: list[Box],
    threshold: float,
    iou: float,
    cap: int,
    most: int,
    moves: list[int] | None,
) -> None:
    row = st.lists(score, min_size=3, max_size=3)
    scores = data.draw(st.lists(row, min_size=len(boxes), max_size=len(boxes)))
    config = DetectionConfig(
        margin_threshold=threshold,
        nms_iou=iou,
        max_per_class=cap,
        max_candidates=most,
        vote_iou=0,
        soft_nms_sigma=0,
    )
    box_array, score_array = as_arrays(boxes, scores)
    refine = None if moves is None else refiner(box_array, moves)
    found = detected(box_array, score_array, CLASSES, SIZE, config, refine)
    plain = [(one.name, one.margin, tuple(int(v) for v in one.box)) for one in found]
    assert plain == plain_select(boxes, scores, config, moves)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), soft=st.sampled_from([0.0, 0.15]))
def test_models_are_postprocessed_together(seed: int, soft: float) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 30, (40, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 20, (40, 2))], 1).astype(np.float32)
    boxes = np.minimum(boxes, np.array([*SIZE, *SIZE], np.float32))
    scores = rng.normal(size=40).astype(np.float32)
    labels = rng.integers(0, 3, 40)
    mine = rng.random(40) < 0.5
    parts = [Candidates(boxes[own], scores[own], labels[own]) for own in (mine, ~mine)]
    config = DetectionConfig(soft_nms_sigma=soft)
    whole = postprocess(Candidates(boxes, scores, labels), CLASSES, config, SAME)
    found = postprocess(Candidates.concat(parts), CLASSES, config, SAME)
    np.testing.assert_allclose(found.boxes, whole.boxes, rtol=1e-5)
    np.testing.assert_allclose(found.margins, whole.margins, rtol=1e-5)
    assert np.array_equal(found.labels, whole.labels)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 12))
def test_the_top_are_the_best_in_order(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, 9).astype(np.float32)
    boxes = rng.uniform(size=(9, 4)).astype(np.float32)
    found = Candidates(boxes, scores, np.arange(9)).top(count)
    # The first of equals is better, as in NMS.
    order = sorted(range(9), key=lambda row: (-scores[row], row))[:count]
    assert found.labels.tolist() == order
    assert np.array_equal(found.boxes, boxes[order])
    assert np.array_equal(found.scores, scores[order])


@given(seed=st.integers(0, 2**32 - 1), most=st.integers(1, 6))
def test_labels_leave_a_region_one_class(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(12, 3)).astype(np.float32)
    labels = rng.integers(0, 3, 12)
    rules = DetectionConfig(margin_threshold=0.0, max_candidates=most)
    rows, found = select_candidates(scores, rules, labels)
    assert np.array_equal(found, labels[rows])
    only = np.where(np.arange(3) == labels[:, None], scores, -np.inf).astype(np.float32)
    expected = select_candidates(only, rules)
    assert np.array_equal(rows, expected[0])
    assert np.array_equal(found, expected[1])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), wild=st.booleans())
def test_detections_lie_in_the_image_best_first(seed: int, wild: bool) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-10, 40, (50, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 30, (50, 2))], 1).astype(np.float32)
    scores = rng.normal(size=(50, 3)).astype(np.float32)

    def refine(chosen: IntArray, labels: IntArray) -> FloatArray:
        moved: FloatArray = (boxes[chosen] * 50 - 700).astype(np.float32)
        return moved

    found = detected(boxes, scores, CLASSES, SIZE, DetectionConfig(), refine if wild else None)
    assert (np.diff(found.scores) <= 0).all()
    assert (areas(found.boxes) > 0).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [*SIZE, *SIZE]).all()


def test_by_hand() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10]], np.float32)
    scores = np.array([[1.0, -1.0, -2.0], [2.0, -1.2, -2.0], [0.5, -1.6, -2.0]], np.float32)
    found = detected(boxes, scores, CLASSES, SIZE, RELEASE)
    assert [(one.name, one.margin) for one in found] == [("cat", 2.0), ("cat", 0.5), ("dog", -1.0)]
    np.testing.assert_array_equal(found.boxes, boxes[[1, 2, 0]])


def test_a_score_at_the_threshold_is_dropped() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float32)
    scores = np.array([[-1.5, -np.inf, np.nan], [-1.4375, -np.inf, np.nan]], np.float32)
    found = detected(boxes, scores, CLASSES, SIZE, RELEASE)
    assert [one.name for one in found] == ["cat"]
    np.testing.assert_array_equal(found.boxes, boxes[1:])


def test_the_regressor_moves_and_does_not_score() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 10, 10, 20]], np.float32)
    scores = np.array([[1.0, 0.25, -9], [2.0, -9, -9]], np.float32)
    asked: list[tuple[list[int], list[int]]] = []

    def refine(chosen: IntArray, labels: IntArray) -> FloatArray:
        asked.append((chosen.tolist(), labels.tolist()))
        return np.full((len(chosen), 4), [5, 5, 15, 15], np.float32)

    found = detected(boxes, scores, CLASSES, SIZE, DetectionConfig(), refine)
    # Every pair above the threshold is asked for once; the two cats land on each other, and the
    # better stays.
    assert asked == [([0, 1, 0], [0, 0, 1])]
    assert [(one.name, one.margin) for one in found] == [("cat", 2.0), ("dog", 0.25)]
    np.testing.assert_array_equal(found.boxes, [[5, 5, 15, 15]] * 2)


def test_a_box_moved_out_of_the_image_is_dropped() -> None:
    boxes = np.array([[0, 0, 10, 10]], np.float32)
    scores = np.ones((1, 3), np.float32)
    found = detected(boxes, scores, CLASSES, SIZE, DetectionConfig(), lambda r, _: boxes[r] + 100)
    assert len(found) == 0


@pytest.mark.parametrize("cap", [1, 2, 3])
def test_the_cap_keeps_the_best_of_each_class(cap: int) -> None:
    boxes = np.array([[20 * i, 0, 20 * i + 9, 9] for i in range(4)], np.float32)
    scores = np.array([[1, 4, -9], [2, 3, -9], [3, 2, -9], [4, 1, -9]], np.float32)
    found = detected(boxes, scores, CLASSES, (100, 30), DetectionConfig(max_per_class=cap))
    assert sorted(found.margins.tolist()) == sorted(list(range(5 - cap, 5)) * 2)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 12), iou=st.sampled_from([0.3, 0.6, 1]))
def test_voting_is_the_weighted_mean_of_those_that_overlap(
    seed: int, count: int, iou: float
) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 12, (count, 2))
    boxes = np.concatenate([corners, corners + rng.integers(4, 12, (count, 2))], 1)
    boxes = boxes.astype(np.float32)
    scores = rng.normal(size=count).astype(np.float32)
    found = box_voting(boxes[:3], boxes, scores, iou)
    for kept, mean in zip(boxes[:3], found, strict=True):
        overlaps = box_iou(kept[None], boxes)[0]
        voters = np.flatnonzero(overlaps >= iou)
        votes = [(np.exp(float(scores[i])), boxes[i]) for i in voters]
        total = sum(weight for weight, _ in votes)
        expected = sum(weight * box.astype(np.float64) for weight, box in votes) / total
        np.testing.assert_allclose(mean, expected, rtol=1e-5)


@pytest.mark.parametrize("soft", [0.0, 0.2])
def test_voting_alone_does_not_bring_two_boxes_together(soft: float) -> None:
    rng = np.random.default_rng(3)
    corners = rng.uniform(0, 25, (300, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 15, (300, 2))], 1).astype(np.float32)
    scores = rng.normal(size=(300, 1)).astype(np.float32)
    config = DetectionConfig(vote_iou=0.4, soft_nms_sigma=soft, nms_iou=0.3)
    found = detected(boxes, scores, ("cat",), (40, 40), config)
    overlaps = box_iou(found.boxes, found.boxes)
    assert len(found) > 3
    assert overlaps[~np.eye(len(found), dtype=bool)].max() <= 0.3 + 1e-6


def test_votes_of_huge_scores_do_not_overflow() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8]], np.float32)
    found = box_voting(boxes, boxes, np.array([1000.0, 990.0], np.float32), 0.5)
    np.testing.assert_allclose(found, [[0, 0, 10, 10]] * 2, atol=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"box_regression": "both"},
        {"vote_iou": 1.5},
        {"nms_iou": -0.1},
        {"max_candidates": 0},
        {"softmax_weight": -1.0},
        {"context_weight": -0.1},
        {"soft_nms_sigma": -0.1},
        {"refine_top": -1},
        {"scale_factors": ()},
        {"scale_factors": (1.0, 0.0)},
        {"flipped_scale_factors": (-1.25,)},
    ],
)
def test_wrong_rules_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DetectionConfig(**wrong)  # type: ignore[arg-type]
