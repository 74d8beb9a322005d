"""Margins as probabilities: laws of the function, and fits to data whose truth is known."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.types import BoolArray, FloatArray, IntArray
from sppdet.detection.config import DetectionConfig
from sppdet.detection.postprocess import Candidates, postprocess
from sppdet.detection.probabilities.calibration import Calibration, cross_fitted
from sppdet.evaluation.calibration_error import calibration_error

Data = tuple[FloatArray, IntArray, BoolArray]


def calibration(*pairs: tuple[float, float]) -> Calibration:
    """One of a slope and an intercept per class."""
    slope, intercept = np.array(pairs, np.float32).T
    return Calibration(slope, intercept)


def drawn(truth: Calibration, counts: list[int], seed: int = 0) -> Data:
    """Detections whose probabilities are those of `truth`, so many of each class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    margins = rng.normal(-1.0, 1.5, len(labels)).astype(np.float32)
    return margins, labels, rng.random(len(labels)) < truth.probabilities(margins, labels)


def log_loss(made: Calibration, data: Data) -> float:
    margins, labels, is_object = data
    signs = np.where(is_object, -1, 1)
    return float(np.logaddexp(0, signs * made.logits(margins, labels)).mean())


margin = st.floats(-50, 50, width=32)
pair = st.tuples(st.floats(0.0625, 8, width=32), st.floats(-8, 8, width=32))


@given(one=pair, margins=st.lists(margin, min_size=1, max_size=20))
def test_probabilities_lie_between_0_and_1_and_rank_as_margins(
    one: tuple[float, float], margins: list[float]
) -> None:
    ordered = np.sort(np.array(margins, np.float32))
    labels = np.zeros(len(ordered), np.int64)
    found = calibration(one).probabilities(ordered, labels)
    assert found.dtype == np.float32
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found) >= 0).all()
    # Log odds keep apart what float32 near 1 does not.
    logits = calibration(one).logits(ordered, labels)
    assert (np.diff(logits)[np.diff(ordered) > 1e-4] > 0).all()


def test_a_probability_by_hand() -> None:
    made = calibration((2.0, 1.0), (0.5, 0.0))
    found = made.probabilities(np.array([-0.5, 0.0, 2.0], np.float32), np.array([0, 0, 1]))
    np.testing.assert_allclose(found, [0.5, 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-1))], rtol=1e-6)


@pytest.mark.parametrize(
    ("slope", "intercept"),
    [([1.0], [0.0, 0.0]), ([0.0], [0.0]), ([-1.0], [0.0]), ([np.nan], [0.0]), ([1.0], [np.inf])],
)
def test_what_is_no_calibration_is_refused(slope: list[float], intercept: list[float]) -> None:
    with pytest.raises(ValueError, match="slope"):
        Calibration(np.array(slope, np.float32), np.array(intercept, np.float32))


def test_of_several_models_it_is_the_mean() -> None:
    mean = Calibration.mean([calibration((1, 0), (2, 1)), calibration((3, 2), (2, -1))])
    assert mean.slope.tolist() == [2, 2]
    assert mean.intercept.tolist() == [1, 0]


def test_without_detections_it_is_the_one_for_any_model() -> None:
    nothing = np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_)
    for count in (0, 3):
        made, other = Calibration.fit(*nothing, count), Calibration.uncalibrated(count)
        np.testing.assert_allclose(made.slope, other.slope, rtol=1e-3)
        np.testing.assert_allclose(made.intercept, other.intercept, rtol=1e-3)
    assert cross_fitted(*nothing, nothing[1], 3).shape == (0,)


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 999),
    truth=st.tuples(st.floats(0.75, 4, width=32), st.floats(-1, 3, width=32)),
)
def test_the_truth_is_found(seed: int, truth: tuple[float, float]) -> None:
    expected = calibration(truth, (1.5, -1.0))
    made = Calibration.fit(*drawn(expected, [6000, 6000], seed), 2)
    np.testing.assert_allclose(made.slope, expected.slope, rtol=0.15)
    grid = np.linspace(-4, 2, 13).astype(np.float32)
    for label in range(2):
        labels = np.full(len(grid), label)
        there, here = (one.probabilities(grid, labels) for one in (expected, made))
        assert np.abs(there - here).max() < 0.06


TRUTH = [(1.5, 0.0), (2.5, 1.5), (2.0, -1.0), (1.0, 0.5), (3.0, 0.0), (2.0, 2.5)]


def test_small_classes_are_drawn_towards_all_classes() -> None:
    common, many = calibration(*[(2.0, 0.5)] * 7), [3000] * 6
    odd = drawn(calibration(*TRUTH, (2.0, 6.0)), [*many, 0], 1)
    distances = []
    # All detections of the last class are right, also at margins where those of others are not.
    for count in (0, 3, 30, 300):
        margins = np.linspace(-4, -1, count).astype(np.float32)
        data = (
            np.concatenate([odd[0], margins]),
            np.concatenate([odd[1], np.full(count, 6)]),
            np.concatenate([odd[2], np.ones(count, np.bool_)]),
        )
        made = Calibration.fit(*data, 7)
        at = np.array([-2.0], np.float32), np.array([6])
        distances.append(float(made.logits(*at)[0] - common.logits(*at)[0]))
    assert abs(distances[0]) < 1
    assert distances == sorted(distances)
    assert distances[-1] - distances[0] > 2
    assert distances[1] - distances[0] < (distances[-1] - distances[0]) / 2


