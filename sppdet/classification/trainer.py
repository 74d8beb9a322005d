"""One network in training: steps, and a state that can be saved and taken up again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sppdet.classification.checkpoint import Checkpoint
from sppdet.classification.data import BatchMaker, ImageStore, batches
from sppdet.classification.networks import ClassificationNetwork
from sppdet.classification.schedule import TrainingConfig, learning_rate
from sppdet.errors import TrainingError

# What is known of an epoch: its number from 1, input side, learning rate, losses, accuracies.
Epoch = dict[str, float]


class Trainer:
    """Trains a network step by step; its state after n steps is a function of data and settings.

    Attributes:
        epoch: whole epochs done.
        step: steps done of the epoch under way.
        history: what is known of each epoch that is done.
    """

    def __init__(self, network: ClassificationNetwork, config: TrainingConfig, seed: int) -> None:
        self.network, self.config, self.seed = network, config, seed
        self.device = next(network.parameters()).device
        self.epoch = self.step = 0
        self.history: list[Epoch] = []
        # Of the epoch under way: sum of losses, images classified right, images seen.
        self._loss, self._right, self._seen = 0.0, 0, 0
        self.optimizer = torch.optim.SGD(
            [p for p in network.parameters() if p.requires_grad],
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )

    @property
    def learning_rate(self) -> float:
        """The rate of the epoch under way."""
        key = "error" if self.history and "error" in self.history[0] else "loss"
        return learning_rate(self.config, [epoch[key] for epoch in self.history])

    def run_step(self, x: Tensor, labels: Tensor) -> None:
        """Takes one step on a batch.

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
                mend="lower training.learning_rate",
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1
        self._loss += value * len(labels)
        self._right += int((logits.detach().argmax(dim=1) == labels).sum())
        self._seen += len(labels)

    def set_learning_rate(self) -> None:
        """Puts the rate of the epoch under way in place."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate

    def end_epoch(self, size: int, validation: tuple[float, float] | None) -> Epoch:
        """Closes the epoch under way, trained at `size`; gives what is known of it.

        `validation` is the loss and the error on images that are not trained on.
        """
        done: Epoch = {
            "epoch": self.epoch + 1,
            "side": size,
            "learning_rate": self.learning_rate,
            "loss": self._loss / self._seen,
            "training_error": 1 - self._right / self._seen,
        }
        if validation is not None:
            done["validation_loss"], done["error"] = validation
        self.history.append(done)
        self.epoch, self.step = self.epoch + 1, 0
        self._loss, self._right, self._seen = 0.0, 0, 0
        return done

    def state(self) -> Checkpoint:
        """All that a later `load_state` needs to go on bit for bit: weights, momentum, counts."""
        tensors = {f"network.{key}": value for key, value in self.network.state_dict().items()}
        for index, found in self.optimizer.state_dict()["state"].items():
            if found["momentum_buffer"] is not None:
                tensors[f"momentum.{index}"] = found["momentum_buffer"]
        facts: dict[str, Any] = {
            "epoch": self.epoch,
            "step": self.step,
            "history": self.history,
            "sums": [self._loss, self._right, self._seen],
        }
        return Checkpoint(tensors, facts)

    def load_state(self, state: Checkpoint) -> None:
        """Takes up where the `state` of a trainer of the same settings and data was taken."""
        prefix, tensors, facts = "network.", state.tensors, state.facts
        own = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        self.network.load_state_dict(own)
        whole = self.optimizer.state_dict()
        whole["state"] = {
            int(key.partition(".")[2]): {"momentum_buffer": value}
            for key, value in tensors.items()
            if key.startswith("momentum.")
        }
        self.optimizer.load_state_dict(whole)
        self.epoch, self.step, self.history = facts["epoch"], facts["step"], facts["history"]
        self._loss, self._right, self._seen = facts["sums"]


@torch.inference_mode()
def centre_error(
    network: ClassificationNetwork, store: ImageStore, maker: BatchMaker, batch: int
) -> tuple[float, float]:
    """Mean loss and the share of images whose central crop is classified wrong."""
    network.eval()
    device = next(network.parameters()).device
    labels = torch.from_numpy(store.images.labels.copy())
    loss, wrong = 0.0, 0

    def make(indices: Sequence[int]) -> Tensor:
        return maker.centre_views(store, indices)

    for indices, x in batches(range(len(store)), batch, make):
        mine = labels[list(indices)].to(device)
        logits = network(x.to(device))
        loss += float(F.cross_entropy(logits, mine, reduction="sum"))
        wrong += int((logits.argmax(dim=1) != mine).sum())
    return loss / len(store), wrong / len(store)
