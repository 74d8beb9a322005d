"""Settings of a detector's training, besides those of the detector itself."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NamedTuple, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from sppdet.core.errors import ConfigError
from sppdet.core.settings import Fraction, Settings, to_dict
from sppdet.detection.config import DetectorConfig
from sppdet.heads.config import HeadConfig

# For `finetune.steps` and `finetune.learning_rate`: what suits the number of images, and the layers
# that training starts from.
AUTOMATIC = -1
FIFTY = 50
STEPS = "0 or more, or -1 for as many as suit the number of images"


class Schedule(NamedTuple):
    """How long layers are fine-tuned, and how fast.

    Attributes:
        passes: over the images, in whole fifties of steps,
        fewest: but no fewer steps than this, however few the images.
        learning_rate: the peak.
    """

    passes: int
    fewest: int
    learning_rate: float


FROM_RANDOM = Schedule(7, 1500, 4e-4)
FROM_MODEL = Schedule(4, 150, 2e-4)


class FineTuneConfig(Settings):
    """Training of the fully connected layers, and of the backbone's top stages.

    The release takes 200,000 plain SGD steps on a GPU; the defaults here reach their best in the
    few thousand steps that a CPU has time for.
    """

    section: ClassVar[str] = "finetune"

    steps: Annotated[int, Field(ge=AUTOMATIC, title=STEPS)] = AUTOMATIC
    """Optimization steps; 0 leaves the layers as they started, and -1 takes as many as suit the
    number of training images: 4 passes over them and 150 at least from a model's layers, 7 passes
    and 1,500 at least from random ones."""
    images_per_step: PositiveInt = 4
    """Images of a step."""
    regions_per_image: PositiveInt = 48
    """Regions sampled from each image of a step (release: 128 regions in all)."""
    foreground_fraction: Fraction = 0.25
    """Share of the regions that are objects."""
    foreground_iou: Annotated[float, Field(gt=0, le=1)] = 0.5
    """A region is an object from this IoU on."""
    background_iou: tuple[Fraction, Fraction] = (0.1, 0.5)
    """A region that is no object is background from the first IoU on, and below the second."""
    flip_prob: Fraction = 0.5
    """Chance that an augmented image is mirrored."""
    augment_prob: Fraction = 1.0
    """Chance that a step augments an image, its maps computed anew, and does not use them as they
    are stored; where a forward pass is dear, less is quicker."""
    scale_jitter: Annotated[float, Field(ge=1)] = 1.5
    """An augmented image is resized to its scale times or divided by up to this."""
    color_jitter: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Its brightness, contrast and saturation change by up to this share."""
    learning_rate: float = float(AUTOMATIC)
    """Peak learning rate of AdamW, from which it falls to 0 along a cosine; -1 takes 2e-4 from a
    model's layers, 4e-4 from random ones."""
    warmup_fraction: Fraction = 0.1
    """Share of the steps in which the learning rate rises linearly to its peak."""
    backbone_lr_factor: NonNegativeFloat = 0.15
    """Learning rate of the backbone's top stages, as a share of that of the other layers."""
    weight_decay: NonNegativeFloat = 0.01
    """Weight decay of AdamW."""
    box_loss_weight: NonNegativeFloat = 1.0
    """Weight of the box loss beside the classification loss; 0 trains classification alone, as the
    release does."""
    checkpoint_every: PositiveInt = 500
    """Steps between two saves of the training state."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.background_iou[0] < self.background_iou[1]:
            raise ConfigError(
                f"finetune.background_iou is {list(self.background_iou)}",
                hint="give two numbers, the lower one first",
            )
        if not (self.learning_rate > 0 or self.learning_rate == AUTOMATIC):
            raise ConfigError(
                f"finetune.learning_rate is {self.learning_rate:g}",
                hint="give a number above 0, or -1 for what suits the layers to start from",
            )
        return self

    @property
    def learns_boxes(self) -> bool:
        """Whether the layers learn box deltas."""
        return self.steps != 0 and self.box_loss_weight > 0

    def suited(self, n_images: int, schedule: Schedule = FROM_RANDOM) -> FineTuneConfig:
        """Settle the number of steps and the learning rate of a training on so many images."""
        steps, rate = self.steps, self.learning_rate
        if steps == AUTOMATIC:
            passes = round(schedule.passes * n_images / self.images_per_step / FIFTY) * FIFTY
            steps = max(schedule.fewest, passes)
        if rate == AUTOMATIC:
            rate = schedule.learning_rate
        return self.replace(steps=steps, learning_rate=rate)


class SvmConfig(Settings):
    """Training of the SVMs. The defaults are the SPP-net release's."""

    section: ClassVar[str] = "svm"

    c: PositiveFloat = 1e-3
    """Weight of the hinge losses against the regularizer."""
    positive_weight: PositiveFloat = 2.0
    """Weight of a positive's loss in units of a negative's: there are far fewer positives."""
    intercept_scaling: PositiveFloat = 10.0
    """Constant feature whose weight is the bias; large, so that the bias is hardly regularized."""
    proposals_per_image: NonNegativeInt = 1000
    """Negatives are mined among the first so many proposals of an image; 0 for all, as the release
    does, at twice the time."""
    negative_iou: Annotated[float, Field(gt=0, le=1)] = 0.3
    """A region is a negative of a class if it overlaps that class's objects by less than this IoU.
    """
    hard_threshold: float = -1.0001
    """A negative is hard, and is added to the cache, if it scores above this."""
    evict_threshold: float = -1.2
    """Cached negatives that score below this after a retraining are dropped."""
    retrain_after: PositiveInt = 2000
    """A class is trained anew when more than this many negatives were added since the last time."""
    max_negatives: PositiveInt = 10_000
    """Cached negatives per class at most; beyond it the lowest-scoring ones are dropped."""
    feature_norm: PositiveFloat = 20.0
    """Features are multiplied by one number that gives them this mean L2 norm."""
    tolerance: PositiveFloat = 0.01
    """The solver stops when no optimality condition is violated by more than this (score units)."""
    max_iterations: PositiveInt = 1000
    """Passes over the cache a training may take; a class that needs more is marked unconverged."""
    seed: int = 0
    """Seed of the order in which the solver visits the cache."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.evict_threshold < self.hard_threshold:
            raise ConfigError(
                f"svm.evict_threshold {self.evict_threshold} is not below "
                f"svm.hard_threshold {self.hard_threshold}",
                hint="evicted negatives must be easier than the ones that are added",
            )
        return self


class RegressionConfig(Settings):
    """Training of the box regressors. The defaults are the SPP-net release's."""

    section: ClassVar[str] = "regression"

    alpha: PositiveFloat = 4000.0
    """Penalty on the squared weights, for features of mean norm `feature_norm`."""
    min_iou: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Regions that overlap an object by more than this IoU are samples of its class."""
    feature_norm: PositiveFloat = 20.0
    """Features are multiplied by one number that gives them this mean L2 norm."""
    max_samples: PositiveInt = 2000
    """Samples per class at most where features are long: a seeded uniform choice."""
    seed: int = 0
    """Seed of that choice."""


class ContextConfig(Settings):
    """Training of the image-context classifier."""

    section: ClassVar[str] = "context"

    c: PositiveFloat = 0.001
    """Weight of the losses against the penalty on the squared weights, for features of variance 1.
    """
    max_iterations: PositiveInt = 300
    """Iterations that the solver may take per class."""


# The sections of `TrainingConfig` that a detector has no use for.
TRAINING = ("finetune", "svm", "regression", "context")


class TrainingConfig(DetectorConfig):
    """All that decides what is trained, and how the detector detects then."""

    finetune: FineTuneConfig = FineTuneConfig()
    """Fine-tuning of the fully connected layers."""
    svm: SvmConfig = SvmConfig()
    """One linear SVM per class, trained with hard-negative mining."""
    regression: RegressionConfig = RegressionConfig()
    """One box regressor per class."""
    context: ContextConfig = ContextConfig()
    """The classes that the image as a whole shows."""

    def detector(self) -> DetectorConfig:
        """Return the settings of the detector alone."""
        return DetectorConfig(**{name: getattr(self, name) for name in DetectorConfig.model_fields})

    def settled(self, n_images: int, start: HeadConfig | None = None) -> TrainingConfig:
        """Settle what follows from the rest: steps, learning rate, whether boxes are learned.

        `start` has the settings of the layers that training starts from; None for random ones.
        """
        finetune = self.finetune.suited(n_images, FROM_RANDOM if start is None else FROM_MODEL)
        untouched = finetune.steps == 0 and start is not None and start.learned_boxes
        head = self.head.replace(learned_boxes=finetune.learns_boxes or untouched)
        return self.replace(finetune=finetune, head=head)

    def training_settings(self) -> dict[str, Any]:
        """Give the settings that a detector has no use for, as JSON-able values."""
        values = to_dict(self)
        return {name: values[name] for name in TRAINING}
