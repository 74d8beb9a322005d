"""The plan of a training: its lines, the steps it chooses and keeps, and no trace of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sppdet.backbones.feature_maps import FeatureExtractor
from sppdet.core.progress import NullProgress
from sppdet.core.settings import load
from sppdet.core.types import Dataset
from sppdet.datasets import load_dataset, make_synthetic_voc
from sppdet.training import train
from sppdet.training.config import FineTuneConfig, TrainingConfig
from sppdet.training.planning import estimate
from sppdet.training.planning.estimate import LEAST_STEPS
from sppdet.training.planning.left import find_left
from sppdet.training.planning.measure import spread
from sppdet.training.planning.plan import (
    STEPS_FILE,
    Plan,
    StepsRecord,
    plan_training,
    steps_line,
    time_line,
    validation_line,
)
from tests.helpers.training_context import SETTINGS

IMAGES = 5
AGES = 10.0**6


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("data") / "shapes"
    make_synthetic_voc(root, train=IMAGES, val=0, test=0, width=120, height=90)
    return load_dataset(root, "train")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Proposals and maps that all tests share."""
    return tmp_path_factory.mktemp("cache")


def _config(*changes: str) -> TrainingConfig:
    return load(TrainingConfig, None, [*SETTINGS, *changes])


def _plan(
    config: TrainingConfig,
    dataset: Dataset,
    run: Path,
    cache: Path | None = None,
    minutes: float | None = None,
) -> Plan:
    return plan_training(
        config, dataset, run, progress=NullProgress(), cache_dir=cache, minutes=minutes
    )


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_lines() -> None:
    config = FineTuneConfig(steps=1500)
    assert steps_line(config, 1500) == "plan: 1500 steps of 4 images"
    assert steps_line(config, 700) == "plan: 1500 steps of 4 images, 700 of them left"
    seconds = {"proposals": 70.0, "feature maps": 0.4, "fine-tuning": 600.0}
    words = "time: about 11 min 10 s: proposals 1 min 10 s; fine-tuning 10 min 00 s"
    assert time_line(seconds) == words
    assert time_line({"proposals": 0.4}) == "time: about 0.4 s"
    none = "validation: none, for lack of other images or of steps"
    assert validation_line(0, 4) == validation_line(9, 0) == none
    assert validation_line(60, 4) == (
        "validation: AP on 60 images, measured 4 times in fine-tuning"
    )
    assert time_line({}) == "time: about 0.0 s"


@pytest.mark.parametrize(("count", "wanted"), [(0, 3), (1, 3), (3, 3), (50, 3), (2, 1)])
def test_sampled_images_are_spread(count: int, wanted: int) -> None:
    found = spread(count, wanted)
    assert len(found) == len(set(found)) == min(count, wanted)
    assert all(0 <= one < count for one in found)


def test_a_plan_leaves_no_trace(dataset: Dataset, tmp_path: Path) -> None:
    config = _config("finetune.steps=4")
    train(config, dataset, tmp_path / "without", progress=NullProgress())
    before = torch.get_rng_state()
    plan = _plan(config, dataset, tmp_path / "with")
    assert torch.equal(torch.get_rng_state(), before)
    assert {path.name for path in (tmp_path / "with").iterdir()} == {"cache"}
    assert plan.config == config
    assert [line.split(":")[0] for line in plan.lines] == [
        "plan",
        "validation",
        "time",
        "memory",
        "disk",
    ]
    assert {estimate.PROPOSALS, estimate.STEPS, estimate.MINING} <= plan.seconds.keys()
    train(plan.config, dataset, tmp_path / "with", progress=NullProgress())
    with_plan, without = (_files(tmp_path / name) for name in ("with", "without"))
    assert {**with_plan, "train.json": b""} == {**without, "train.json": b""}
    assert _plan(config, dataset, tmp_path / "with").lines == ("plan: all stages are done already",)


