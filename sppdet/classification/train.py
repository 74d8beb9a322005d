"""Training a classifier: single-size, at sizes that take turns, or at random sizes (sec. 2.3).

Every epoch has one input size; the weights are shared, and the pyramid gives vectors of one length
from maps of all sizes. Interrupted at any moment, the same call resumes where the state was last
saved, and ends in the same model, byte for byte (on the CPU, with the same number of threads).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sppdet.classification.classifier import Classifier
from sppdet.classification.config import ClassificationConfig
from sppdet.classification.data import BatchBuilder, ImageCache, load_batches
from sppdet.classification.network import ClassificationNetwork
from sppdet.classification.trainer import (
    Epoch,
    Trainer,
    center_crop_error,
    epoch_order,
    epoch_size,
)
from sppdet.core.errors import TrainingError
from sppdet.core.files import atomic_write_bytes, atomic_write_json, exclusive
from sppdet.core.model_file import MODEL_FILE
from sppdet.core.progress import Advance, Progress
from sppdet.core.settings import differences, from_dict, to_dict
from sppdet.core.tensor_files import TensorFileError, load_tensors, save_tensors
from sppdet.core.versions import versions
from sppdet.datasets import LabeledImages

STATE_FILE = "state.safetensors"
HISTORY_FILE = "history.json"
CURVES_FILE = "curves.png"
# Of the training curves: title, keys of the epochs' figures, and what these are multiplied by.
PANELS = (
    ("loss", "loss", "validation_loss", 1),
    ("error in %", "training_error", "error", 100),
)
# Settings that a resumed run may change: none decides what an epoch does.
FREE_SETTINGS = (
    "training.epochs",
    "training.save_every",
    "training.keep_mb",
    "network.download",
)


def train_classifier(
    config: ClassificationConfig,
    training: LabeledImages,
    run_dir: Path,
    *,
    validation: LabeledImages | None = None,
    progress: Progress,
    device: str = "cpu",
    description: str = "",
) -> Path:
    """Train a classifier; returns its model file, `run_dir / "model.safetensors"`.

    Beside it are the training curves, `history.json` and `curves.png`, and the state, from which a
    run with more `training.epochs` resumes.

    Args:
        config: all settings.
        training: the images to train on.
        run_dir: made if missing.
        validation: images that the error is measured on after each epoch (center crops); it then
            decides when the learning rate falls.
        progress: shows how far the training is.
        device: where the network runs.
        description: one line about the model, kept in its file.

    Raises TrainingError when images cannot be read, the run's folder holds a training of other
    settings or images, or the loss is not finite.
    """
    with exclusive(run_dir):
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
        training: LabeledImages,
        validation: LabeledImages | None,
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
        self.cache = ImageCache(training, short_side, keep_mb)
        self.held_out = None if validation is None else ImageCache(validation, short_side, keep_mb)
        caches = [cache for cache in (self.cache, self.held_out) if cache is not None]
        with progress.task("reading images", sum(len(cache) for cache in caches)) as advance:
            self.data = [cache.digest(advance) for cache in caches]
        self.labels = torch.from_numpy(training.labels.copy())
        colors = self.cache.colors()
        self.builder = BatchBuilder(network.backbone, side, config.augment, colors, config.seed)

    def resume(self) -> None:
        """Resume from the state in the folder, if there is one."""
        path = self.run_dir / STATE_FILE
        try:
            arrays, facts = load_tensors(path)
        except FileNotFoundError:
            return
        except TensorFileError as error:
            raise TrainingError(
                f"the training state {error.message}",
                path=path,
                hint="delete it to train from the start, or restore it",
            ) from error
        old = from_dict(ClassificationConfig, facts["config"], path=path)
        changed = [key for key in differences(old, self.config) if key not in FREE_SETTINGS]
        if changed or facts["data"] != self.data:
            what = f"with another {changed[0]}" if changed else "on other images"
            raise TrainingError(
                f"the run was trained {what}",
                path=path,
                hint="use the same, or give another --run folder",
            )
        if facts["epoch"] > self.config.training.epochs:
            raise TrainingError(
                f"the run has {facts['epoch']} epochs already",
                path=path,
                hint="raise training.epochs, or give another --run folder",
            )
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        self.trainer.load_state(tensors, facts)
        self.progress.say(f"going on after {_format_position(self.trainer)}")

    def save(self) -> None:
        """Save the state."""
        tensors, facts = self.trainer.state()
        facts |= {"config": to_dict(self.config), "data": self.data}
        save_tensors(self.run_dir / STATE_FILE, tensors, facts)

    def train(self) -> None:
        """Train the epochs that are left; the state is saved after each."""
        settings, trainer = self.config.training, self.trainer
        steps = -(-len(self.cache) // settings.batch)
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
        order = epoch_order(len(self.cache), epoch, seed)[trainer.step * settings.batch :]

        def make(indices: Sequence[int]) -> Tensor:
            return self.builder.random_crops(self.cache, indices, epoch, size)

        for indices, x in load_batches(order, settings.batch, make):
            trainer.run_step(x, self.labels[list(indices)])
            advance(1)
            if trainer.step % settings.save_every == 0:
                self.save()
        validation = None
        if self.held_out is not None:
            validation = center_crop_error(
                trainer.network, self.held_out, self.builder, settings.batch
            )
        self.progress.say(_format_epoch(trainer.end_epoch(size, validation)))

    def _write_history(self) -> None:
        history = self.trainer.history
        atomic_write_json(self.run_dir / HISTORY_FILE, {"epochs": history})
        draw_curves(self.run_dir / CURVES_FILE, history)


def draw_curves(path: Path, history: Sequence[Epoch]) -> None:
    """Draw losses and errors by epoch as a PNG, written atomically.

    Invariant: equal histories give equal bytes.
    """
    # Slow to import, and needed only here.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.6), dpi=100, layout="constrained")
    epochs = [epoch["epoch"] for epoch in history]
    for axes, (title, training, validation, factor) in zip(
        figure.subplots(2, sharex=True), PANELS, strict=True
    ):
        for label, key in (("training", training), ("validation", validation)):
            values = [factor * epoch[key] for epoch in history if key in epoch]
            if values:
                axes.plot(epochs, values, marker=".", label=label)
                axes.legend()
        axes.set(title=title, ylim=(0, None))
        axes.grid(alpha=0.3)
    axes.set_xlabel("epoch")
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    atomic_write_bytes(path, stream.getvalue())


def _check(training: LabeledImages, validation: LabeledImages | None) -> None:
    if len(training.classes) < 2:
        raise TrainingError(
            f"{training.name} has one class only", hint="add a folder of another class"
        )
    if validation is not None and validation.classes != training.classes:
        raise TrainingError(
            f"{validation.name} has other classes than {training.name}",
            hint="read it with the training images' classes",
        )
    for images in (training, validation):
        if images is not None and not len(images):
            raise TrainingError(f"{images.name} has no images", hint="check the folder")


def _format_position(trainer: Trainer) -> str:
    return f"epoch {trainer.epoch}" + (f", step {trainer.step}" if trainer.step else "")


def _format_epoch(epoch: Epoch) -> str:
    text = (
        f"epoch {epoch['epoch']:.0f}, {epoch['side']:.0f} pixels, rate {epoch['learning_rate']:g}: "
        f"loss {epoch['loss']:.3f}, training error {epoch['training_error']:.3f}"
    )
    return text + (f", validation error {epoch['error']:.3f}" if "error" in epoch else "")
