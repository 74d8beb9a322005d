"""Results of the training stages on disk, each named by all that it depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from sppdet.core.files import config_digest, sha256
from sppdet.core.progress import Progress
from sppdet.core.settings import flatten
from sppdet.core.tensor_files import TensorFileError, load_tensors, save_tensors
from sppdet.detection.starting_model import StartingModel
from sppdet.training.config import TrainingConfig
from sppdet.training.data import TrainingData

# The settings that decide a stage's result: whole sections, or values in them.
DEPENDS: dict[str, tuple[str, ...]] = {
    "finetune": ("features", "head", "finetune", "seed"),
    "compression": ("head.fc6_rank",),
    "regions": (
        "head.svm_layer",
        "head.regression_layer",
        "svm.feature_norm",
        "regression",
        "context",
    ),
    # Which layers are read decides how all features are computed, and so their last bits.
    "svm": ("head.svm_layer", "head.regression_layer", "svm"),
    # How the finished detector detects; what it is, is in the key of the data in its own store.
    "calibration": ("proposals", "features", "head", "detection"),
}
# The stage whose result a stage is given; the first is given the data. Of the regions' stage the
# SVMs are given positives alone, which no setting of regression or context changes.
UPSTREAM = {"compression": "finetune", "regions": "compression", "svm": "compression"}
# Values of the sections above that a stage does not depend on, or that follow from the others.
WITHOUT_EFFECT = {
    "finetune": (
        "features.download",
        "head.fc6_rank",
        "head.svm_layer",
        "head.regression_layer",
        "head.learned_boxes",
        "finetune.checkpoint_every",
    ),
    "calibration": ("features.download",),
}


class StageStore:
    """Results of training stages, and states on the way to them.

    Args:
        folder: holds the files; made when the first is saved.
        config: all settings, those settled that follow from the data.
        data_key: digest of the images, annotations, proposals and feature maps.
        start_digest: digest of the model that training starts from; None for random layers.
    """

    def __init__(
        self, folder: Path, config: TrainingConfig, data_key: str, start_digest: str | None = None
    ) -> None:
        self.folder, self.config = folder, config
        # Sums of floats are rounded in the order that threads take them in.
        threads = f"{torch.get_num_threads()} threads"
        self.inputs_key = sha256(data_key, threads, start_digest or "")

    def key(self, stage: str) -> str:
        """Digest of all that the stage's result depends on: its settings, and what comes before.

        Invariant: a changed setting changes the keys of the stages that depend on it, and no other.
        """
        upstream = self.key(UPSTREAM[stage]) if stage in UPSTREAM else self.inputs_key
        idle = WITHOUT_EFFECT.get(stage, ())
        values = {
            name: value
            for name, value in flatten(self.config).items()
            if name not in idle and any(_lies_in(name, part) for part in DEPENDS[stage])
        }
        return sha256(stage, upstream, config_digest(values))

    def has(self, stage: str) -> bool:
        """Return whether a file of the stage's result is there, without reading it."""
        return self._path(stage, False).is_file()

    def load(self, stage: str, *, partial: bool = False) -> dict[str, Tensor] | None:
        """Return what was saved for these inputs; None if nothing was, or the file is damaged."""
        path = self._path(stage, partial)
        if not path.is_file():
            return None
        try:
            arrays, _ = load_tensors(path)
        except TensorFileError:
            return None
        return {name: torch.from_numpy(value) for name, value in arrays.items()}

    def save(
        self, stage: str, tensors: Mapping[str, Tensor | NDArray[Any]], *, partial: bool = False
    ) -> None:
        """Save a stage's result, or its state on the way; a result makes the state needless."""
        save_tensors(self._path(stage, partial), tensors)
        if not partial:
            self._path(stage, True).unlink(missing_ok=True)

    def _path(self, stage: str, partial: bool) -> Path:
        name = f"{stage}-{self.key(stage)[:16]}"
        return self.folder / f"{name}{'.partial' if partial else ''}.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class TrainingContext:
    """What every training stage is given.

    Attributes:
        config: all settings, those settled that follow from the data.
        data: the images with their proposals and feature maps.
        store: the stages' results.
        progress: is told how far each stage is.
        start: the model whose layers fine-tuning starts from; None for random ones.
    """

    config: TrainingConfig
    data: TrainingData
    store: StageStore
    progress: Progress
    start: StartingModel | None = None

    def find_result(self, stage: str, label: str) -> dict[str, Tensor] | None:
        """Load the result of a stage that need not be run again, and tell the user so."""
        done = self.store.load(stage)
        if done is not None:
            self.progress.say(f"{label}: unchanged, taken from the run's folder")
        return done


def _lies_in(name: str, part: str) -> bool:
    """Tell whether a value is that of a name, or lies in the section of that name."""
    return name == part or name.startswith(f"{part}.")
