"""Which size and which learning rate an epoch has: functions of the settings and of the past."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sppdet.errors import ConfigError

# The learning rate is divided by this at a plateau (paper sec. 3.1).
DROP_FACTOR = 10.0


@dataclass(frozen=True)
class TrainingConfig:
    """How the network is trained: SGD with momentum, as in the paper."""

    # Passes over the training images (paper: 70 for ZF-5, 90 for the others).
    epochs: int = 70
    # Images a step.
    batch: int = 128
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    # The learning rate falls to a tenth after this many epochs without a better validation error
    # (without validation images: training loss), at most `drops` times.
    patience: int = 8
    drops: int = 2
    # The least relative gain that counts as better.
    threshold: float = 0.001
    # Epochs after which the learning rate falls to a tenth, whatever the errors; plateaus then
    # count for nothing. For runs that are to be compared.
    milestones: tuple[int, ...] = ()
    # Input sides in pixels that epochs take turns with; paper: 224 180. Empty: network.input_side
    # alone. The crops are the same, resized.
    sizes: tuple[int, ...] = ()
    # Lowest and highest of a random input side, drawn anew each epoch, instead of `sizes`.
    random_sizes: tuple[int, int] | None = None
    # Steps between two saves of the training state; it is also saved after every epoch.
    save_every: int = 500
    # Megabytes of decoded images that are kept; the rest are decoded anew each epoch.
    keep_mb: int = 2000

    def __post_init__(self) -> None:
        if min(self.batch, self.patience, self.save_every) < 1 or self.epochs < 0:
            raise ConfigError("training counts must be positive")
        if self.learning_rate <= 0 or self.weight_decay < 0 or not 0 <= self.momentum < 1:
            raise ConfigError(
                "training.learning_rate, momentum or weight_decay is out of range",
                mend="give a positive rate, a momentum in [0, 1) and a decay of 0 or more",
            )
        if min(self.drops, self.threshold, self.keep_mb) < 0:
            raise ConfigError("training.drops, threshold and keep_mb may not be negative")
        if any(number < 1 for number in (*self.sizes, *self.milestones)):
            raise ConfigError("training.sizes and training.milestones must be positive")
        if self.random_sizes is not None:
            low, high = self.random_sizes
            if not 1 <= low <= high:
                raise ConfigError("training.random_sizes are the lowest and the highest side")
            if self.sizes:
                raise ConfigError(
                    "training.sizes and training.random_sizes exclude each other",
                    mend="leave one of them empty",
                )


def epoch_size(config: TrainingConfig, input_side: int, epoch: int, seed: int) -> int:
    """The input side in pixels of an epoch, counted from 0."""
    if config.random_sizes is not None:
        low, high = config.random_sizes
        return int(np.random.default_rng([seed, 5, epoch]).integers(low, high + 1))
    sizes = config.sizes or (input_side,)
    return sizes[epoch % len(sizes)]


def epoch_order(count: int, epoch: int, seed: int) -> list[int]:
    """The order in which an epoch, counted from 0, goes through `count` images."""
    order: list[int] = np.random.default_rng([seed, 1, epoch]).permutation(count).tolist()
    return order


def learning_rate(config: TrainingConfig, errors: Sequence[float]) -> float:
    """The next epoch's learning rate, after epochs with these errors.

    Training that takes turns between sizes is judged by whole turns: a smaller size has other
    losses.
    """
    if config.milestones:
        passed = sum(len(errors) >= epoch for epoch in config.milestones)
        return config.learning_rate / DROP_FACTOR**passed
    turn = max(1, len(config.sizes))
    best, since, drops = float("inf"), 0, 0
    for start in range(0, len(errors) - turn + 1, turn):
        error = sum(errors[start : start + turn]) / turn
        if error < best * (1 - config.threshold):
            best, since = error, 0
            continue
        since += turn
        if since >= config.patience and drops < config.drops:
            drops, since = drops + 1, 0
    return config.learning_rate / DROP_FACTOR**drops
