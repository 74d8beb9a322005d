"""A trained classification network: an image in, its classes with probabilities out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sppdet.classification.config import ClassificationConfig
from sppdet.classification.multi_view import ViewSet, predict
from sppdet.classification.network import ClassificationNetwork
from sppdet.core.model_file import (
    CLASSIFIER,
    ModelHeader,
    check_arrays,
    check_backbone,
    check_config,
    load_model,
    save_model,
)
from sppdet.core.settings import from_dict, to_dict
from sppdet.core.types import FloatArray
from sppdet.media.image_inputs import ImageInput, as_image

_BACKBONE = "backbone."


@dataclass(frozen=True, slots=True)
class Prediction:
    """A class of an image with its probability, 0 to 1."""

    name: str
    probability: float


class Classifier:
    """A trained classification network.

    Attributes:
        classes: class names, in the order of the probabilities.
        config: all settings of its training.
        network: conv layers, pooling and fully connected layers, for inference.
    """

    def __init__(self, config: ClassificationConfig, network: ClassificationNetwork) -> None:
        self.config, self.classes = config, network.classes
        self.network = network.eval().requires_grad_(False)

    @classmethod
    def load(cls, source: str | Path, *, device: str = "cpu") -> Classifier:
        """Load the classifier in a model file.

        Raises ModelFormatError when the file is missing, damaged, of another version or not a
        classifier's, or was trained on a frozen backbone whose installed weights differ.
        """
        path = Path(source)
        header, tensors = load_model(path, CLASSIFIER)
        with check_config(header, path):
            config = from_dict(ClassificationConfig, header.config)
        # Trained convolutions are in the file: only frozen ones come from where they came from.
        frozen = config.network.frozen
        pretrained = config.network.pretrained and frozen
        # Nothing is fetched because a file says so.
        wanted = config.network.replace(pretrained=pretrained, download=False)
        with check_arrays(path):
            network = ClassificationNetwork(
                wanted, header.classes, seed=config.seed, arrays=tensors
            )
        state = {name: torch.from_numpy(value).float() for name, value in tensors.items()}
        if frozen:
            own = network.state_dict()
            state |= {name: own[name] for name in own if name.startswith(_BACKBONE)}
        with check_arrays(path):
            network.load_state_dict(state)
        network.config = config.network
        check_backbone(header, network.backbone.weights_digest(), path)
        return cls(config, network.to(device))

    def save(self, path: Path, *, description: str, provenance: dict[str, object]) -> None:
        """Write one model file, atomically.

        The fully connected layers, by far the most of it, are stored as float16; convolutions
        that were trained as they are, and frozen ones not at all.
        """
        frozen = self.config.network.frozen
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

    def classify(self, image: ImageInput, views: ViewSet | None = None) -> list[Prediction]:
        """Rank all classes of one image by probability, best first.

        `image` is whatever `media.as_image` takes; `views` are those tested on, by default the
        whole image (a plain network: its center crop). Raises ImageError as `as_image`, and
        ConfigError for unknown views.
        """
        found = self.probabilities(image, views)
        order = np.argsort(-found, kind="stable")
        return [Prediction(self.classes[int(label)], float(found[label])) for label in order]

    def probabilities(self, image: ImageInput, views: ViewSet | None = None) -> FloatArray:
        """Compute `float32 (K,)`, summing to 1, in the order of `classes`; else as `classify`."""
        if views is None:
            views = "center" if self.network.is_plain else "full"
        return predict(self.network, as_image(image), views)
