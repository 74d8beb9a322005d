"""Settings of the layers over pooled regions: what is pooled, and how wide the layers are."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from sppdet.core.errors import ConfigError
from sppdet.core.settings import Level, Settings, Width

FeatureLayer = Literal["pool", "fc6", "fc7"]


class HeadConfig(Settings):
    """Pyramid and fully connected layers."""

    section: ClassVar[str] = "head"

    pyramid_levels: Annotated[tuple[Level, ...], Field(max_length=8)] = (6, 3, 2, 1)
    """Pyramid levels of the max pooling: n means n x n bins (paper: 50 bins per channel)."""
    pyramid_channels: Annotated[int, Field(ge=0, le=4096)] = 64
    """Channels that a learned 1x1 convolution leaves for the pyramid; 0 pools the map's own."""
    context_scales: Annotated[tuple[PositiveFloat, ...], Field(max_length=8)] = (1.0, 2.0)
    """Windows around the region, expanded by these factors, that the backbone's pretrained 1x1 head
    is averaged over; 1 is the region itself. Empty for backbones without such a head."""
    fc6: Width = 1024
    """Width of the first fully connected layer (paper: 4096)."""
    fc7: Width = 1024
    """Width of the second fully connected layer (paper: 4096)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Chance of dropping a unit after fc6 and fc7 while fine-tuning (paper: 0.5, for 40 times the
    steps)."""
    train_top_stages: bool = True
    """Whether the backbone's stages above the map belong to the head, where they are fine-tuned
    along with the fully connected layers (the paper freezes all convolutions)."""
    fc6_rank: NonNegativeInt = 192
    """Rank of the factorized fc6, once it is fine-tuned; 0 leaves it whole, as does a rank that
    would save no work."""
    svm_layer: FeatureLayer = "fc7"
    """Features that the SVMs see: the pooled pyramid, or the output of fc6 or fc7."""
    regression_layer: FeatureLayer = "fc7"
    """Features that the ridge box regressors see: the pooled pyramid (release), or the output of
    fc6 or fc7, which cost nothing where the SVMs read them too."""
    learned_boxes: bool = True
    """Whether fine-tuning learned box deltas; training sets it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        levels = self.pyramid_levels
        if not levels and not self.context_scales:
            raise ConfigError("head.pyramid_levels and head.context_scales are both empty")
        if len(set(levels)) != len(levels):
            raise ConfigError(
                f"head.pyramid_levels are {list(levels)}", hint="give different whole numbers"
            )
        return self
