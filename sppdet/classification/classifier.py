"""The classifier: an image in, its classes with probabilities out, best first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from sppdet.classification.config import ClassificationConfig
from sppdet.classification.networks import ClassificationNetwork
from sppdet.classification.views import Views, predict
from sppdet.errors import ModelFormatError
from sppdet.images import as_image
from sppdet.modelfile import CLASSIFIER, ModelHeader, load_model, save_model
from sppdet.modelnames import resolve_model
from sppdet.settings import from_dict, to_dict
from sppdet.types import FloatArray, ImageArray

_BACKBONE = "backbone."


@dataclass(frozen=True, slots=True)
class Guess:
    """A class that an image may have, and how likely the classifier finds it: 0 to 1."""

    name: str
    probability: float


class Classifier:
    """A trained classification network.

    Attributes:
        classes: the names of what it tells apart.
        config: everything it was trained with.
        network: conv layers, pooling and fully connected layers, for inference.
    """

    def __init__(self, config: ClassificationConfig, network: ClassificationNetwork) -> None:
        self.config, self.classes = config, network.classes
        self.network = network.eval().requires_grad_(False)

    @classmethod
    def load(cls, source: str | Path, *, device: str = "cpu") -> Classifier:
        """The classifier in a model file.

        Raises ModelFormatError when the file is missing, damaged, of another version or not a
        classifier's, or was trained on a frozen backbone whose installed weights differ.
        """
        path = resolve_model(source)
        header, tensors = load_model(path, CLASSIFIER)
        config = from_dict(ClassificationConfig, header.config, where=path)
        # Trained convolutions are in the file: only frozen ones come from where they came from.
        wanted = replace(
            config.network, pretrained=config.network.pretrained and _is_frozen(config)
        )
        network = ClassificationNetwork(wanted, header.classes, seed=config.seed)
        state = {name: torch.from_numpy(value).float() for name, value in tensors.items()}
        if _is_frozen(config):
            own = network.state_dict()
            state |= {name: own[name] for name in own if name.startswith(_BACKBONE)}
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise ModelFormatError(
                f"its arrays do not fit its config: {error}", where=path, mend="train again"
            ) from error
        network.config = config.network
        if network.backbone.weights_digest() != header.backbone_digest:
            raise ModelFormatError(
                f"was trained on other weights of {header.backbone} than those installed",
                where=path,
                mend="install the package versions named in its header, or train again",
            )
        return cls(config, network.to(device))

    def save(self, path: Path, *, description: str, provenance: dict[str, object]) -> None:
        """Writes one model file, atomically.

        The fully connected layers, by far the most of it, are stored as float16; convolutions
        that were trained as they are, and frozen ones not at all.
        """
        frozen = _is_frozen(self.config)
        tensors: dict[str, np.ndarray] = {}
        for name, value in self.network.state_dict().items():
            if not name.startswith(_BACKBONE):
                tensors[name] = value.cpu().half().numpy()
            elif not frozen:
                tensors[name] = value.cpu().numpy()
        backbone = self.network.backbone
        header = ModelHeader(
            classes=self.classes,
            config=to_dict(self.config),
            backbone=backbone.name,
            backbone_digest=backbone.weights_digest(),
            description=description,
            provenance=provenance,
            kind=CLASSIFIER,
        )
        save_model(path, header, tensors)

    def classify(self, image: str | Path | ImageArray, views: Views | None = None) -> list[Guess]:
        """All classes of one image with their probabilities, best first.

        `image` is a file or an RGB array `uint8 (H, W, 3)`; `views` says how it is looked at, by
        default whole (a plain network: its central crop). Raises ImageError when a file cannot be
        read or an array is of another type or shape, ConfigError for unknown views.
        """
        found = self.probabilities(image, views)
        order = np.argsort(-found, kind="stable")
        return [Guess(self.classes[int(label)], float(found[label])) for label in order]

    def probabilities(
        self, image: str | Path | ImageArray, views: Views | None = None
    ) -> FloatArray:
        """`float32 (K,)` in the order of `classes`, summing to 1; otherwise as `classify`."""
        if views is None:
            views = "centre" if self.network.is_plain else "full"
        return predict(self.network, as_image(image), views)


def _is_frozen(config: ClassificationConfig) -> bool:
    return config.network.frozen
