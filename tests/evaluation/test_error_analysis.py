"""Errors by cause: by hand, against hotcoco, and against TIDE's oracles done one by one."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.types import BoolArray, Dataset, Detections, IntArray
from sppdet.evaluation.error_analysis import (
    CAUSES,
    CLASSIFICATION,
    LEFT_OUT,
    LOCALIZATION,
    MISSED,
    RIGHT,
    Causes,
    analyze_errors,
    assign_causes,
)
from sppdet.evaluation.voc_ap import evaluate_voc
from tests.helpers.evaluation_cases import (
    CLASSES,
    detections_of,
    random_case,
    sample_of,
    sparse_case,
)
from tests.helpers.hotcoco_oracle import hotcoco_evaluator

HOTCOCO = dict(zip(CAUSES, ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"), strict=True))
# hotcoco makes every error of classification right in the class that it claims, and every one of
# localization, whether or not its object is found already; it adds what is missed, rather than
# leaving it out. TIDE (section 2.3) does neither, so that these three gains differ.
SAME_GAINS = ("both", "duplicate", "background")


def _coco_ap(tp: IntArray, npos: int) -> float:
    """COCO's 101 points, as hotcoco takes AP."""
    if not npos:
        return math.nan
    precision, recall = tp / np.arange(1, len(tp) + 1), tp / npos
    reached = [precision[recall >= point] for point in np.linspace(0, 1, 101)]
    return float(np.mean([one.max(initial=0) for one in reached]))


def test_errors_of_nothing() -> None:
    empty = Dataset("empty", CLASSES, ())
    analysis = analyze_errors(empty, assign_causes(empty, {}))
    assert [each.name for each in analysis.classes] == list(CLASSES)
    assert analysis.total.counts == (0,) * len(CAUSES)
    assert all(math.isnan(gain) for gain in analysis.total.gains)


def test_every_cause_by_hand() -> None:
    objects = [[0, 0, 20, 20], [100, 0, 120, 20], [200, 0, 220, 20], [400, 0, 420, 20]]
    dataset = Dataset("d", CLASSES, (sample_of("a", objects, [0, 1, 2, 2]),))
    boxes = [
        [0, 0, 20, 20],  # the cat
        [1, 0, 20, 20],  # the cat again
        [12, 0, 32, 20],  # beside the cat: IoU 0.25
        [100, 0, 120, 20],  # the dog, as a cat
        [212, 0, 232, 20],  # beside a person, as a cat
        [300, 0, 320, 20],  # nothing
        [18, 0, 38, 20],  # IoU 0.05 with the cat: nothing
    ]
    found = {"a": detections_of(boxes, [7, 6, 5, 4, 3, 2, 1], [0] * 7)}
    causes = assign_causes(dataset, found)
    names = [CAUSES[cause] for cause in causes.causes[1:]]
    assert causes.causes[0] == RIGHT
    assert names == [
        "duplicate",
        "localization",
        "classification",
        "both",
        "background",
        "background",
    ]
    assert causes.targets.tolist() == [0, 0, 0, 1, 2, -1, -1]
    assert causes.found.tolist() == [True, False, False, False]
    assert causes.missed.tolist() == [False, False, True, True]
    cat, dog, person = analyze_errors(dataset, causes).classes
    assert cat.counts == (1, 1, 1, 1, 2, 0)
    assert dog.counts == (0,) * 6
    assert person.counts == (0, 0, 0, 0, 0, 2)
    # The cat is found by the best detection: nothing is left to gain. The dog gains its own.
    assert cat.gains == (0,) * 6
    assert dog.gains == (1, 0, 0, 0, 0, 0)
    assert person.gains == (0, 0, 0, 0, 0, 1)


def test_difficult_objects_are_not_missed_but_can_be_to_blame() -> None:
    objects = [[0, 0, 20, 20], [100, 100, 120, 120]]
    dataset = Dataset("d", CLASSES, (sample_of("a", objects, [0, 0], [True, False]),))
    boxes = [[12, 0, 32, 20], [0, 0, 20, 20]]
    causes = assign_causes(dataset, {"a": detections_of(boxes, [2, 1], [0, 0])})
    assert causes.causes.tolist() == [LOCALIZATION, LEFT_OUT]
    assert causes.missed.tolist() == [False, True]
    gains = analyze_errors(dataset, causes).classes[0].gains
    assert gains[LOCALIZATION] == 0
    assert gains[MISSED] == 1


