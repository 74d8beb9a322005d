"""A trained detector that another training starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sppdet.core.errors import ConfigError, ModelFormatError
from sppdet.core.files import sha256
from sppdet.core.model_file import read_header
from sppdet.core.settings import differences, flatten
from sppdet.detection.config import DetectorConfig
from sppdet.detection.detector import Detector
from sppdet.detection.model_zoo import find_members, training_datasets
from sppdet.heads.head import RegionHead

# Settings of the features and the head that no layer's shape or meaning depends on.
FREE_SETTINGS = (
    "features.download",
    "features.quantize",
    "features.scales",
    "head.dropout",
    "head.fc6_rank",
    "head.svm_layer",
    "head.regression_layer",
    "head.learned_boxes",
)


@dataclass(frozen=True, slots=True, eq=False)
class StartingModel:
    """What a training takes over from a detector's model file.

    Attributes:
        name: of the shipped model or the file.
        description: the file's line about itself.
        digest: SHA-256 of the file.
        datasets: what it, and the models that it started from, were trained on.
        classes: the names of what its head was trained on.
        config: its settings.
        head: its layers.
    """

    name: str
    description: str
    digest: str
    datasets: tuple[str, ...]
    classes: tuple[str, ...]
    config: DetectorConfig
    head: RegionHead

    @classmethod
    def load(cls, source: str | Path) -> StartingModel:
        """Load what a training starts from: a model file, or a shipped model by its name.

        Raises ModelFormatError as `Detector.load` does.
        """
        member, *others = find_members(source)
        if others:
            raise ModelFormatError("names several models", path=source, hint="start from one")
        detector = Detector.load_member(member)
        return cls(
            Path(source).name,
            read_header(member.path).description,
            sha256(member.path.read_bytes()),
            tuple(training_datasets(source)),
            detector.parts.classes,
            detector.config,
            detector.head,
        )

    def changed_settings(self, config: DetectorConfig) -> list[str]:
        """List the settings that differ from this model's, and that its layers depend on."""
        wanted = config.replace(features=self.config.features, head=self.config.head)
        return [name for name in differences(config, wanted) if name not in FREE_SETTINGS]

    def check(self, config: DetectorConfig) -> None:
        """Raise ConfigError where a training under these settings cannot start from this model."""
        for name in self.changed_settings(config):
            wanted, has = flatten(config)[name], flatten(self.config)[name]
            raise ConfigError(
                f"{name} is {_shown(wanted)}, and the model {self.name}, which training starts "
                f"from, has {_shown(has)}",
                hint="--from none trains from random layers",
            )

    def provenance(self) -> dict[str, Any]:
        """Describe it for the header of a model that started from it."""
        names = ("name", "description", "digest")
        return {name: getattr(self, name) for name in names} | {"datasets": list(self.datasets)}


def _shown(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
