"""Scores and moved boxes of regions: what goes into them, and that views are averaged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.types import Detections, FloatArray, IntArray
from sppdet.detection.config import DetectionConfig
from sppdet.detection.detector import Detector
from sppdet.detection.scoring import RegionScorer, predict
from tests.helpers.made_detector import CLASSES, make_detector, picture, region_features
from tests.helpers.scored_view import Refine, ScoredView

SIZE = (40, 30)
EVERYTHING = DetectionConfig(margin_threshold=-1e9, max_candidates=10**6)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_detector()


def _boxes(found: Detections) -> set[tuple[float, ...]]:
    return {tuple(box) for box in found.boxes.tolist()}


def _same(a: Detections, b: Detections) -> bool:
    return np.array_equal(a.boxes, b.boxes) and np.array_equal(a.scores, b.scores)


def test_the_regressors_can_be_left_out(detector: Detector) -> None:
    image = picture()
    maps, boxes = detector.extract(image), detector.propose(image)

    def found(one: Detector, regression: str) -> Detections:
        changes = ["detection.vote_iou=0.0", f"detection.box_regression={regression}"]
        return one.configure(None, changes).detect_regions(maps, boxes)

    proposed = {tuple(box) for box in boxes.tolist()}
    plain = found(detector, "none")
    assert _boxes(plain) <= proposed
    moved = {which: found(detector, which) for which in ("mean", "ridge", "learned")}
    for one in moved.values():
        assert not _boxes(one) <= proposed
    assert not _same(moved["mean"], moved["ridge"])
    assert not _same(moved["mean"], moved["learned"])
    stages = (detector.extractor, detector.head, detector.svms, None, detector.context)
    without = Detector(CLASSES, detector.config, *stages)
    assert _same(found(without, "mean"), moved["learned"])
    assert _same(found(without, "ridge"), plain)


def test_a_model_that_learned_no_boxes_has_its_regressors_alone() -> None:
    detector, image = make_detector("head.learned_boxes=false"), picture()
    ridge = detector.configure(None, ["detection.box_regression=ridge"]).detect(image)
    assert _same(detector.detect(image), ridge)
    learned = detector.configure(None, ["detection.box_regression=learned"])
    assert not learned.groups[0].refiner.moves_boxes


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_the_softmax_takes_part_as_weighted(detector: Detector, weight: float) -> None:
    image = picture()
    features = region_features(detector, image, detector.propose(image))
    likely = detector.head.class_log_probabilities(features)
    assert (likely <= 0).all()
    margins = detector.svms.decision_function(features.layers["fc7"])
    rules = DetectionConfig(context_weight=0.0, softmax_weight=weight)
    scorer = RegionScorer(detector.head, detector.svms, detector.context, rules)
    expected = margins + np.float32(weight) * likely
    np.testing.assert_allclose(scorer.score(features), expected, rtol=1e-5)


def test_the_whole_image_takes_part_as_weighted(detector: Detector) -> None:
    image, context = picture(), detector.context
    features = region_features(detector, image, detector.propose(image))
    prepared = detector.head.prepare(detector.extractor(image)).prepared
    cells = [one.head_features for one in prepared if one.head_features is not None]
    means = [one.flatten(0, 1).mean(dim=0).numpy() for one in cells]
    assert context is not None
    assert features.image_vector is not None
    vector = features.image_vector
    np.testing.assert_allclose(vector, np.mean(means, axis=0), rtol=1e-5, atol=1e-6)
    logits = context.weights @ vector + context.bias

    def scores(weight: float, *, trained: bool = True) -> FloatArray:
        rules = detector.config.detection.replace(context_weight=weight)
        classifier = context if trained else None
        return RegionScorer(detector.head, detector.svms, classifier, rules).score(features)

    without = scores(0.0)
    for weight in (0.2, 3.0):
        added = np.where(context.trained, weight * np.log(1 / (1 + np.exp(-logits))), 0)
        assert (added[context.trained] < 0).all()
        np.testing.assert_allclose(scores(weight), without + added, rtol=1e-4, atol=1e-5)
    # A model that has no context classifier asks for none.
    np.testing.assert_array_equal(scores(3.0, trained=False), without)


def _random(seed: int) -> tuple[FloatArray, FloatArray]:
    """Boxes inside the image, and scores of three classes."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(5, 15, (20, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(2, 8, (20, 2))], 1).astype(np.float32)
    return boxes, rng.normal(size=(20, 3)).astype(np.float32)


def _shift(boxes: FloatArray, by: float) -> Refine:
    def refine(rows: IntArray, labels: IntArray) -> FloatArray:
        return boxes[rows] + np.float32(by) * labels[:, None].astype(np.float32)

    return refine


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), views=st.integers(1, 4), still=st.booleans())
def test_scores_and_boxes_are_means_over_the_views(seed: int, views: int, still: bool) -> None:
    boxes, _ = _random(seed)
    scores = [_random(seed + k)[1] for k in range(views)]
    moves = np.random.default_rng(seed).uniform(-1, 1, views)
    # A view that does not move boxes has no part in where they go.
    movers = [None if still and k == 0 else _shift(boxes, by) for k, by in enumerate(moves)]
    parts = [ScoredView(one, SIZE, move) for one, move in zip(scores, movers, strict=True)]
    found = predict(parts, boxes, EVERYTHING)
    rows = np.tile(np.arange(20), 3)
    assert np.array_equal(found.labels, np.repeat(np.arange(3), 20))
    mean = np.mean(scores, axis=0)
    np.testing.assert_allclose(found.scores, mean[rows, found.labels], rtol=1e-4, atol=1e-5)
    taken = moves[1:] if still else moves
    shift = taken.mean() if len(taken) else 0.0
    expected = boxes[rows] + shift * found.labels[:, None]
    np.testing.assert_allclose(found.boxes, expected, rtol=1e-4, atol=1e-4)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_labels_decide_the_class_of_each_region(seed: int) -> None:
    boxes, scores = _random(seed)
    labels = np.random.default_rng(seed).integers(0, 3, 20)
    view = ScoredView(scores, SIZE, _shift(boxes, 1.0))
    every = predict([view], boxes, EVERYTHING)
    found = predict([view], boxes, EVERYTHING, labels)
    assert len(found.scores) == 20
    for label in range(3):
        mine, theirs = found.labels == label, np.flatnonzero(every.labels == label)
        kept = theirs[labels == label]
        assert np.array_equal(found.scores[mine], every.scores[kept])
        assert np.array_equal(found.boxes[mine], every.boxes[kept])
