"""Training a classifier: single-size, at sizes that take turns, or at random sizes (sec. 2.3).

Every epoch has one input size; the weights are shared, and the pyramid gives vectors of one length
from maps of all sizes. Interrupted at any moment, the same call goes on where the state was last
saved, and ends in the same model, byte for byte (on the CPU, with the same number of threads).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sppdet.classification.checkpoint import load_checkpoint, save_checkpoint
from sppdet.classification.classifier import Classifier
from sppdet.classification.config import ClassificationConfig
from sppdet.classification.curves import write_curves
from sppdet.classification.data import BatchMaker, ImageStore, batches
from sppdet.classification.networks import ClassificationNetwork
from sppdet.classification.schedule import epoch_order, epoch_size
from sppdet.classification.trainer import Epoch, Trainer, centre_error
from sppdet.datasets import LabelledImages
from sppdet.errors import TrainingError
from sppdet.files import atomic_write_json
from sppdet.progress import Advance, Progress
from sppdet.settings import differences, from_dict, to_dict
from sppdet.versions import versions

MODEL_FILE = "model.safetensors"
STATE_FILE = "state.safetensors"
HISTORY_FILE = "history.json"
CURVES_FILE = "curves.png"
# What a run may be continued with other values of: none decides what an epoch does.
FREE_SETTINGS = (
    "training.epochs",
    "training.save_every",
    "training.keep_mb",
    "network.download",
)


def train_classifier(
    config: ClassificationConfig,
    training: LabelledImages,
    run_dir: Path,
    *,
    validation: LabelledImages | None = None,
    progress: Progress,
    device: str = "cpu",
    description: str = "",
) -> Path:
    """The path of the trained model file, `run_dir / "model.safetensors"`.

    Beside it are the training curves, `history.json` and `curves.png`, and the state, from which a
    run with more `training.epochs` goes on.

    Args:
        config: all settings.
        training: the images to train on.
        run_dir: made if missing.
        validation: images that the error is measured on after each epoch (central crops); it then
            decides when the learning rate falls.
        progress: is told how far the training is.
        device: where the network runs.
        description: one line about the model, kept in its file.

    Raises TrainingError when images cannot be read, the run's folder holds a training of other
    settings or images, or the loss is not finite.
    """
    run = _Run(config, training, validation, run_dir, progress, device)
    run.resume()
    run.train()
    path = run_dir / MODEL_FILE
    provenance = {
        "dataset": training.name,
        "images": len(training),
        "seed": config.seed,
        **versions(),
        "last_epoch": run.trainer.history[-1] if run.trainer.history else {},
    }
    classifier = Classifier(config, run.trainer.network)
    classifier.save(path, description=description, provenance=provenance)
    return path


class _Run:
    """A training, its images and its folder."""

    def __init__(
        self,
        config: ClassificationConfig,
        training: LabelledImages,
        validation: LabelledImages | None,
        run_dir: Path,
        progress: Progress,
        device: str,
    ) -> None:
        _check(training, validation)
        self.config, self.run_dir, self.progress = config, run_dir, progress
        network = ClassificationNetwork(config.network, training.classes, seed=config.seed)
        self.trainer = Trainer(network.to(device), config.training, config.seed)
        side = config.network.input_side
        short_side, keep_mb = round(side * config.augment.enlarge), config.training.keep_mb
        self.store = ImageStore(training, short_side, keep_mb)
        self.held_out = None if validation is None else ImageStore(validation, short_side, keep_mb)
        stores = [store for store in (self.store, self.held_out) if store is not None]
        with progress.task("reading images", sum(len(store) for store in stores)) as advance:
            self.data = [store.digest(advance) for store in stores]
        self.labels = torch.from_numpy(training.labels.copy())
        colours = self.store.colours()
        self.maker = BatchMaker(network.backbone, side, config.augment, colours, config.seed)

    def resume(self) -> None:
        """Takes up the state in the folder, if there is one."""
        path = self.run_dir / STATE_FILE
        found = load_checkpoint(path)
        if found is None:
            return
        old = from_dict(ClassificationConfig, found.facts["config"], where=path)
        changed = [key for key in differences(old, self.config) if key not in FREE_SETTINGS]
        if changed or found.facts["data"] != self.data:
            what = f"with another {changed[0]}" if changed else "on other images"
            raise TrainingError(
                f"the run was trained {what}",
                where=path,
                mend="use the same, or give another --run folder",
            )
        if found.facts["epoch"] > self.config.training.epochs:
            raise TrainingError(
                f"the run has {found.facts['epoch']} epochs already",
                where=path,
                mend="raise training.epochs, or give another --run folder",
            )
        self.trainer.load_state(found)
        self.progress.say(f"going on after {_place(self.trainer)}")

    def save(self) -> None:
        """Saves the state."""
        tensors, facts = self.trainer.state()
        whole: dict[str, Any] = {**facts, "config": to_dict(self.config), "data": self.data}
        save_checkpoint(self.run_dir / STATE_FILE, tensors, whole)

    def train(self) -> None:
        """Trains the epochs that are left; the state is saved after each."""
        settings, trainer = self.config.training, self.trainer
        steps = -(-len(self.store) // settings.batch)
        with self.progress.task("training", settings.epochs * steps) as advance:
            advance(trainer.epoch * steps + trainer.step)
            while trainer.epoch < settings.epochs:
                try:
                    self._epoch(advance)
                except TrainingError:
                    self.save()
                    raise
                self.save()
                self._write_history()
        # Killed between the two, the last epoch is in the state and not yet in the history.
        self._write_history()

    def _epoch(self, advance: Advance) -> None:
        settings, trainer, seed = self.config.training, self.trainer, self.config.seed
        epoch = trainer.epoch
        size = epoch_size(settings, self.config.network.input_side, epoch, seed)
        order = epoch_order(len(self.store), epoch, seed)[trainer.step * settings.batch :]
        trainer.set_learning_rate()

        def make(indices: Sequence[int]) -> Tensor:
            return self.maker.training_views(self.store, indices, epoch, size)

        for indices, x in batches(order, settings.batch, make):
            trainer.run_step(x, self.labels[list(indices)])
            advance(1)
            if trainer.step % settings.save_every == 0:
                self.save()
        held_out = None
        if self.held_out is not None:
            held_out = centre_error(trainer.network, self.held_out, self.maker, settings.batch)
        self.progress.say(_told(trainer.end_epoch(size, held_out)))

    def _write_history(self) -> None:
        history = self.trainer.history
        atomic_write_json(self.run_dir / HISTORY_FILE, {"epochs": history})
        write_curves(self.run_dir / CURVES_FILE, curves(history))


def curves(history: Sequence[Epoch]) -> dict[str, dict[str, list[float]]]:
    """The panels of a training's picture: losses, and errors in per cent."""

    def series(key: str, factor: float = 1.0) -> list[float]:
        return [factor * epoch[key] for epoch in history if key in epoch]

    losses = {"training": series("loss"), "validation": series("validation_loss")}
    errors = {"training": series("training_error", 100), "validation": series("error", 100)}
    panels = {"loss": losses, "error in %": errors}
    return {title: {n: one for n, one in p.items() if one} for title, p in panels.items()}


def _check(training: LabelledImages, validation: LabelledImages | None) -> None:
    if len(training.classes) < 2:
        raise TrainingError(
            f"{training.name} has one class only", mend="add a folder of another class"
        )
    if validation is not None and validation.classes != training.classes:
        raise TrainingError(
            f"{validation.name} has other classes than {training.name}",
            mend="read it with the training images' classes",
        )
    for images in (training, validation):
        if images is not None and not len(images):
            raise TrainingError(f"{images.name} has no images", mend="check the folder")


def _place(trainer: Trainer) -> str:
    return f"epoch {trainer.epoch}" + (f", step {trainer.step}" if trainer.step else "")


def _told(epoch: Epoch) -> str:
    text = (
        f"epoch {epoch['epoch']:.0f}, {epoch['side']:.0f} pixels, rate {epoch['learning_rate']:g}: "
        f"loss {epoch['loss']:.3f}, training error {epoch['training_error']:.3f}"
    )
    return text + (f", validation error {epoch['error']:.3f}" if "error" in epoch else "")
