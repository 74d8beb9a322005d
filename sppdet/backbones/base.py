"""The seam that every backbone fits: an image in, named feature maps with their geometry out."""

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

from sppdet.backbones.geometry import Geometry
from sppdet.backbones.upper import UpperStages
from sppdet.errors import SppdetError
from sppdet.types import FloatArray, ImageArray

# Images `(B, 3, h, w)` -> maps `(B, C, h', w')` by tap.
Forward = Callable[[Tensor], dict[str, Tensor]]


class PointwiseHead(NamedTuple):
    """A pretrained 1x1 convolution on top of a tap: `clamp(x @ weight + bias, 0, limit)`.

    Attributes:
        source: the tap it reads.
        weight: `float32 (C_in, C_out)`.
        bias: `float32 (C_out,)`.
        limit: where its ReLU is cut off (ReLU6: 6).
    """

    source: str
    weight: Tensor
    bias: Tensor
    limit: float


class Backbone(nn.Module):
    """A convolutional network that gives named feature maps ("taps") of images of any size.

    Attributes:
        name: what `load_backbone` calls it.
        channels: the number of channels of every tap.
        geometries: stride and first receptive-field centre of every tap.
        default_tap: the tap that `forward` gives when none is asked for.
        min_side: the smallest input side in pixels that yields at least one cell.
    """

    name: str
    channels: Mapping[str, int]
    geometries: Mapping[str, Geometry]
    default_tap: str
    min_side: int = 1
    frozen: bool = False

    @property
    def geometry(self) -> Geometry:
        """The geometry of the default tap."""
        return self.geometries[self.default_tap]

    def normalise(self, image: ImageArray) -> FloatArray:
        """`float32 (H, W, 3)`: an RGB image as this network's training saw its pixels."""
        raise NotImplementedError

    def pointwise_head(self) -> PointwiseHead | None:
        """The network's pretrained 1x1 head convolution, None where it has none."""
        return None

    def upper_stages(self, tap: str) -> UpperStages | None:
        """A trainable copy of what lies above a tap, None where the network cannot be cut there."""
        return None

    def for_inference(self, taps: Iterable[str], *, eight_bits: bool = False) -> Forward:
        """The forward pass to these taps, as fast as it can be: of the weights as they are now.

        Gradients do not pass through it. With `eight_bits` it is computed in 8-bit integers by
        networks that can: faster, and rounded.
        """
        return partial(self, taps=tuple(taps))

    def preprocess(self, image: ImageArray, short_side: int) -> tuple[Tensor, float, float]:
        """An RGB image as `float32 (1, 3, h, w)` in channels-last memory, and two scale factors.

        The shorter side becomes `short_side` pixels and the longer keeps the aspect (rounded);
        resampling is bilinear without antialiasing, as in the SPP-net release. The factors are
        `w / W` and `h / H`: a half-open box coordinate `x` of the image is `x * factor_x` in the
        network's input.
        """
        height, width = image.shape[:2]
        new_width, new_height = resized_shape(width, height, short_side)
        new_width, new_height = max(new_width, self.min_side), max(new_height, self.min_side)
        if (new_width, new_height) != (width, height):
            size = (new_width, new_height)
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        tensor = torch.from_numpy(self.normalise(image))
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
        """This backbone with gradients off and batch norm fixed, whatever `train()` is told."""
        self.frozen = True
        return self.eval().requires_grad_(False)

    def unfreeze(self) -> Self:
        """This backbone in training mode with gradients on."""
        self.frozen = False
        return self.train().requires_grad_(True)

    def train(self, mode: bool = True) -> Self:
        """Set training mode; without effect on a frozen backbone."""
        return super().train(mode and not self.frozen)

    def _check_taps(self, taps: Iterable[str] | None) -> tuple[str, ...]:
        wanted = (self.default_tap,) if taps is None else tuple(taps)
        for tap in wanted:
            if tap not in self.channels:
                raise SppdetError(
                    f"{self.name} has no tap {tap!r}", mend=f"use one of {', '.join(self.channels)}"
                )
        return wanted


def any_size() -> AbstractContextManager[None]:
    """Convolutions on a GPU without cuDNN, which plans each anew for every size of map it meets.

    No two images need be alike: on an H200, 30 steps of fine-tuning took 3 s without it, and were
    not done after 19 s with it.
    """
    found: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=False)
    return found


def resized_shape(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height whose shorter side is `short_side`, with the aspect kept (rounded)."""
    scale = short_side / min(width, height)
    if width <= height:
        return short_side, max(short_side, math.floor(height * scale + 0.5))
    return max(short_side, math.floor(width * scale + 0.5)), short_side


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a third-party `.pth` file, on the CPU; nothing but tensors is unpickled.

    Raises SppdetError when the file is missing or is not a plain state dict.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SppdetError(
            f"cannot read the weights: {error}", where=path, mend="install the package again"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise SppdetError("not a state dict of tensors", where=path)
    return state


def scaled_pixels(image: ImageArray, mean: ArrayLike, scale: ArrayLike) -> FloatArray:
    """`float32 (H, W, 3)`: `(image - mean) * scale`."""
    out = image.astype(np.float32, order="C")
    out -= np.asarray(mean, np.float32)
    out *= np.asarray(scale, np.float32)
    return out
