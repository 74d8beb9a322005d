"""The settings of a classifier's training: one frozen dataclass a part, gathered in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sppdet import settings
from sppdet.classification.augment import AugmentConfig
from sppdet.classification.networks import NetworkConfig
from sppdet.classification.schedule import TrainingConfig
from sppdet.errors import ConfigError


@dataclass(frozen=True)
class ClassificationConfig:
    """Everything that decides what is trained and how it classifies."""

    # Convolutional layers, pooling and fully connected layers.
    network: NetworkConfig = field(default_factory=NetworkConfig)
    # The random views of an image that are trained on.
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    # Steps, learning rate and input sizes.
    training: TrainingConfig = field(default_factory=TrainingConfig)
    # Initial weights, the images' order, views and dropout follow from this number.
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}", mend="give 0 or a positive whole number")
        own, training = self.network.input_side, self.training
        others = training.random_sizes or tuple(size for size in training.sizes if size != own)
        if self.network.variant == "plain" and others:
            raise ConfigError(
                f"a plain network takes images of {own} pixels only, not {others[-1]}",
                mend='empty training.sizes and random_sizes, or set network.variant to "spp"',
            )


def load_classification_config(
    path: Path | None = None, overrides: Sequence[str] = ()
) -> ClassificationConfig:
    """The defaults, changed by a TOML file and then by `a.b=c` overrides.

    Raises ConfigError when the file cannot be read, and for an unknown key or a value of another
    type, named with its source and the nearest right key.
    """
    return settings.load(ClassificationConfig, path, overrides)
