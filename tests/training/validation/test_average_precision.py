"""AP on the way: when and on what it is measured, and that it changes no step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.model_file import load_model
from sppdet.core.progress import NullProgress
from sppdet.core.types import Dataset, Sample
from sppdet.datasets import load_dataset, make_synthetic_voc
from sppdet.evaluation import evaluate_voc
from sppdet.training import train
from sppdet.training.augmentation import BatchSlot, load_training_image
from sppdet.training.checkpoints import TrainingContext
from sppdet.training.data import TrainingData
from sppdet.training.finetune import FineTuner
from sppdet.training.statistics import map_statistics, sampled_maps
from sppdet.training.validation.average_precision import (
    FEWEST_IMAGES,
    MOST_IMAGES,
    MOST_TIMES,
    measured_steps,
    prepare_validation,
    sample_validation,
    to_detections,
    validation_ap,
)
from sppdet.training.validation.history import HISTORY_FILE
from tests.helpers.training_context import make_context, make_head

NO_BOXES = np.zeros((0, 4), np.float32)
EMPTY = Sample("0", Path("0"), 9, 9, NO_BOXES, NO_BOXES[:, 0].astype(int), NO_BOXES[:, 0] > 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("validation")


@pytest.fixture(scope="module")
def context(folder: Path) -> TrainingContext:
    return make_context(folder, "finetune.steps=4")


@pytest.fixture(scope="module")
def held(folder: Path) -> Dataset:
    """Images that are not trained on."""
    make_synthetic_voc(folder / "others", train=0, val=4, test=0, width=120, height=90, seed=7)
    return load_dataset(folder / "others", "val")


def _tuner(context: TrainingContext) -> FineTuner:
    head = make_head(context)
    head.requires_grad_(True)
    head.pooler.set_statistics(*map_statistics(head, context.data))
    tuner = FineTuner(head, context.config.finetune, 0)
    tuner.measure_inputs(sampled_maps(context.data))
    return tuner


def _prepared(context: TrainingContext, dataset: Dataset, folder: Path) -> TrainingData:
    extractor = context.data.maps.extractor
    data = prepare_validation(context.config, dataset, folder / "cache", extractor, NullProgress())
    assert data is not None
    return data


@settings(max_examples=50, deadline=None)
@given(steps=st.integers(0, 100_000))
def test_it_is_measured_last_and_before_that_rarely(steps: int) -> None:
    found = sorted(measured_steps(steps))
    assert bool(found) == bool(steps)
    assert len(found) <= MOST_TIMES
    if steps:
        assert found[-1] == steps
        gaps = np.diff([0, *found])
        assert gaps.min() >= min(steps, 100)
        assert gaps.max() - gaps.min() <= 1


@settings(max_examples=50, deadline=None)
@given(count=st.integers(1, 300), steps=st.integers(1, 100_000))
def test_images_are_few_and_spread(count: int, steps: int) -> None:
    one = Dataset("d", ("a",), ())
    images = tuple(replace(EMPTY, image_id=str(n)) for n in range(count))
    chosen = [int(s.image_id) for s in sample_validation(replace(one, samples=images), steps)]
    assert chosen == sorted(set(chosen))
    assert min(count, FEWEST_IMAGES) <= len(chosen) <= min(count, MOST_IMAGES)
    assert chosen[0] == 0
    assert len(chosen) == 1 or chosen[-1] == count - 1


def test_it_is_a_share_and_changes_no_step(
    context: TrainingContext, held: Dataset, folder: Path
) -> None:
    validation, weights = _prepared(context, held, folder), []
    for watched in (False, True):
        tuner = _tuner(context)
        for step in range(3):
            if watched:
                assert 0 <= validation_ap(tuner, validation) <= 1
            slots = [BatchSlot(2 * step, step), BatchSlot(2 * step + 1, step + 1)]
            config = tuner.config
            tuner.step([load_training_image(context.data, config, 0, slot) for slot in slots])
        weights.append(tuner.state())
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_scores_that_are_right_find_all_objects(held: Dataset) -> None:
    found = {}
    for sample in held:
        scores = np.eye(len(held.classes), dtype=np.float32)[sample.labels]
        deltas = np.zeros((*scores.shape, 4), np.float32)
        size = (sample.width, sample.height)
        found[sample.image_id] = to_detections(scores, deltas, sample.boxes, size, held)
        nothing = to_detections(0 * scores, deltas, sample.boxes, size, held)
        no_region = to_detections(scores[:0], deltas[:0], sample.boxes[:0], size, held)
        assert len(nothing) == len(no_region) == 0
    assert evaluate_voc(held, found).map_area == 1.0


def test_a_training_writes_it_and_its_model_stays_the_same(
    context: TrainingContext, held: Dataset, tmp_path: Path
) -> None:
    config, dataset = context.config, context.data.dataset
    models = []
    for name, validation in (("without", None), ("with", held)):
        path = train(
            config, dataset, tmp_path / name, progress=NullProgress(), validation=validation
        )
        tensors = load_model(path)[1]
        models.append({k: v for k, v in tensors.items() if not k.startswith("calibration.")})
        header, *rows = (tmp_path / name / HISTORY_FILE).read_text().splitlines()
        assert header.endswith(",validation_ap")
        assert [row.split(",")[0] for row in rows] == ["4"]
        assert (rows[0][-1] == ",") == (validation is None)
    assert models[0].keys() == models[1].keys()
    assert all(np.array_equal(models[0][name], models[1][name]) for name in models[0])
