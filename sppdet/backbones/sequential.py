"""Backbones that are a plain chain of layers, strides and sizes computed from the layers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from torch import Tensor, nn

from sppdet.backbones.base import Backbone, scale_pixels
from sppdet.backbones.receptive_field import PIXELS, ConvWindow, ReceptiveField
from sppdet.core.types import FloatArray, ImageArray


class SequentialBackbone(Backbone):
    """Layers run in order, the maps of some of them given by name.

    Args:
        name: what `load_backbone` calls it.
        layers: the chain.
        depths: layer name -> how many children of `layers` make its map; the last is the default.
        mean, scale: a pixel goes in as `(value - mean) * scale`; `mean` in the input's order.
        bgr: whether the channels go in as blue, green, red.
    """

    def __init__(
        self,
        name: str,
        layers: nn.Sequential,
        depths: Mapping[str, int],
        *,
        mean: tuple[float, ...],
        scale: tuple[float, ...],
        bgr: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        self.layers = layers[: max(depths.values())]
        self.depths = dict(depths)
        self.default_layer = list(depths)[-1]
        self.mean, self.scale = np.array(mean, np.float32), np.array(scale, np.float32)
        self.bgr = bgr
        self.channels: dict[str, int] = {}
        self.geometries: dict[str, ReceptiveField] = {}
        for layer, count in depths.items():
            part = layers[:count]
            self.geometries[layer] = PIXELS.after(conv_windows(part))
            self.channels[layer] = _out_channels(part)
        self.min_side = next(n for n in itertools.count(1) if map_side(self.layers, n) > 0)

    def normalize(self, image: ImageArray) -> FloatArray:
        return scale_pixels(image[:, :, ::-1] if self.bgr else image, self.mean, self.scale)

    def forward(self, x: Tensor, layers: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Compute maps `float32 (B, C, h, w)` by layer."""
        wanted = self.check_layers(layers)
        names = {self.depths[name]: name for name in wanted}
        maps: dict[str, Tensor] = {}
        for count, layer in enumerate(self.layers[: max(names)], start=1):
            x = layer(x)
            if count in names:
                maps[names[count]] = x
        return {name: maps[name] for name in wanted}


def spatial_layers(module: nn.Module) -> Iterator[nn.Conv2d | nn.MaxPool2d]:
    """Yield the convolutions and poolings of the main path, in order; skip branches left out."""
    for name, layer in module.named_modules():
        if "downsample" not in name and isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            yield layer


def conv_windows(module: nn.Module) -> list[ConvWindow]:
    """Sliding windows of a chain's convolutions and poolings, in order."""
    out = []
    for layer in spatial_layers(module):
        kernel, stride, padding, dilation = (
            _side(v) for v in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        )
        out.append(ConvWindow(kernel, stride, padding, dilation))
    return out


def map_side(module: nn.Module, side: int) -> int:
    """Number of cells along a side that a chain makes of `side` pixels; 0 if it cannot."""
    for layer, window in zip(spatial_layers(module), conv_windows(module), strict=True):
        room = side + 2 * window.padding - (window.kernel - 1) * window.dilation - 1
        if room < 0:
            return 0
        if isinstance(layer, nn.MaxPool2d) and layer.ceil_mode:
            side = -(-room // window.stride) + 1
            # The last window must begin inside the map or its left padding.
            side -= (side - 1) * window.stride >= room + window.kernel - window.padding
        else:
            side = room // window.stride + 1
    return side


def _side(value: object) -> int:
    first = value[0] if isinstance(value, tuple) else value
    assert isinstance(first, int)
    return first


def _out_channels(module: nn.Module) -> int:
    convs = [layer for layer in spatial_layers(module) if isinstance(layer, nn.Conv2d)]
    return convs[-1].out_channels
