"""The settings of the whole detector: one frozen dataclass a stage, gathered in `Config`.

Each stage's settings stand beside the code they steer; the defaults are the shipped model's.
Files in `configs/` hold differences only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sppdet import settings
from sppdet.compression import CompressionConfig
from sppdet.detection import DetectionConfig
from sppdet.errors import ConfigError
from sppdet.features import FeatureConfig
from sppdet.finetune_config import FineTuneConfig
from sppdet.head_config import HeadConfig
from sppdet.proposals.config import ProposalConfig
from sppdet.regression import RegressionConfig
from sppdet.scene import SceneConfig
from sppdet.settings import differences, digest, from_dict, to_dict
from sppdet.svm import SvmConfig

__all__ = ["Config", "differences", "digest", "from_dict", "load_config", "to_dict"]


@dataclass(frozen=True)
class Config:
    """Everything that decides what is trained and how it detects."""

    # Selective search: which boxes of an image are looked at.
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    # Backbone and image scales: what is computed once an image.
    features: FeatureConfig = field(default_factory=FeatureConfig)
    # Pyramid and fully connected layers: what is computed for each region.
    head: HeadConfig = field(default_factory=HeadConfig)
    # Fine-tuning of the fully connected layers.
    finetune: FineTuneConfig = field(default_factory=FineTuneConfig)
    # One linear SVM a class, trained with hard negatives.
    svm: SvmConfig = field(default_factory=SvmConfig)
    # Box regressors, one a class.
    regression: RegressionConfig = field(default_factory=RegressionConfig)
    # What the whole image says of the classes.
    scene: SceneConfig = field(default_factory=SceneConfig)
    # What is made smaller once the head is fine-tuned.
    compression: CompressionConfig = field(default_factory=CompressionConfig)
    # What is kept of an image's scored regions.
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    # Initial weights, sampling and the images' order follow from this number; proposals, SVMs and
    # regressors have seeds of their own.
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}", mend="give 0 or a positive whole number")


def load_config(
    path: Path | None = None, overrides: Sequence[str] = (), base: Config | None = None
) -> Config:
    """The defaults (or `base`), changed by a TOML file and then by `a.b=c` overrides.

    Raises:
        ConfigError: the file cannot be read; an unknown key or a value of another type, named
            with its source and the nearest right key.
    """
    return settings.load(Config, path, overrides, base)
