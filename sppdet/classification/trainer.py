"""One network in training: input sizes, learning rates, steps, and a state to resume from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.lr_scheduler import MultiStepLR, ReduceLROnPlateau

from sppdet.classification.config import TrainingConfig
from sppdet.classification.data import BatchBuilder, ImageCache, load_batches
from sppdet.classification.network import ClassificationNetwork
from sppdet.core.errors import TrainingError

# Figures of an epoch: its number from 1, input side, learning rate, losses and errors.
Epoch = dict[str, float]

# The learning rate is multiplied by this at a plateau (paper sec. 3.1).
DROP_FACTOR = 0.1


def epoch_size(config: TrainingConfig, input_side: int, epoch: int, seed: int) -> int:
    """Input side in pixels of an epoch, counted from 0."""
    if config.random_sizes is not None:
        low, high = config.random_sizes
        return int(np.random.default_rng([seed, 5, epoch]).integers(low, high + 1))
    sizes = config.sizes or (input_side,)
    return sizes[epoch % len(sizes)]


def epoch_order(count: int, epoch: int, seed: int) -> list[int]:
    """Permutation of `count` images for an epoch, counted from 0."""
    order: list[int] = np.random.default_rng([seed, 1, epoch]).permutation(count).tolist()
    return order


class LearningRateSchedule:
    """Drops an optimizer's learning rate at plateaus of the error, or after fixed epochs.

    Training that takes turns between sizes is compared by whole turns: a smaller size has other
    losses.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, config: TrainingConfig) -> None:
        self._turn = max(1, len(config.sizes))
        self._scheduler: MultiStepLR | ReduceLROnPlateau
        if config.milestones:
            self._scheduler = MultiStepLR(optimizer, sorted(config.milestones), DROP_FACTOR)
        else:
            self._scheduler = ReduceLROnPlateau(
                optimizer,
                factor=DROP_FACTOR,
                # PyTorch's patience is the number of turns without gain that it tolerates.
                patience=-(-config.patience // self._turn) - 1,
                threshold=config.threshold,
                min_lr=config.learning_rate * DROP_FACTOR**config.drops,
                eps=0.0,
            )

    def step(self, errors: Sequence[float]) -> None:
        """Set the next epoch's learning rate, after epochs with these errors."""
        if isinstance(self._scheduler, MultiStepLR):
            self._scheduler.step()
        elif len(errors) % self._turn == 0:
            self._scheduler.step(sum(errors[-self._turn :]) / self._turn)

    def state(self) -> dict[str, Any]:
        """JSON-able state; infinities, which JSON has not, are those of a new scheduler."""
        state = self._scheduler.state_dict()
        return {key: value for key, value in state.items() if _is_number(value)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Resume from a `state` of a schedule of the same settings."""
        self._scheduler.load_state_dict(dict(state))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


class Trainer:
    """Trains a network step by step; its state after n steps is a function of data and settings.

    Attributes:
        epoch: whole epochs done.
        step: steps done of the epoch under way.
        history: figures of each epoch that is done.
    """

    def __init__(self, network: ClassificationNetwork, config: TrainingConfig, seed: int) -> None:
        self.network, self.config, self.seed = network, config, seed
        self.device = next(network.parameters()).device
        self.epoch = self.step = 0
        self.history: list[Epoch] = []
        # Of the epoch under way: sum of losses, images classified right, images trained on.
        self._loss, self._right, self._count = 0.0, 0, 0
        self.optimizer = torch.optim.SGD(
            [p for p in network.parameters() if p.requires_grad],
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        self.schedule = LearningRateSchedule(self.optimizer, config)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the epoch under way."""
        rate: float = self.optimizer.param_groups[0]["lr"]
        return rate

    def run_step(self, x: Tensor, labels: Tensor) -> None:
        """Take one step on a batch.

        Raises TrainingError when the loss is not finite; the weights are then those of the step
        before.
        """
        # Dropout follows from the seed and the step's number: nothing to save.
        rng = np.random.default_rng([self.seed, 3, self.epoch, self.step])
        torch.manual_seed(int(rng.integers(2**62)))
        self.network.train()
        labels = labels.to(self.device)
        logits = self.network(x.to(self.device))
        loss = F.cross_entropy(logits, labels)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is not finite in epoch {self.epoch + 1}, step {self.step + 1}",
                hint="lower training.learning_rate",
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1
        self._loss += value * len(labels)
        self._right += int((logits.detach().argmax(dim=1) == labels).sum())
        self._count += len(labels)

    def end_epoch(self, size: int, validation: tuple[float, float] | None) -> Epoch:
        """Close the epoch under way, trained at `size`, and return its figures.

        `validation` is the loss and the error on images that are not trained on.
        """
        done: Epoch = {
            "epoch": self.epoch + 1,
            "side": size,
            "learning_rate": self.learning_rate,
            "loss": self._loss / self._count,
            "training_error": 1 - self._right / self._count,
        }
        if validation is not None:
            done["validation_loss"], done["error"] = validation
        self.history.append(done)
        self.epoch, self.step = self.epoch + 1, 0
        self._loss, self._right, self._count = 0.0, 0, 0
        key = "loss" if validation is None else "error"
        self.schedule.step([epoch[key] for epoch in self.history])
        return done

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON-able facts from which `load_state` resumes bit for bit."""
        tensors = {f"network.{key}": value for key, value in self.network.state_dict().items()}
        for index, buffers in self.optimizer.state_dict()["state"].items():
            if buffers["momentum_buffer"] is not None:
                tensors[f"momentum.{index}"] = buffers["momentum_buffer"]
        facts: dict[str, Any] = {
            "epoch": self.epoch,
            "step": self.step,
            "history": self.history,
            "sums": [self._loss, self._right, self._count],
            "learning_rate": self.learning_rate,
            "schedule": self.schedule.state(),
        }
        return tensors, facts

    def load_state(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Resume from the `state` of a trainer of the same settings and data."""
        prefix = "network."
        own = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        self.network.load_state_dict(own)
        optimizer = self.optimizer.state_dict()
        optimizer["state"] = {
            int(key.partition(".")[2]): {"momentum_buffer": value}
            for key, value in tensors.items()
            if key.startswith("momentum.")
        }
        for group in optimizer["param_groups"]:
            group["lr"] = facts["learning_rate"]
        self.optimizer.load_state_dict(optimizer)
        self.schedule.load_state(facts["schedule"])
        self.epoch, self.step, self.history = facts["epoch"], facts["step"], facts["history"]
        self._loss, self._right, self._count = facts["sums"]


@torch.inference_mode()
def center_crop_error(
    network: ClassificationNetwork, cache: ImageCache, builder: BatchBuilder, batch: int
) -> tuple[float, float]:
    """Mean loss, and the share of images whose center crop is classified wrong."""
    network.eval()
    device = next(network.parameters()).device
    labels = torch.from_numpy(cache.images.labels.copy())
    loss, wrong = 0.0, 0

    def make(indices: Sequence[int]) -> Tensor:
        return builder.center_crops(cache, indices)

    for indices, x in load_batches(range(len(cache)), batch, make):
        mine = labels[list(indices)].to(device)
        logits = network(x.to(device))
        loss += float(F.cross_entropy(logits, mine, reduction="sum"))
        wrong += int((logits.argmax(dim=1) != mine).sum())
    return loss / len(cache), wrong / len(cache)
