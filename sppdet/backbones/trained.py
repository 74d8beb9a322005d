"""Backbones out of classifiers' model files: convolutions that `sppdet classify train` trained."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from sppdet.errors import ModelFormatError
from sppdet.modelfile import CLASSIFIER, SUFFIX, load_model
from sppdet.types import FloatArray

PREFIX = "backbone."


class TrainedConvolutions(NamedTuple):
    """What a classifier's file says of its convolutional layers.

    Attributes:
        name: the network that they are of.
        width, pixel_scale: as `paper_network` takes them.
        pretrained: whether they began as ImageNet's weights.
        seed: what random ones were drawn from.
        state: the weights that were trained; empty where they were frozen.
        digest: what `weights_digest` of the whole must be.
    """

    name: str
    width: float
    pixel_scale: float
    pretrained: bool
    seed: int
    state: dict[str, torch.Tensor]
    digest: str


def is_model_file(name: str) -> bool:
    """Whether a backbone's name is the path of a model file."""
    return name.endswith(SUFFIX)


def read_convolutions(path: Path) -> TrainedConvolutions:
    """The convolutional layers in a classifier's model file.

    Raises ModelFormatError as `load_model`, and where the file does not say what they are.
    """
    header, tensors = load_model(path, CLASSIFIER)
    network = header.config.get("network")
    kinds = {"width": (int, float), "pixel_scale": (int, float), "pretrained": (bool,)}
    seed = header.config.get("seed")
    if (
        not isinstance(network, dict)
        or type(seed) is not int
        or any(type(network.get(k)) not in v for k, v in kinds.items())
    ):
        raise ModelFormatError(
            "does not say what its backbone is", where=path, mend="train the classifier again"
        )
    found: dict[str, FloatArray] = {k: v for k, v in tensors.items() if k.startswith(PREFIX)}
    state = {name[len(PREFIX) :]: torch.from_numpy(value) for name, value in found.items()}
    return TrainedConvolutions(
        name=header.backbone,
        width=float(network["width"]),
        pixel_scale=float(network["pixel_scale"]),
        pretrained=network["pretrained"],
        seed=seed,
        state=state,
        digest=header.backbone_digest,
    )
