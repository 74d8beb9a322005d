"""The plan of a training: what it will do, how long it will take, and what it needs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from sppdet.backbones.feature_maps import FeatureExtractor
from sppdet.core.errors import SppdetError
from sppdet.core.files import array_digest, atomic_write_json, config_digest, sha256
from sppdet.core.jit import warm_up
from sppdet.core.parallel import peak_memory
from sppdet.core.progress import Progress, duration
from sppdet.core.settings import to_dict
from sppdet.core.types import Dataset
from sppdet.detection.starting_model import StartingModel
from sppdet.training.config import FineTuneConfig, SvmConfig, TrainingConfig
from sppdet.training.planning.estimate import Work, fitting_steps, stage_seconds
from sppdet.training.planning.left import find_left
from sppdet.training.planning.measure import measure_training
from sppdet.training.planning.resources import (
    GB,
    MEMORY_GROWTH,
    STATE_COPIES,
    DiskNeed,
    available_memory,
    check_disk,
    mining_bytes,
    size,
)
from sppdet.training.validation.average_precision import measured_steps, sample_validation

# In the run's folder: the number of steps that a time was found to have room for.
STEPS_FILE = "minutes.json"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a training will do.

    Attributes:
        config: the settings, with the number of steps that was chosen.
        lines: for the user.
        warnings: for the user.
        seconds: expected of each stage, in their order; empty where nothing could be measured.
    """

    config: TrainingConfig
    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)


@torch.random.fork_rng(devices=[])
def plan_training(
    config: TrainingConfig,
    dataset: Dataset,
    run_dir: Path,
    *,
    progress: Progress,
    device: str = "cpu",
    cache_dir: Path | None = None,
    workers: int = 0,
    minutes: float | None = None,
    validation: Dataset | None = None,
    start: StartingModel | None = None,
) -> Plan:
    """Plan a training, from what a few images and steps take; the arguments are those of `train`.

    With `minutes`, no more steps are taken than such a time has room for, as far as is known
    before. The number is kept in the run's folder: the same command finds it there, and ends in
    the same model. Where images cannot be used the plan is empty: `train` tells of all of them.

    Raises TrainingError where the disk has too little room.
    """
    model = None if start is None else start.config.head
    record = StepsRecord.of(run_dir, config, dataset, minutes, start)
    config = record.apply(config)
    settled, cache = config.settled(len(dataset), model), cache_dir or run_dir / "cache"
    if not any(len(sample.labels) for sample in dataset):
        return Plan(config)
    warm_up()
    extractor = FeatureExtractor(settled.features, seed=settled.seed, device=device)
    try:
        left = find_left(settled, dataset, run_dir, cache, extractor, start)
        if left.is_all_done:
            return Plan(config, ("plan: all stages are done already",))
        rest = tuple(dataset.samples[n] for n in left.uncached) or dataset.samples
        sample = replace(dataset, samples=rest)
        measured = measure_training(settled, sample, cache, extractor, workers=workers, start=start)
    except (SppdetError, OSError) as error:
        unknown = f"how long it takes could not be measured, and all steps are taken: {error}"
        return Plan(config, warnings=() if minutes is None else (unknown,))
    work = _with_validation(replace(left.work, width=measured.width), settled, validation)
    # A number that is kept was chosen, and warned of, by an earlier run.
    limit = minutes if record.steps is None else None
    if limit is not None:
        whole = replace(work, steps=settled.finetune.steps, finished=frozenset())
        steps = fitting_steps(whole, measured.costs, settled.svm, 60 * limit)
        record = record.save(steps)
        config = record.apply(config)
        if steps != settled.finetune.steps:
            settled = config.settled(len(dataset), model)
            work = _with_validation(replace(whole, steps=steps), settled, validation)
    seconds = stage_seconds(work, measured.costs, settled.svm)
    lines = (
        steps_line(config.settled(len(dataset), model).finetune, work.steps),
        validation_line(work.validation, work.times),
        time_line(seconds),
        _memory_line(mining_bytes(work, settled.svm)),
        _disk_line(run_dir, cache, left.work.maps * measured.cache_bytes, measured.result_bytes),
    )
    return Plan(config, lines, tuple(_warnings(seconds, limit, work, settled.svm)), seconds)


