"""A training in miniature: what each stage takes, measured on a few images of the data set."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sppdet.backbones.base import without_cudnn
from sppdet.backbones.feature_maps import FeatureExtractor
from sppdet.core.pace import Pace
from sppdet.core.progress import Advance, NullProgress
from sppdet.core.types import Dataset
from sppdet.detection.starting_model import StartingModel
from sppdet.training.checkpoints import StageStore, TrainingContext
from sppdet.training.compression import compress_head
from sppdet.training.config import TrainingConfig
from sppdet.training.data import TrainingData, prepare_data
from sppdet.training.finetune_stage import finetune_head
from sppdet.training.hard_negatives import HardNegativeMiner
from sppdet.training.planning.estimate import PROPOSALS, STATISTICS, Costs
from sppdet.training.region_pass import collect_regions
from sppdet.training.statistics import map_statistics
from sppdet.training.svm_stage import train_svms

# Images and steps of the miniature: the first of each is left out where it takes longer.
IMAGES, STEPS = 3, 3


@dataclass(frozen=True, slots=True)
class Measured:
    """Results of the miniature.

    Attributes:
        costs: seconds per item of each stage.
        cache_bytes: of an image's proposals and feature maps on disk.
        result_bytes: of the results of all stages on disk.
        width: of the features that the SVMs see.
    """

    costs: Costs
    cache_bytes: float
    result_bytes: int
    width: int


class StageTimer(NullProgress):
    """Takes the time of stages; shows nothing.

    Attributes:
        each: by stage, seconds per item.
        whole: by stage, seconds from its first item to its last.
    """

    def __init__(self) -> None:
        self.each: dict[str, float] = {}
        self.whole: dict[str, float] = {}

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        """Time a stage."""
        start, pace = time.perf_counter(), Pace(total)
        pace.advance(0, start)
        yield lambda count: pace.advance(count, time.perf_counter())
        self.whole[label] = time.perf_counter() - start
        found = pace.seconds_per_item()
        self.each[label] = self.whole[label] / max(total, 1) if found is None else found


def measure_training(
    config: TrainingConfig,
    dataset: Dataset,
    cache: Path,
    extractor: FeatureExtractor,
    *,
    workers: int = 0,
    start: StartingModel | None = None,
) -> Measured:
    """Train on a few images, for a few steps, and take the time of every stage.

    The results are thrown away; proposals and feature maps stay in the cache, where the training
    finds them: they are the same. torch's random state moves on.

    Args:
        config: settled settings.
        dataset: the images to take some of: those that are not in the cache, if there are any.
        cache: as `train` is given it.
        extractor: of these settings.
        workers: threads that compute proposals.
        start: the model that training starts from.

    Raises SppdetError where the images cannot be used or the miniature fails.
    """
    timer = StageTimer()
    sample = replace(dataset, samples=tuple(dataset.samples[i] for i in spread(len(dataset))))
    with without_cudnn():
        data = prepare_data(config, sample, cache, extractor, timer, workers=workers)
        # Proposals come from several threads at once, in bursts: all of them count.
        timer.each[PROPOSALS] = timer.whole[PROPOSALS] / len(sample)
        with tempfile.TemporaryDirectory() as folder:
            width = _run_stages(small(config), data, Path(folder), timer, start)
            written = sum(path.stat().st_size for path in Path(folder).iterdir())
    return Measured(timer.each, _cached_bytes(data), written, width)


def spread(count: int, wanted: int = IMAGES) -> list[int]:
    """List `wanted` numbers below `count`, evenly spaced; all where there are no more."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, wanted))})


def small(config: TrainingConfig) -> TrainingConfig:
    """The settings of the miniature: a few steps."""
    steps = min(STEPS, config.finetune.steps)
    return config.replace(finetune=config.finetune.replace(steps=steps))


def _run_stages(
    config: TrainingConfig,
    data: TrainingData,
    folder: Path,
    timer: StageTimer,
    start: StartingModel | None,
) -> int:
    """Run the stages after the maps; return the width of the features that the SVMs see."""
    store = StageStore(folder, config, data.key(), None if start is None else start.digest)
    context = TrainingContext(config, data, store, timer, start)
    tuned = finetune_head(context)
    begin = time.perf_counter()
    map_statistics(tuned, data)
    timer.each[STATISTICS] = (time.perf_counter() - begin) / len(data.dataset)
    head = compress_head(context, tuned).freeze(quantize=config.features.quantize)
    collect_regions(context, head)
    # Without positives no SVM is trained: on a head that has learned nothing it would take longer.
    width = head.layer_width(config.head.svm_layer)
    train_svms(context, head, HardNegativeMiner(len(data.dataset.classes), width, config.svm))
    return width


def _cached_bytes(data: TrainingData) -> float:
    """Bytes of an image's maps and proposals."""
    maps = [data.maps.path(digest).stat().st_size for digest in data.digests]
    return float(np.mean(maps)) + float(np.mean([one.nbytes for one in data.proposals]))