def test_of_two_on_one_object_the_better_becomes_right() -> None:
    objects = [[0, 0, 20, 20], [200, 0, 220, 20]]
    dataset = Dataset("d", CLASSES, (sample_of("a", objects, [0, 0]),))
    boxes = [[12, 0, 32, 20], [0, 12, 20, 32], [200, 0, 220, 20]]
    found = {"a": detections_of(boxes, [3, 2, 1], [0, 0, 0])}
    total = analyze_errors(dataset, assign_causes(dataset, found)).total
    # From a precision of 1/3 at the last to two of two.
    assert total.gains[LOCALIZATION] == pytest.approx(1 - 1 / 6)


@pytest.mark.parametrize("seed", range(100))
def test_counts_and_gains_are_hotcoco_s(seed: int) -> None:
    dataset, detections = sparse_case(seed)
    theirs = hotcoco_evaluator(dataset, detections).tide_errors(pos_thr=0.5, bg_thr=0.1)
    causes = assign_causes(dataset, detections)
    total = analyze_errors(dataset, causes, average_precision=_coco_ap).total
    counts = dict(zip(CAUSES, total.counts, strict=True))
    gains = dict(zip(CAUSES, total.gains, strict=True))
    assert counts == {cause: theirs["counts"][name] for cause, name in HOTCOCO.items()}
    for cause in SAME_GAINS:
        assert gains[cause] == pytest.approx(theirs["delta_ap"][HOTCOCO[cause]], abs=1e-12)


def _fixed(dataset: Dataset, causes: Causes, cause: int) -> tuple[Dataset, dict[str, Detections]]:
    """The case as it would be without a cause, one error after the other (TIDE, section 2.3)."""
    flat, truth = causes.detections, causes.truth
    rows: dict[str, list[tuple[list[float], float, int]]] = {s.image_id: [] for s in dataset}
    taken = {int(t) for t in np.flatnonzero(causes.found | truth.difficult)}
    for i in sorted(range(len(flat)), key=lambda i: -flat.scores[i]):
        box, label, target = flat.boxes[i].tolist(), int(flat.labels[i]), int(causes.targets[i])
        if causes.causes[i] == cause:
            if cause not in (CLASSIFICATION, LOCALIZATION) or target in taken:
                continue
            taken.add(target)
            box, label = truth.boxes[target].tolist(), int(truth.labels[target])
        image_id = dataset.samples[int(flat.images[i])].image_id
        rows[image_id].append((box, float(flat.scores[i]), label))
    detections = {
        name: detections_of([r[0] for r in own], [r[1] for r in own], [r[2] for r in own])
        for name, own in rows.items()
    }
    samples = tuple(
        replace(
            sample,
            boxes=sample.boxes[keep],
            labels=sample.labels[keep],
            difficult=sample.difficult[keep],
        )
        for i, sample in enumerate(dataset)
        for keep in [~(causes.missed[truth.images == i] & (cause == MISSED))]
    )
    return replace(dataset, samples=samples), detections


def _gain(before: float, after: float, objects: BoolArray) -> float:
    return (1.0 if math.isnan(after) and len(objects) else after) - before


@pytest.mark.parametrize("seed", range(100))
def test_gains_are_those_of_the_errors_fixed_one_by_one(seed: int) -> None:
    dataset, detections = sparse_case(seed)
    causes = assign_causes(dataset, detections)
    analysis = analyze_errors(dataset, causes)
    before = evaluate_voc(dataset, detections).classes
    for cause in range(len(CAUSES)):
        after = evaluate_voc(*_fixed(dataset, causes, cause)).classes
        for each, old, new in zip(analysis.classes, before, after, strict=True):
            gain = _gain(old.ap_area, new.ap_area, old.found)
            assert each.gains[cause] == pytest.approx(gain, abs=1e-12, nan_ok=True)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6))
def test_counts_add_up_with_the_evaluator(seed: int) -> None:
    dataset, detections = random_case(seed)
    causes = assign_causes(dataset, detections)
    analysis = analyze_errors(dataset, causes)
    results = evaluate_voc(dataset, detections).classes
    for errors, result in zip(analysis.classes, results, strict=True):
        true = int(result.found.sum())
        assert sum(errors.counts[:MISSED]) == len(result.precision) - true
        assert errors.counts[MISSED] <= result.npos - true
    for cause in range(len(CAUSES)):
        assert analysis.total.counts[cause] == sum(e.counts[cause] for e in analysis.classes)
    assert not (causes.missed & causes.found).any()
