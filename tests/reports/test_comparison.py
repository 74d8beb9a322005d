"""The paired bootstrap: each resample is what evaluating on copies of the images gives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from sppdet.core.types import Dataset, Detections
from sppdet.evaluation.voc_ap import evaluate_voc
from sppdet.reports.comparison import compare_detections, resampled_ap
from tests.helpers.evaluation_cases import CLASSES, perfect, random_case, sparse_case


def _copies(
    dataset: Dataset, detections: Mapping[str, Detections], counts: list[int]
) -> tuple[Dataset, dict[str, Detections]]:
    """The images as often as they count, with ids of their own."""
    samples, found = [], {}
    for sample, count in zip(dataset, counts, strict=True):
        for number in range(count):
            image_id = f"{sample.image_id} {number}"
            samples.append(replace(sample, image_id=image_id))
            if sample.image_id in detections:
                found[image_id] = detections[sample.image_id]
    return replace(dataset, samples=tuple(samples)), found


@pytest.mark.parametrize("seed", range(20))
def test_a_resample_is_an_evaluation_of_copies(seed: int) -> None:
    dataset, detections = sparse_case(seed)
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 4, (5, len(dataset)))
    found = resampled_ap(dataset, detections, weights.astype(np.float32))
    for row, counts in zip(found, weights.tolist(), strict=True):
        expected = evaluate_voc(*_copies(dataset, detections, counts)).classes
        assert row == pytest.approx([one.ap_area for one in expected], nan_ok=True, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_every_image_once_is_the_data_set(seed: int) -> None:
    dataset, detections = random_case(seed)
    found = resampled_ap(dataset, detections, np.ones((1, len(dataset)), np.float32))
    expected = [one.ap_area for one in evaluate_voc(dataset, detections).classes]
    assert found[0] == pytest.approx(expected, nan_ok=True, abs=1e-12)


def test_of_nothing_nothing_is_known() -> None:
    comparison = compare_detections(Dataset("empty", CLASSES, ()), {}, {}, resamples=3)
    assert math.isnan(comparison.mean.difference)
    assert math.isnan(comparison.mean.low)
    assert comparison.images == ()


def test_a_model_does_not_differ_from_itself() -> None:
    dataset, detections = sparse_case(1)
    comparison = compare_detections(dataset, detections, detections, resamples=50)
    for one in (comparison.mean, *comparison.classes):
        assert (one.difference, one.low, one.high, one.b_is_better) == (0, 0, 0, 0)
    assert comparison.images == ()


def test_perfect_detections_are_better_in_every_resample() -> None:
    dataset, worse = sparse_case(2)
    comparison = compare_detections(dataset, worse, perfect(dataset), resamples=200)
    mean = comparison.mean
    assert mean.b == 1
    assert mean.low <= mean.difference <= mean.high
    assert mean.low > 0
    assert mean.b_is_better == 1
    assert all(one.errors_b == 0 < one.errors_a for one in comparison.images)
    again = compare_detections(dataset, worse, perfect(dataset), resamples=200)
    assert again == comparison
    other = compare_detections(dataset, worse, perfect(dataset), resamples=200, seed=1)
    assert other.mean.low != mean.low
