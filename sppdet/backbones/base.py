"""Contract of all backbones: an image in, feature maps of named layers out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from sppdet.backbones.receptive_field import ReceptiveField
from sppdet.backbones.trainable_stages import TrainableStages
from sppdet.core.errors import ConfigError, SppdetError
from sppdet.core.types import FloatArray, ImageArray

# Images `(B, 3, h, w)` -> maps `(B, C, h', w')` by layer.
Forward = Callable[[Tensor], dict[str, Tensor]]


class ConvHead(NamedTuple):
    """A pretrained 1x1 convolution on top of a layer: `clamp(x @ weight + bias, 0, limit)`.

    Attributes:
        source: the layer whose map goes in.
        weight: `float32 (C_in, C_out)`.
        bias: `float32 (C_out,)`.
        limit: where its ReLU is cut off (ReLU6: 6).
    """

    source: str
    weight: Tensor
    bias: Tensor
    limit: float


class Backbone(nn.Module):
    """A convolutional network that computes feature maps of images of any size.

    A subclass defines `normalize` and `forward(x, layers=None)`, which gives the maps by layer.

    Attributes:
        name: what `load_backbone` calls it.
        channels: the number of channels of each layer's map.
        geometries: stride and first receptive field's center of each layer's map.
        default_layer: the layer whose map `forward` gives when none is asked for.
        min_side: the smallest input side in pixels that yields at least one cell.
    """

    name: str
    channels: Mapping[str, int]
    geometries: Mapping[str, ReceptiveField]
    default_layer: str
    min_side: int = 1
    frozen: bool = False

    @property
    def geometry(self) -> ReceptiveField:
        """Receptive fields of the default layer."""
        return self.geometries[self.default_layer]

    def normalize(self, image: ImageArray) -> FloatArray:
        """Scale an RGB image's pixels as in this network's training, `float32 (H, W, 3)`."""
        raise NotImplementedError

    def conv_head(self) -> ConvHead | None:
        """Return the network's pretrained 1x1 head convolution, None where it has none."""
        return None

    def trainable_stages(self, layer: str) -> TrainableStages | None:
        """Copy what lies above a layer, None where the network cannot be cut there."""
        return None

    def compile(  # type: ignore[override]
        self, layers: Iterable[str], *, quantize: bool = False
    ) -> Forward:
        """Build the fastest forward pass to these layers, with the weights as they are now.

        Gradients do not pass through it. With `quantize` it is computed in 8-bit integers by
        networks that can: faster, and rounded. Not torch's method of this name, which returns
        nothing.

        Raises ConfigError for a layer that the network does not have.
        """
        return partial(self, layers=self.check_layers(layers))

    def check_layers(self, layers: Iterable[str] | None) -> tuple[str, ...]:
        """Return the layers' names, the default one's for None.

        Raises ConfigError for a layer that the network does not have.
        """
        names = (self.default_layer,) if layers is None else tuple(layers)
        for name in names:
            if name not in self.channels:
                raise ConfigError(
                    f"{self.name} has no layer {name!r}",
                    hint=f"use one of {', '.join(self.channels)}",
                )
        return names

    def preprocess(self, image: ImageArray, short_side: int) -> tuple[Tensor, float, float]:
        """Resize and normalize an RGB image: `float32 (1, 3, h, w)`, and two scale factors.

        The shorter side becomes `short_side` pixels and the longer keeps the aspect (rounded);
        resampling is bilinear without antialiasing, as in the SPP-net release. Memory is in
        channels-last order. The factors are
        `w / W` and `h / H`: a half-open box coordinate `x` of the image is `x * factor_x` in the
        network's input.
        """
        height, width = image.shape[:2]
        new_width, new_height = resized_shape(width, height, short_side)
        new_width, new_height = max(new_width, self.min_side), max(new_height, self.min_side)
        if (new_width, new_height) != (width, height):
            size = (new_width, new_height)
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        tensor = torch.from_numpy(self.normalize(image))
        return tensor.permute(2, 0, 1)[None], new_width / width, new_height / height

    def weights_digest(self) -> str:
        """SHA-256 (hex) over the names, shapes and values of all parameters and buffers."""
        digest = hashlib.sha256()
        for key, value in sorted(self.state_dict().items()):
            array = value.detach().cpu().contiguous().numpy()
            digest.update(f"{key}:{array.dtype}:{array.shape}\n".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def freeze(self) -> Self:
        """Turn gradients off and fix batch norm for good; `train()` has no effect then."""
        self.frozen = True
        return self.eval().requires_grad_(False)

    def unfreeze(self) -> Self:
        """Turn training mode and gradients on."""
        self.frozen = False
        return self.train().requires_grad_(True)

    def train(self, mode: bool = True) -> Self:
        """Set training mode, unless frozen."""
        return super().train(mode and not self.frozen)


def without_cudnn() -> AbstractContextManager[None]:
    """Run convolutions on a GPU without cuDNN, which plans anew for every size of map.

    Images are of all sizes, and planning takes longer than computing (docs/speed.md, "Training").
    """
    context: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=False)
    return context


def resized_shape(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height with `short_side` as the shorter one, the aspect kept (rounded)."""
    scale = short_side / min(width, height)
    if width <= height:
        return short_side, max(short_side, math.floor(height * scale + 0.5))
    return max(short_side, math.floor(width * scale + 0.5)), short_side


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a third-party `.pth` file, on the CPU; nothing else is unpickled.

    Raises SppdetError where the file is missing or is not a plain state dict.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SppdetError(
            f"cannot read the weights: {error}", path=path, hint="install the package again"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise SppdetError("not a state dict of tensors", path=path)
    return state


def scale_pixels(image: ImageArray, mean: ArrayLike, scale: ArrayLike) -> FloatArray:
    """Compute `(image - mean) * scale`, `float32 (H, W, 3)`."""
    out = image.astype(np.float32, order="C")
    out -= np.asarray(mean, np.float32)
    out *= np.asarray(scale, np.float32)
    return out