def test_a_class_without_detections_gets_what_all_have_in_common() -> None:
    data = drawn(calibration(*TRUTH, (1, 0)), [500] * 6 + [0], 2)
    made = Calibration.fit(*data, 7)
    joint = Calibration.fit(data[0], np.zeros_like(data[1]), data[2], 1)
    assert made.slope[6] == pytest.approx(joint.slope[0], rel=1e-3)
    assert made.intercept[6] == pytest.approx(joint.intercept[0], abs=1e-2)


@pytest.mark.parametrize("count", [5, 40, 1000])
def test_shrinking_is_better_than_either_extreme_or_nearly_as_good(count: int) -> None:
    truth = calibration(*TRUTH)
    fresh, losses = drawn(truth, [3000] * 6, 99), []
    for seed in range(5):
        margins, labels, is_object = data = drawn(truth, [count] * 6, seed)
        joint = Calibration.fit(margins, np.zeros_like(labels), is_object, 1)
        alone = [
            Calibration.fit(margins[own], np.zeros(own.sum(), np.int64), is_object[own], 1)
            for own in (labels == label for label in range(6))
        ]
        ways = (
            Calibration.fit(*data, 6),
            Calibration(np.repeat(joint.slope, 6), np.repeat(joint.intercept, 6)),
            Calibration(*(np.concatenate(p) for p in zip(*map(_arrays, alone), strict=True))),
        )
        losses.append([log_loss(way, fresh) for way in ways])
    shrunk, joint_loss, alone_loss = np.mean(losses, axis=0)
    assert shrunk < min(joint_loss, alone_loss) + 0.01
    assert shrunk < max(joint_loss, alone_loss)


def _arrays(one: Calibration) -> tuple[FloatArray, FloatArray]:
    return one.slope, one.intercept


@pytest.mark.parametrize("right", [True, False])
def test_detections_that_are_all_right_or_all_wrong(right: bool) -> None:
    margins = np.linspace(-4, 4, 50).astype(np.float32)
    labels = np.arange(50) % 2
    made = Calibration.fit(margins, labels, np.full(50, right), 3)
    found = made.probabilities(margins, labels)
    assert (found > 0.5).mean() > 0.7 if right else (found < 0.5).mean() > 0.7


def test_what_a_margin_separates_stays_finite() -> None:
    margins = np.linspace(-4, 4, 50).astype(np.float32)
    labels = np.zeros(50, np.int64)
    made = Calibration.fit(margins, labels, margins > 0, 1)
    assert made.slope[0] < 100
    assert ((made.probabilities(margins, labels) > 0.5) == (margins > 0)).all()


def test_fits_are_the_same_each_time() -> None:
    data = drawn(calibration(*TRUTH), [50] * 6)
    one, other = Calibration.fit(*data, 6), Calibration.fit(*data, 6)
    assert one.slope.tobytes() == other.slope.tobytes()
    assert one.intercept.tobytes() == other.intercept.tobytes()


def test_what_is_fitted_is_reliable_on_new_detections() -> None:
    truth = calibration(*TRUTH)
    made = Calibration.fit(*drawn(truth, [400] * 6, 3), 6)
    margins, labels, is_object = drawn(truth, [4000] * 6, 4)
    assert calibration_error(made.probabilities(margins, labels), is_object).error < 0.02
    off = Calibration(made.slope, made.intercept + 1)
    assert calibration_error(off.probabilities(margins, labels), is_object).error > 0.05


def test_cross_fitted_probabilities_come_from_other_images() -> None:
    margins, labels, is_object = drawn(calibration(*TRUTH), [100] * 6, 5)
    images = np.random.default_rng(0).integers(10, 40, len(margins))
    found = cross_fitted(margins, labels, is_object, images, 6, folds=3)
    # What is right in an image decides nothing there, and something elsewhere.
    own = images == 17
    changed = cross_fitted(
        margins, labels, np.where(own, ~is_object, is_object), images, 6, folds=3
    )
    assert np.array_equal(found[own], changed[own])
    assert not np.array_equal(found[~own], changed[~own])
    assert calibration_error(found, is_object).error < 0.1


def test_postprocessing_ranks_by_probability_and_keeps_margins() -> None:
    made = calibration((1.0, 0.0), (1.0, 3.0))
    boxes = np.array([[0, 0, 5, 5], [20, 20, 25, 25], [40, 40, 45, 45]], np.float32)
    candidates = Candidates(boxes, np.array([1.0, -1.0, 0.5], np.float32), np.array([0, 1, 0]))
    found = postprocess(candidates, ("cat", "dog"), DetectionConfig(), made)
    assert [(one.name, one.margin) for one in found] == [("dog", -1), ("cat", 1), ("cat", 0.5)]
    np.testing.assert_allclose(found.scores, made.probabilities(found.margins, found.labels))


def test_postprocessing_keeps_the_order_of_margins_whose_probabilities_are_one() -> None:
    boxes = np.array([[20.0 * n, 0, 20 * n + 5, 5] for n in range(6)], np.float32)
    margins = np.array([30, 31, 29, 33, 32, 28], np.float32)
    candidates = Candidates(boxes, margins, np.zeros(6, np.int64))
    found = postprocess(candidates, ("cat",), DetectionConfig(), calibration((2.0, 1.0)))
    assert (found.scores == 1).all()
    assert found.margins.tolist() == sorted(margins.tolist(), reverse=True)


def test_the_table_of_a_preset_comes_back() -> None:
    made = Calibration.fit(*drawn(calibration(*TRUTH), [50] * 6), 6)
    table = tomllib.loads(made.toml())["calibration"]
    read = Calibration(**{name: np.array(row, np.float32) for name, row in table.items()})
    assert np.array_equal(read.slope, made.slope)
    assert np.array_equal(read.intercept, made.intercept)
