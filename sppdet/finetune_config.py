"""How long, how fast and on what fine-tuning learns: its settings and its schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from sppdet.errors import ConfigError

# For `finetune.steps`: what suits the number of images. So many passes over them, in whole fifties,
# but no fewer steps than layers need that start from nothing, however few the images.
AUTOMATIC = -1
PASSES, FEWEST, FIFTY = 7, 1500, 50


@dataclass(frozen=True)
class FineTuneConfig:
    """How the fully connected layers are trained.

    The release takes 200,000 plain SGD steps on a GPU; the defaults here reach their best in the
    few thousand steps that a CPU has time for.
    """

    # Optimisation steps; 0 leaves the layers as they were initialised, and -1 takes as many as suit
    # the number of training images: 7 passes over them, and 1,500 at least.
    steps: int = AUTOMATIC
    # Images a step, and regions taken from each (release: 128 regions in all).
    images: int = 4
    regions: int = 48
    # Share of regions that are objects.
    foreground: float = 0.25
    # A region is an object from this IoU on, and background in the half-open interval below.
    foreground_iou: float = 0.5
    background_low: float = 0.1
    background_high: float = 0.5
    # Chance that an image is mirrored: itself where it is altered, else the pooled pyramids.
    flip: float = 0.5
    # Chance that a step sees an image altered, its maps computed anew, and not as they are stored;
    # where a forward pass is dear, less is quicker.
    altered: float = 1.0
    # An altered image is shown at its scale times or divided by up to this,
    zoom: float = 1.5
    # and its brightness, contrast and saturation change by up to this share.
    recolour: float = 0.3
    # Peak learning rate of AdamW; it rises linearly for the warm-up share of the steps, then
    # falls to 0 along a cosine.
    learning_rate: float = 4e-4
    warmup: float = 0.1
    # The learning rate of the backbone's upper stages, as a share of that of the other layers.
    upper_rate: float = 0.15
    weight_decay: float = 0.01
    # Weight of the box loss beside the classification loss; 0 trains classification alone, as
    # the release does.
    box_loss: float = 1.0
    # Steps between two saves of the training state.
    save_every: int = 500

    def __post_init__(self) -> None:
        if min(self.images, self.regions, self.save_every) < 1:
            raise ConfigError("finetune counts must be positive")
        if self.steps < AUTOMATIC:
            raise ConfigError(
                f"finetune.steps is {self.steps}",
                mend="give 0 or more, or -1 for as many as suit the number of images",
            )
        if not 0 <= self.background_low < self.background_high <= 1:
            raise ConfigError("finetune.background_low must lie below finetune.background_high")
        if not 0 < self.foreground_iou <= 1 or not 0 <= self.foreground <= 1:
            raise ConfigError("finetune.foreground and foreground_iou are shares: 0 to 1")
        if not (1 <= self.zoom < math.inf and 0 <= self.recolour < 1):
            raise ConfigError(
                "finetune.zoom or finetune.recolour is out of its range",
                mend="give a zoom of 1 or more, and a share to recolour by from 0 to below 1",
            )
        for name in ("flip", "warmup", "altered"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"finetune.{name} is {getattr(self, name)}", mend="give a share: 0 to 1"
                )
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(
                f"finetune.learning_rate is {self.learning_rate}", mend="give a number above 0"
            )
        for name in ("weight_decay", "box_loss"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(
                    f"finetune.{name} is {getattr(self, name)}", mend="give 0 or more"
                )

    def suited(self, n_images: int) -> FineTuneConfig:
        """The same with its number of steps settled, for a training on so many images."""
        if self.steps != AUTOMATIC:
            return self
        passes = round(PASSES * n_images / self.images / FIFTY) * FIFTY
        return replace(self, steps=max(FEWEST, passes))


def learning_rate(config: FineTuneConfig, step: int) -> float:
    """The learning rate of a step, of a settled number: linear warm-up, then a cosine down to 0."""
    warm = max(1, round(config.warmup * config.steps))
    if step < warm:
        return config.learning_rate * (step + 1) / warm
    progress = (step - warm) / max(1, config.steps - warm)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def images_of_step(config: FineTuneConfig, n_images: int, step: int, seed: int) -> list[int]:
    """The images of a step: each epoch goes through all of them once, in a seeded order.

    A function of the step alone, so that resumed training goes on with the same images.
    """
    out = []
    for position in range(step * config.images, (step + 1) * config.images):
        epoch, place = divmod(position, n_images)
        out.append(int(np.random.default_rng([seed, 1, epoch]).permutation(n_images)[place]))
    return out
