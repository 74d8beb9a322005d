"""The VOC evaluator against an oracle: the devkit's rules, in plain loops and exact fractions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.errors import EvaluationError
from sppdet.core.types import Dataset, Detections
from sppdet.datasets import load_dataset
from sppdet.evaluation.voc_ap import area_ap, eleven_point_ap, evaluate_voc
from tests.helpers.evaluation_cases import CLASSES, detections_of, random_case, sample_of

Box = tuple[Fraction, Fraction, Fraction, Fraction]


def devkit_box(box: list[float]) -> Box:
    """Ours, 0-based and half-open, as VOC's 1-based box whose last pixel is included."""
    x1, y1, x2, y2 = (Fraction(v) for v in box)
    return x1 + 1, y1 + 1, x2, y2


def devkit_overlap(a: Box, b: Box) -> Fraction:
    """VOCevaldet's overlap, `+ 1` in every side."""
    left, top, right, bottom = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    iw, ih = right - left + 1, bottom - top + 1
    if iw <= 0 or ih <= 0:
        return Fraction(0)
    area_a = (a[2] - a[0] + 1) * (a[3] - a[1] + 1)
    area_b = (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
    return iw * ih / (area_a + area_b - iw * ih)


def devkit_verdicts(
    dataset: Dataset, detections: Mapping[str, Detections], name: str, seen: Counter[str]
) -> tuple[list[bool], int]:
    """Whether each detection that counts is true, best score first, and the positives.

    `seen` counts the special cases met.
    """
    label = dataset.classes.index(name)
    truth: dict[str, list[tuple[Box, bool]]] = {}
    lines: list[tuple[str, float, Box]] = []
    for sample in dataset:
        rows = zip(sample.boxes.tolist(), sample.labels, sample.difficult, strict=True)
        truth[sample.image_id] = [(devkit_box(b), bool(d)) for b, k, d in rows if k == label]
        for found in detections.get(sample.image_id, ()):
            if found.name == name:
                lines.append((sample.image_id, found.score, devkit_box(list(found.box))))
    npos = sum(not hard for objects in truth.values() for _, hard in objects)
    seen["zero ground truth"] += npos == 0
    seen["zero detections"] += npos > 0 and not lines
    seen["tied scores"] += len({score for _, score, _ in lines}) < len(lines)
    taken: set[tuple[str, int]] = set()
    verdicts: list[bool] = []
    for image_id, _, box in sorted(lines, key=lambda line: -line[1]):
        best, chosen = Fraction(-1), -1
        for j, (other, _) in enumerate(truth[image_id]):
            overlap = devkit_overlap(box, other)
            if overlap > best:
                best, chosen = overlap, j
        seen["IoU exactly 0.5"] += best == Fraction(1, 2)
        if best < Fraction(1, 2):
            verdicts.append(False)
        elif truth[image_id][chosen][1]:
            seen["difficult found"] += 1
        else:
            seen["duplicate"] += (image_id, chosen) in taken
            verdicts.append((image_id, chosen) not in taken)
            taken.add((image_id, chosen))
    return verdicts, npos


def devkit_curve(verdicts: list[bool], npos: int) -> list[tuple[Fraction, Fraction]]:
    """Recall and precision after each detection."""
    tp, curve = 0, []
    for n, true in enumerate(verdicts, start=1):
        tp += true
        curve.append((Fraction(tp, npos), Fraction(tp, n)))
    return curve


def devkit_ap11(curve: list[tuple[Fraction, Fraction]]) -> Fraction:
    """VOC2007: mean of the best precision at recall >= 0, 0.1 .. 1."""
    total = Fraction(0)
    for k in range(11):
        total += max((p for r, p in curve if r >= Fraction(k, 10)), default=Fraction(0))
    return total / 11


def devkit_ap_area(curve: list[tuple[Fraction, Fraction]]) -> Fraction:
    """VOC2010 on (VOCap): sentinels, envelope from the right, area where recall changes."""
    recall = [Fraction(0), *(r for r, _ in curve), Fraction(1)]
    precision = [Fraction(0), *(p for _, p in curve), Fraction(0)]
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    steps = range(1, len(recall))
    return sum(((recall[i] - recall[i - 1]) * precision[i] for i in steps), Fraction(0))


def test_evaluate_voc_of_nothing() -> None:
    result = evaluate_voc(Dataset("empty", CLASSES, ()), {})
    assert math.isnan(result.map11)
    assert math.isnan(result.map_area)
    assert result.left_out == CLASSES
    assert all(math.isnan(each.ap11) and each.npos == 0 for each in result.classes)


def test_evaluate_voc_equals_the_devkit_on_1000_random_cases() -> None:
    seen: Counter[str] = Counter()
    for seed in range(1000):
        dataset, detections = random_case(seed)
        result = evaluate_voc(dataset, detections)
        expected = []
        for each in result.classes:
            verdicts, npos = devkit_verdicts(dataset, detections, each.name, seen)
            assert each.npos == npos
            if not npos:
                assert math.isnan(each.ap11)
                assert math.isnan(each.ap_area)
                continue
            curve = devkit_curve(verdicts, npos)
            for tenths in (3, 6, 7):
                hit = Fraction(tenths, 10) in [recall for recall, _ in curve]
                seen[f"recall exactly 0.{tenths}"] += hit
            expected.append((devkit_ap11(curve), devkit_ap_area(curve)))
            assert each.ap11 == pytest.approx(float(expected[-1][0]), abs=1e-12), seed
            assert each.ap_area == pytest.approx(float(expected[-1][1]), abs=1e-12), seed
            assert each.recall.tolist() == [float(r) for r, _ in curve]
            assert each.precision.tolist() == [float(p) for _, p in curve]
        if expected:
            assert result.map11 == pytest.approx(np.mean([float(a) for a, _ in expected]))
            assert result.map_area == pytest.approx(np.mean([float(b) for _, b in expected]))
        else:
            assert math.isnan(result.map11)
    assert len(seen) == 9
    assert min(seen.values()) >= 20, seen


@pytest.mark.parametrize("found", range(11))
@pytest.mark.parametrize("npos", [10, 20, 30])
def test_eleven_point_ap_counts_a_recall_reached_exactly(found: int, npos: int) -> None:
    tp = np.arange(1, found * npos // 10 + 1)
    assert eleven_point_ap(tp, npos) == pytest.approx((found + 1 if found else 0) / 11)


def test_ap_by_hand() -> None:
    tp = np.array([1, 1, 2])  # precision 1, 1/2, 2/3 at recall 1/4, 1/4, 1/2
    assert eleven_point_ap(tp, 4) == pytest.approx((3 * 1 + 3 * 2 / 3) / 11)
    assert area_ap(tp, 4) == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)


def test_iou_of_exactly_one_half_is_a_hit() -> None:
    dataset = Dataset("d", ("cat",), (sample_of("a", [[0, 0, 20, 10]], [0]),))
    hit = {"a": detections_of([[0, 0, 10, 10]], [1], [0], ("cat",))}
    below = {"a": detections_of([[0, 0, 9.99, 10]], [1], [0], ("cat",))}
    assert evaluate_voc(dataset, hit).map11 == 1
    assert evaluate_voc(dataset, below).map11 == 0


def test_min_iou_is_reached_exactly_too() -> None:
    dataset = Dataset("d", ("cat",), (sample_of("a", [[0, 0, 10, 10]], [0]),))
    found = {"a": detections_of([[0, 0, 7, 10]], [1], [0], ("cat",))}
    assert evaluate_voc(dataset, found, min_iou=0.7).map11 == 1
    assert evaluate_voc(dataset, found, min_iou=0.71).map11 == 0


def test_a_duplicate_does_not_fall_back_on_the_second_best_object() -> None:
    objects = [[0, 0, 20, 10], [4, 0, 24, 10]]
    dataset = Dataset("d", ("cat",), (sample_of("a", objects, [0, 0]),))
    # Both are nearest to the first object; the second reaches IoU 0.6 with the other one as well.
    found = {"a": detections_of([[0, 0, 20, 10], [1, 0, 21, 10]], [2, 1], [0, 0], ("cat",))}
    only = evaluate_voc(dataset, found).classes[0]
    assert only.precision.tolist() == [1, 0.5]
    assert only.recall.tolist() == [0.5, 0.5]
    assert only.found.tolist() == [True, False]


def test_difficult_objects_are_neither_found_nor_missed() -> None:
    sample = sample_of("a", [[0, 0, 10, 10], [50, 50, 60, 60]], [0, 0], [True, False])
    boxes = [[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60]]
    found = {"a": detections_of(boxes, [3, 2, 1], [0, 0, 0], ("cat",))}
    only = evaluate_voc(Dataset("d", ("cat",), (sample,)), found).classes[0]
    assert (only.ap11, only.ap_area, only.npos, only.n_detections) == (1, 1, 1, 3)
    assert only.precision.tolist() == [1]


def test_a_class_without_positives_is_left_out_of_the_mean_and_named() -> None:
    sample = sample_of("a", [[0, 0, 10, 10], [5, 5, 20, 20]], [0, 1], [False, True])
    found = {"a": detections_of([[0, 0, 10, 10], [5, 5, 20, 20]], [1, 1], [0, 2])}
    result = evaluate_voc(Dataset("d", CLASSES, (sample,)), found)
    assert result.left_out == ("dog", "person")
    assert result.map11 == result.map_area == 1
    assert math.isnan(result.classes[2].ap11)
    assert np.isnan(result.classes[2].recall).all()


def test_a_class_without_detections_has_ap_0() -> None:
    dataset = Dataset("d", ("cat",), (sample_of("a", [[0, 0, 10, 10]], [0]),))
    only = evaluate_voc(dataset, {}).classes[0]
    assert (only.ap11, only.ap_area, only.final_recall) == (0, 0, 0)


def test_tied_scores_keep_the_order_of_the_data_set() -> None:
    def ap(first: str, second: str) -> float:
        samples = {"a": sample_of("a", [[0, 0, 9, 9]], [0]), "b": sample_of("b", [], [])}
        found = {key: detections_of([[0, 0, 9, 9]], [1], [0], ("cat",)) for key in ("b", "a")}
        dataset = Dataset("d", ("cat",), (samples[first], samples[second]))
        return evaluate_voc(dataset, found).map_area

    assert ap("a", "b") == 1
    assert ap("b", "a") == 0.5


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.floats(0.25, 4), st.integers(-8, 8))
def test_scaling_the_scores_or_moving_every_box_changes_nothing(
    seed: int, scale: float, shift: int
) -> None:
    dataset, detections = random_case(3 * (seed // 3) + 1)  # whole-number boxes
    moved = Dataset(
        dataset.name,
        dataset.classes,
        tuple(
            sample_of(
                s.image_id, (s.boxes + shift).tolist(), s.labels.tolist(), s.difficult.tolist()
            )
            for s in dataset
        ),
    )
    changed = {
        key: Detections(
            d.boxes + np.float32(shift), d.scores * np.float32(scale), d.labels, CLASSES
        )
        for key, d in detections.items()
    }
    before, after = evaluate_voc(dataset, detections), evaluate_voc(moved, changed)
    assert [c.precision.tolist() for c in before.classes] == [
        c.precision.tolist() for c in after.classes
    ]


def test_many_pairs_are_measured_in_blocks_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [random_case(seed) for seed in range(40)]
    whole = [evaluate_voc(*case) for case in cases]
    monkeypatch.setattr("sppdet.evaluation.matching.PAIRS_AT_ONCE", 3)
    for case, expected in zip(cases, whole, strict=True):
        for a, b in zip(evaluate_voc(*case).classes, expected.classes, strict=True):
            assert a.precision.tolist() == b.precision.tolist()
            assert a.found.tolist() == b.found.tolist()


def test_detector_classes_are_matched_by_name() -> None:
    dataset = Dataset("d", ("dog",), (sample_of("a", [[0, 0, 9, 9]], [0]),))
    found = {"a": detections_of([[0, 0, 9, 9], [0, 0, 9, 9]], [2, 1], [0, 1])}
    only = evaluate_voc(dataset, found).classes[0]
    assert (only.ap11, only.n_detections) == (1, 1)


def test_class_names_that_look_misspelt_are_refused() -> None:
    found = {"a": detections_of([], [], [], ("cat", "aeroplane"))}
    dataset = Dataset("d", ("cat", "airplane"), (sample_of("a", [], []),))
    with pytest.raises(EvaluationError, match=r"aeroplane.*airplane"):
        evaluate_voc(dataset, found)


def test_unknown_images_bad_scores_and_bad_thresholds_are_refused() -> None:
    dataset = Dataset("d", ("cat",), (sample_of("a", [], []),))
    one = [[0, 0, 9, 9]]
    with pytest.raises(EvaluationError, match="image b, which is not in the data set"):
        evaluate_voc(dataset, {"b": detections_of([], [], [], ("cat",))})
    with pytest.raises(EvaluationError, match="score of image a is not finite"):
        evaluate_voc(dataset, {"a": detections_of(one, [math.nan], [0], ("cat",))})
    for min_iou in (0, -1, 1.5, math.nan):
        with pytest.raises(EvaluationError, match="least IoU"):
            evaluate_voc(dataset, {}, min_iou=min_iou)


def test_a_data_set_with_an_image_twice_or_a_stray_label_is_refused() -> None:
    with pytest.raises(EvaluationError, match="occurs twice"):
        evaluate_voc(Dataset("d", ("cat",), (sample_of("a", [], []), sample_of("a", [], []))), {})
    with pytest.raises(EvaluationError, match="not one of the classes"):
        evaluate_voc(Dataset("d", ("cat",), (sample_of("a", [[0, 0, 9, 9]], [1]),)), {})


def test_ground_truth_as_its_own_detections_is_perfect(voc_root: Path) -> None:
    dataset = load_dataset(voc_root, "val")
    found = {
        s.image_id: Detections(
            s.boxes, np.zeros(len(s.boxes), np.float32), s.labels, dataset.classes
        )
        for s in dataset
    }
    result = evaluate_voc(dataset, found)
    assert (result.map11, result.map_area, result.left_out) == (1, 1, ())
    assert sum(c.npos for c in result.classes) == sum(int((~s.difficult).sum()) for s in dataset)