@pytest.mark.parametrize(("minutes", "steps"), [(0.0, LEAST_STEPS), (AGES, 1500)])
def test_the_steps_that_fit_are_chosen_and_kept(
    dataset: Dataset, tmp_path: Path, cache: Path, minutes: float, steps: int
) -> None:
    config = _config()
    plan = _plan(config, dataset, tmp_path, cache, minutes)
    assert plan.config == config.replace(finetune=config.finetune.replace(steps=steps))
    assert plan.lines[0] == f"plan: {steps} steps of 4 images"
    few = f"0 minutes are too few: with the fewest steps ({LEAST_STEPS}), training takes about "
    assert [line[: len(few)] for line in plan.warnings] == [few][: minutes == 0]
    record = json.loads((tmp_path / STEPS_FILE).read_text())
    assert (record["minutes"], record["steps"]) == (minutes, steps)
    # The same command finds the number, whatever it would choose now.
    (tmp_path / STEPS_FILE).write_text(json.dumps(record | {"steps": 37}))
    again = _plan(config, dataset, tmp_path, cache, minutes)
    assert again.config.finetune.steps == 37
    assert not again.warnings


def test_steps_are_kept_for_what_they_were_chosen_for(dataset: Dataset, tmp_path: Path) -> None:
    config = _config()
    assert StepsRecord.of(tmp_path, config, dataset, 5).steps is None
    saved = StepsRecord.of(tmp_path, config, dataset, 5).save(37)
    assert StepsRecord.of(tmp_path, config, dataset, 5) == saved
    assert saved.apply(config) == config.replace(finetune=config.finetune.replace(steps=37))
    assert StepsRecord.of(tmp_path, config, dataset, None).apply(config) == config
    moved = replace(dataset.samples[0], boxes=dataset.samples[0].boxes + np.float32(1))
    for other in (
        StepsRecord.of(tmp_path, config, dataset, 6),
        StepsRecord.of(tmp_path, _config("seed=1"), dataset, 5),
        StepsRecord.of(tmp_path, config, replace(dataset, samples=dataset.samples[1:]), 5),
        StepsRecord.of(
            tmp_path, config, replace(dataset, samples=(moved, *dataset.samples[1:])), 5
        ),
    ):
        assert other.steps is None
    for damaged in ("", "[]", "{}", json.dumps({**saved.facts, "steps": None})):
        (tmp_path / STEPS_FILE).write_text(damaged)
        assert StepsRecord.of(tmp_path, config, dataset, 5).steps is None


def test_a_time_takes_no_more_steps_than_are_set(
    dataset: Dataset, tmp_path: Path, cache: Path
) -> None:
    config = _config("finetune.steps=7")
    assert _plan(config, dataset, tmp_path, cache, minutes=0.0).config == config


def test_what_is_cached_and_begun_is_not_planned_again(dataset: Dataset, tmp_path: Path) -> None:
    config = _config("finetune.steps=4").settled(IMAGES)
    extractor = FeatureExtractor(config.features, seed=config.seed)
    arguments = (config, dataset, tmp_path, tmp_path / "cache", extractor)
    nothing = find_left(*arguments)
    assert nothing.uncached == tuple(range(IMAGES))
    assert (nothing.work.proposals, nothing.work.maps, nothing.work.steps) == (IMAGES, IMAGES, 4)
    assert not nothing.is_all_done
    train(config, dataset, tmp_path, progress=NullProgress())
    assert find_left(*arguments).is_all_done
    (svms,) = tmp_path.glob("svm-*")
    svms.unlink()
    left = find_left(*arguments)
    assert left.uncached == ()
    assert not left.is_all_done
    assert estimate.STEPS in left.work.finished
    assert estimate.MINING not in left.work.finished
    next((tmp_path / "cache").rglob("*.maps")).unlink()
    assert find_left(*arguments).work.maps == 1


def test_images_that_cannot_be_used_are_left_to_the_training(
    dataset: Dataset, tmp_path: Path
) -> None:
    gone = replace(dataset.samples[1], path=tmp_path / "gone.jpg")
    plan = _plan(_config(), replace(dataset, samples=(gone,)), tmp_path)
    assert plan == Plan(_config())
    timed = _plan(_config(), replace(dataset, samples=(gone,)), tmp_path, minutes=5)
    assert timed.config == _config()
    assert "gone.jpg" in timed.warnings[0]
    none = replace(
        dataset.samples[0],
        boxes=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int64),
        difficult=np.zeros(0, np.bool_),
    )
    assert _plan(_config(), replace(dataset, samples=(none,)), tmp_path) == Plan(_config())
