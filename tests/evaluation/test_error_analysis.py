"""Error analysis: every cause by hand, and counts that add up with the evaluator's."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.types import Dataset
from sppdet.evaluation.error_analysis import CAUSES, analyze_errors
from sppdet.evaluation.tables import SIZE_NAMES
from sppdet.evaluation.voc_ap import evaluate_voc
from tests.helpers.evaluation_cases import CLASSES, detections_of, random_case, sample_of


def test_analyze_errors_of_nothing() -> None:
    analysis = analyze_errors(Dataset("empty", CLASSES, ()), {})
    assert [each.name for each in analysis.classes] == list(CLASSES)
    assert analysis.total.n_examined == 0
    assert analysis.total.causes == (0,) * len(CAUSES)
    assert analysis.total.missed == (0,) * len(SIZE_NAMES)


def test_every_cause_by_hand() -> None:
    classes = ("cat", "dog", "sofa")
    objects = [[0, 0, 20, 20], [100, 0, 120, 20], [200, 0, 220, 20]]
    dataset = Dataset("d", classes, (sample_of("a", objects, [0, 1, 2]),))
    boxes = [
        [0, 0, 20, 20],  # the cat
        [1, 0, 20, 20],  # the cat again
        [12, 0, 32, 20],  # beside the cat: IoU 0.25
        [100, 0, 120, 20],  # the dog, like a cat
        [200, 0, 220, 20],  # the sofa, unlike a cat
        [300, 0, 320, 20],  # nothing
        [18, 0, 38, 20],  # IoU 0.05 with the cat: nothing
    ]
    found = {"a": detections_of(boxes, [7, 6, 5, 4, 3, 2, 1], [0] * 7, classes)}
    cat, dog, sofa = analyze_errors(dataset, found, top=10).classes
    assert dict(zip(CAUSES, cat.causes, strict=True)) == {
        "duplicate": 1,
        "localization": 1,
        "similar class": 1,
        "other class": 1,
        "background": 2,
    }
    assert (cat.n_examined, cat.objects, cat.missed) == (6, (1, 0, 0), (0, 0, 0))
    assert dog.missed == sofa.missed == (1, 0, 0)
    # By default as many as there are objects: the best-scored false positive, a duplicate.
    assert analyze_errors(dataset, found).classes[0].causes == (1, 0, 0, 0, 0)


def test_missed_objects_by_size_leave_difficult_ones_out() -> None:
    objects = [[0, 0, 31, 31], [0, 0, 32, 32], [0, 0, 96, 96], [0, 0, 200, 200]]
    sample = sample_of("a", objects, [0] * 4, [False, False, False, True])
    analysis = analyze_errors(Dataset("d", ("cat",), (sample,)), {})
    assert analysis.total.objects == analysis.total.missed == (1, 1, 1)


def test_a_difficult_object_can_be_to_blame() -> None:
    objects = [[0, 0, 20, 20], [100, 100, 120, 120]]
    dataset = Dataset("d", ("cat",), (sample_of("a", objects, [0, 0], [True, False]),))
    beside = {"a": detections_of([[12, 0, 32, 20]], [1], [0], ("cat",))}
    assert analyze_errors(dataset, beside).total.causes == (0, 1, 0, 0, 0)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6))
def test_counts_add_up_with_the_evaluator(seed: int) -> None:
    dataset, detections = random_case(seed)
    analysis = analyze_errors(dataset, detections, top=10**6)
    results = evaluate_voc(dataset, detections).classes
    for errors, result in zip(analysis.classes, results, strict=True):
        counted = len(result.precision)
        true = int(result.found.sum())
        assert errors.n_examined == sum(errors.causes) == counted - true
        assert sum(errors.objects) == result.npos
        assert sum(errors.missed) == result.npos - true
    assert analysis.total.n_examined == sum(each.n_examined for each in analysis.classes)