def steps_line(config: FineTuneConfig, left: int) -> str:
    """Say in a line how many steps are taken, and how many of them are left."""
    rest = "" if left == config.steps else f", {left} of them left"
    return f"plan: {config.steps} steps of {config.images_per_step} images{rest}"


def validation_line(images: int, times: int) -> str:
    """Say in a line on how many images AP is measured, and how often."""
    if not images * times:
        return "validation: none, for lack of other images or of steps"
    often = "once" if times == 1 else f"{times} times"
    which = "1 image" if images == 1 else f"{images} images"
    return f"validation: AP on {which}, measured {often} in fine-tuning"


def time_line(seconds: Mapping[str, float]) -> str:
    """Say in a line how long the whole takes, and each stage of a second or more."""
    parts = [f"{stage} {duration(took)}" for stage, took in seconds.items() if took >= 1]
    named = f": {'; '.join(parts)}" if len(parts) > 1 else ""
    return f"time: about {duration(sum(seconds.values()))}{named}"


def _with_validation(work: Work, config: TrainingConfig, dataset: Dataset | None) -> Work:
    """Add what is measured on validation images to the work; `config` is settled."""
    steps = config.finetune.steps
    if dataset is None or not len(dataset):
        return work
    work = replace(work, calibration=len(dataset))
    if not steps:
        return work
    times = len([one for one in measured_steps(steps) if one > steps - work.steps])
    return replace(work, validation=len(sample_validation(dataset, steps)), times=times)


def _memory_line(mining: int) -> str:
    peak, free = peak_memory(), available_memory()
    needed = mining + (0.0 if peak is None else MEMORY_GROWTH * GB * peak)
    rest = "" if free is None else f" ({size(free)} free)"
    return f"memory: about {size(needed)}{rest}"


def _disk_line(run_dir: Path, cache: Path, cached: float, results: int) -> str:
    disks = check_disk(
        [
            DiskNeed(cache, cached, "keep the cache elsewhere: --cache DIR"),
            DiskNeed(run_dir, STATE_COPIES * results, "keep the run elsewhere: --run DIR"),
        ]
    )
    return "disk: " + ", ".join(f"{size(need)} ({size(free)} free)" for need, free in disks)


def _warnings(
    seconds: Mapping[str, float], minutes: float | None, work: Work, svm: SvmConfig
) -> Iterator[str]:
    whole = sum(seconds.values())
    if minutes is not None and whole > 60 * minutes:
        yield (
            f"{minutes:g} minutes are too few: with the fewest steps ({work.steps}), training "
            f"takes about {duration(whole)}"
        )
    free, mining = available_memory(), mining_bytes(work, svm)
    if free is not None and mining > free:
        yield (
            f"hard negatives may take {size(mining)} of memory, and {size(free)} are free: "
            "--set svm.max_negatives=N keeps fewer of them"
        )


@dataclass(frozen=True, slots=True)
class StepsRecord:
    """The number of steps that a time has room for, kept in the run's folder.

    Attributes:
        folder: the run's.
        facts: all that the number was chosen for.
        steps: None where none was chosen yet.
    """

    folder: Path
    facts: Mapping[str, object]
    steps: int | None

    @classmethod
    def of(
        cls,
        folder: Path,
        config: TrainingConfig,
        dataset: Dataset,
        minutes: float | None,
        start: StartingModel | None = None,
    ) -> StepsRecord:
        """Find the number that was chosen for these settings, images and minutes."""
        images = [
            sha256(one.image_id, array_digest(one.boxes), array_digest(one.labels))
            for one in dataset
        ]
        key = config_digest(
            [to_dict(config), list(dataset.classes), images, start and start.digest]
        )
        facts = {"key": key, "minutes": minutes}
        try:
            found = json.loads((folder / STEPS_FILE).read_bytes())
            same = minutes is not None and {name: found[name] for name in facts} == facts
            steps = int(found["steps"]) if same else None
        except (OSError, ValueError, TypeError, KeyError):
            steps = None
        return cls(folder, facts, steps)

    def apply(self, config: TrainingConfig) -> TrainingConfig:
        """Return the settings with the number of steps, if there is one."""
        if self.steps is None:
            return config
        return config.replace(finetune=config.finetune.replace(steps=self.steps))

    def save(self, steps: int) -> StepsRecord:
        """Keep the number."""
        atomic_write_json(self.folder / STEPS_FILE, {**self.facts, "steps": steps})
        return replace(self, steps=steps)
