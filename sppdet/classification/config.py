"""Settings of image classification: of a network's training, and of SVMs on image features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from sppdet.backbones import BACKBONES
from sppdet.backbones.paper_networks import PAPER_NETWORKS
from sppdet.core import settings
from sppdet.core.errors import ConfigError
from sppdet.core.settings import Fraction, Level, Settings, Side, Width

C_GRID = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


class NetworkConfig(Settings):
    """Layers of a classification network."""

    section: ClassVar[str] = "network"

    backbone: str = "zf5"
    """The convolutional layers; see `sppdet.backbones.BACKBONES`. The paper's: zf5, convnet5,
    overfeat5 and overfeat7."""
    pretrained: bool = False
    """Start from ImageNet weights; the paper's networks have none."""
    download: bool = False
    """Fetch torchvision's weights from the network where this machine does not have them yet."""
    frozen: bool = False
    """Leave the convolutional layers as they are and train the fully connected ones alone."""
    width: Annotated[float, Field(gt=0, le=4)] = 1.0
    """Multiplies the channels of a paper network's convolutional layers."""
    pixel_scale: PositiveFloat = 1 / 64
    """Multiplies a paper network's pixels after 128 is taken off. The paper leaves them at 1 and
    starts from smaller weights, which needs a schedule of ImageNet's length to get going."""
    variant: Literal["spp", "plain"] = "spp"
    """Pooling of the last map: "spp" by the pyramid, "plain" by the original network's windows."""
    levels: Annotated[tuple[Level, ...], Field(min_length=1, max_length=8)] = (6, 3, 2, 1)
    """Pyramid levels: n means n x n bins (paper: 6 3 2 1, 50 bins; also 4 3 2 1, 30 bins)."""
    input_side: Side = 224
    """Side in pixels of the crops that it trains on, and the only size that a plain network takes.
    """
    fc6: Width = 4096
    """Width of the first fully connected layer."""
    fc7: Width = 4096
    """Width of the second fully connected layer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Probability of dropping a unit after fc6 and fc7 in training."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.backbone not in BACKBONES:
            raise ConfigError(
                f"network.backbone is {self.backbone!r}", hint=f"use one of {', '.join(BACKBONES)}"
            )
        if self.width != 1 and self.backbone not in PAPER_NETWORKS:
            raise ConfigError(
                f"network.width cannot narrow {self.backbone}",
                hint=f"leave it at 1, or use one of {', '.join(PAPER_NETWORKS)}",
            )
        if len(set(self.levels)) != len(self.levels):
            raise ConfigError(
                f"network.levels are {list(self.levels)}",
                hint="give different whole numbers from 1 on",
            )
        return self


class AugmentConfig(Settings):
    """Random crop, flip and color shift of training images."""

    section: ClassVar[str] = "augment"

    enlarge: Annotated[float, Field(ge=1)] = 256 / 224
    """Short side that an image is resized to, as a multiple of the crop's side."""
    crops: Literal["corners", "anywhere"] = "corners"
    """Positions of crops: the center and the corners, as in the paper, or anywhere."""
    flip: Fraction = 0.5
    """Probability that a crop is flipped."""
    color: NonNegativeFloat = 0.1
    """Standard deviation of the color shift, as a share of the training pixels' own along each of
    their principal colors; 0 leaves colors alone."""


class TrainingConfig(Settings):
    """SGD with momentum, as in the paper."""

    section: ClassVar[str] = "training"

    epochs: NonNegativeInt = 70
    """Passes over the training images (paper: 70 for ZF-5, 90 for the others)."""
    batch: PositiveInt = 128
    """Images per step."""
    learning_rate: PositiveFloat = 0.01
    """Learning rate of the first epoch."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    weight_decay: NonNegativeFloat = 5e-4
    """Weight decay of SGD."""
    patience: PositiveInt = 8
    """The learning rate falls to a tenth after this many epochs without a better validation error
    (without validation images: training loss), at most `drops` times."""
    drops: NonNegativeInt = 2
    """Times that the learning rate falls at most."""
    threshold: NonNegativeFloat = 0.001
    """The least relative gain that counts as better."""
    milestones: tuple[PositiveInt, ...] = ()
    """Epochs after which the learning rate falls to a tenth, whatever the errors; plateaus then
    count for nothing. For runs that are to be compared."""
    sizes: tuple[PositiveInt, ...] = ()
    """Input sides in pixels that epochs take turns with; paper: 224 180. Empty: network.input_side
    alone. The crops are the same, resized."""
    random_sizes: tuple[PositiveInt, PositiveInt] | None = None
    """Lowest and highest of a random input side, drawn anew each epoch, instead of `sizes`."""
    save_every: PositiveInt = 500
    """Steps between two saves of the training state; it is also saved after every epoch."""
    keep_mb: NonNegativeInt = 2000
    """Megabytes of decoded images that are kept; the rest are decoded anew each epoch."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.random_sizes is not None:
            low, high = self.random_sizes
            if low > high:
                raise ConfigError(
                    f"training.random_sizes are {list(self.random_sizes)}",
                    hint="give the lowest and the highest side",
                )
            if self.sizes:
                raise ConfigError(
                    "training.sizes and training.random_sizes exclude each other",
                    hint="leave one of them empty",
                )
        return self


