"""Settings of a detector: all that its model file holds, and how it detects.

Each stage's settings stand beside the code they steer; the defaults are the shipped model's.
Files of settings hold differences only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from sppdet.backbones.feature_maps import FeatureConfig
from sppdet.core.errors import ConfigError
from sppdet.core.settings import Fraction, Settings, from_dict
from sppdet.heads.config import HeadConfig
from sppdet.proposals.proposer import ProposalConfig

# Settings that a trained model can be used with in any value; the others are part of it.
FREE_SETTINGS = ("proposals.", "detection.", "features.scales", "features.quantize")
# Tables of settings that training alone reads: a model has been through them.
TRAINING_TABLES = ("finetune", "svm", "regression", "context")
# In all that the network is shown of an image: some 5 GB of memory.
MOST_PIXELS = 50_000_000


class DetectionConfig(Settings):
    """Scoring and post-processing of regions; `configs/release.toml` has the release's rules."""

    section: ClassVar[str] = "detection"

    softmax_weight: NonNegativeFloat = 0.5
    """A region's margin for a class is its SVM's plus this much of the logarithm of the probability
    that fine-tuning's softmax gives the class; 0: the SVM's alone (release)."""
    context_weight: NonNegativeFloat = 0.15
    """And this much of the logarithm of the probability that the image as a whole gives the class;
    0: nothing (release)."""
    margin_threshold: float = -4.0
    """A region is kept for a class when its margin is above this (release, SVMs alone: -1.5)."""
    max_candidates: PositiveInt = 400
    """At most this many regions per class and image, the best, go on to post-processing."""
    soft_nms_sigma: NonNegativeFloat = 0.3
    """Boxes lower the margins of others of their class by IoU^2 over this, where the IoU is above
    0.2 (soft-NMS, Bodla et al. 2017); 0: greedy NMS instead."""
    nms_iou: Fraction = 0.6
    """Of two boxes of a class whose IoU exceeds this, the lower-scored one is dropped: after
    soft-NMS and voting, and instead of soft-NMS where that is 0 (release: 0.3)."""
    vote_iou: Fraction = 0.55
    """A kept box becomes the mean, weighted by exp(margin), of the class's boxes that overlap it by
    at least this IoU ("box voting", Gidaris and Komodakis 2015); 0: boxes stay as they are."""
    max_per_class: PositiveInt = 100
    """At most this many boxes are kept per class and image."""
    box_regression: Literal["mean", "ridge", "learned", "none"] = "mean"
    """What moves boxes before NMS: the ridge regressors (release), the box deltas that fine-tuning
    learned, the mean of both, or nothing."""
    refine_top: NonNegativeInt = 300
    """The best boxes of an image over all classes, as many as this, are pooled at where they were
    moved to, scored and moved again, and join the others before NMS (iterative localization,
    Gidaris and Komodakis 2015); 0: none (release)."""
    scale_factors: Annotated[tuple[PositiveFloat, ...], Field(max_length=8)] = (1.2,)
    """An image is shown to the network at each of these times `features.scales`; a region's scores
    and boxes are the means over all that it is shown at. Each takes about as long as a detection
    with one. Networks do best on images somewhat larger than those that they were trained on
    (Touvron et al. 2019)."""
    flipped_scale_factors: Annotated[tuple[PositiveFloat, ...], Field(max_length=8)] = ()
    """The flipped image is shown at each of these times `features.scales`; empty: not at all."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.scale_factors and not self.flipped_scale_factors:
            raise ConfigError(
                "detection.scale_factors and detection.flipped_scale_factors are both empty",
                hint="give one number above 0 or more",
            )
        return self


class DetectorConfig(Settings):
    """What a detector is, and how it detects."""

    proposals: ProposalConfig = ProposalConfig()
    """Selective search: the boxes of an image that are scored."""
    features: FeatureConfig = FeatureConfig()
    """Backbone and image scales: what is computed once per image."""
    head: HeadConfig = HeadConfig()
    """Pyramid and fully connected layers: what is computed for each region."""
    detection: DetectionConfig = DetectionConfig()
    """Scoring and post-processing of an image's regions."""
    seed: NonNegativeInt = 0
    """Initial weights, sampling and the images' order follow from this number; proposals, SVMs and
    box regressors have seeds of their own."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        features, rules = self.features, self.detection
        factors = (*rules.scale_factors, *rules.flipped_scale_factors)
        areas = [(scale * factor) ** 2 for scale in features.scales for factor in factors]
        pixels = features.max_aspect_ratio * sum(areas)
        if pixels > MOST_PIXELS:
            raise ConfigError(
                f"features.scales {list(features.scales)} at detection.scale_factors "
                f"{list(factors)} may show an image in {pixels / 1e6:.0f} million pixels",
                hint=f"choose smaller or fewer, for {MOST_PIXELS // 10**6} million at most",
            )
        return self


def read_config(values: Mapping[str, Any]) -> DetectorConfig:
    """Return the settings in a model file's header; ConfigError as `from_dict` raises it.

    Files from before scores were probabilities, the shipped ones among them, hold a threshold of
    margins as `score_threshold`, and `display_threshold`, which a probability needs no longer.
    """
    rules = dict(values.get("detection", {}))
    if rules.pop("display_threshold", None) is not None:
        rules["margin_threshold"] = rules.pop("score_threshold")
    return from_dict(DetectorConfig, {**values, "detection": rules})


def fixed_setting(name: str) -> ConfigError:
    """Describe a changed setting that a trained model cannot be used with."""
    free = ", ".join(f"{one}*" if one.endswith(".") else one for one in FREE_SETTINGS)
    return ConfigError(
        f"{name} was fixed when the model was trained",
        hint=f"change {free} only, or train a model with it",
    )


def refuse_training(table: Mapping[str, Any]) -> None:
    """Raise ConfigError for a setting that training alone reads."""
    for section in TRAINING_TABLES:
        if section in table:
            values = table[section]
            key = f".{next(iter(values))}" if isinstance(values, dict) and values else ""
            raise fixed_setting(f"{section}{key}")
