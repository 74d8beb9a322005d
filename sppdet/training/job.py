"""What every learning stage is given: settings, data, where results are kept, who is told."""

from __future__ import annotations

from dataclasses import dataclass

from sppdet.config import Config
from sppdet.progress import Progress
from sppdet.training.data import TrainingData
from sppdet.training.store import StageStore


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One training.

    Attributes:
        config: all settings.
        data: the images, their proposals and conv maps.
        store: the stages' results.
        progress: is told how far each stage is.
    """

    config: Config
    data: TrainingData
    store: StageStore
    progress: Progress