class ClassificationConfig(Settings):
    """All settings of a classification network and its training."""

    network: NetworkConfig = NetworkConfig()
    """Convolutional layers, pooling and fully connected layers."""
    augment: AugmentConfig = AugmentConfig()
    """Random crops that are trained on."""
    training: TrainingConfig = TrainingConfig()
    """Steps, learning rate and input sizes."""
    seed: NonNegativeInt = 0
    """Seed of the initial weights, the images' order, crops and dropout."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        own, training = self.network.input_side, self.training
        others = training.random_sizes or tuple(size for size in training.sizes if size != own)
        if self.network.variant == "plain" and others:
            raise ConfigError(
                f"a plain network takes images of {own} pixels only, not {others[-1]}",
                hint='empty training.sizes and random_sizes, or set network.variant to "spp"',
            )
        return self


class ImageFeatureConfig(Settings):
    """The network, the image sizes and the windows of an image's feature vectors."""

    section: ClassVar[str] = "features"

    backbone: str = "efficientnet_lite0"
    """The convolutional network; see `sppdet.backbones.BACKBONES`."""
    pretrained: bool = True
    """ImageNet weights; without them the network's weights are drawn from the seed."""
    download: bool = False
    """Fetch torchvision's weights from the network where this machine does not have them yet."""
    scales: Annotated[tuple[Side, ...], Field(min_length=1, max_length=8)] = (448,)
    """Short sides in pixels that the image is resized to; the features of several are averaged."""
    crop: NonNegativeInt = 0
    """Side in pixels of the square cut out of the center of the resized image; 0 for all of it."""
    windows: NonNegativeInt = 2
    """Windows per side: n x n bins of the map, each a small image to the SVMs, the best of which
    counts besides the whole; 0 for none, as in the paper."""
    window_weight: NonNegativeFloat = 0.5
    """Weight of the best window's score, the whole image's being 1."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.crop > min(self.scales):
            raise ConfigError(
                f"features.crop is {self.crop}", hint="give 0, or at most the least of the scales"
            )
        return self

    @property
    def views(self) -> int:
        """Number of vectors per image: the whole, and its windows."""
        return 1 + self.windows**2


class ImageSvmConfig(Settings):
    """Training of one linear SVM per class on image features."""

    section: ClassVar[str] = "svm"

    c: PositiveFloat | None = None
    """Weight of the hinge losses against the regularizer; none: the best of `candidates`."""
    candidates: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = C_GRID
    """Weights tried on the held-out images: the first with the highest mean AP wins."""
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of the training images that is held out for choosing; they are trained on afterwards.
    """
    positive_weight: PositiveFloat = 2.0
    """Weight of a positive's loss in units of a negative's."""
    intercept_scaling: PositiveFloat = 1.0
    """Constant feature whose weight is the bias."""
    tolerance: PositiveFloat = 0.01
    """The solver stops when no optimality condition is violated by more than this (score units)."""
    max_iterations: PositiveInt = 1000
    """Passes over the images a training may take; a class that needs more is marked unconverged."""


class SvmClassifierConfig(Settings):
    """All settings of linear SVMs on image features."""

    features: ImageFeatureConfig = ImageFeatureConfig()
    """Feature vectors of whole images."""
    svm: ImageSvmConfig = ImageSvmConfig()
    """One linear SVM per class."""
    seed: NonNegativeInt = 0
    """Seed of the held-out images, the solver's order, and weights that are not pretrained."""


def load_classification_config(
    path: Path | None = None, overrides: Sequence[str] = ()
) -> ClassificationConfig:
    """Load the defaults, changed by a TOML file and then by `a.b=c` overrides.

    Raises ConfigError when the file cannot be read, and for an unknown key or a value of another
    type, named with its source and the nearest right key.
    """
    return settings.load(ClassificationConfig, path, overrides)


def load_svm_config(path: Path | None = None, overrides: Sequence[str] = ()) -> SvmClassifierConfig:
    """Load the settings of SVMs on image features, otherwise as `load_classification_config`."""
    return settings.load(SvmClassifierConfig, path, overrides)
