"""Backbones that are a plain chain of layers, with geometry and sizes read off the layers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from torch import Tensor, nn

from sppdet.backbones.base import Backbone, scaled_pixels
from sppdet.backbones.geometry import PIXELS, Geometry, Window
from sppdet.types import FloatArray, ImageArray


class SequentialBackbone(Backbone):
    """Layers run in order, with a tap after some of them.

    Args:
        name: what `load_backbone` calls it.
        layers: the chain; its children are counted by `taps`.
        taps: tap name -> how many children of `layers` come before it; the last is the default.
        mean, scale: a pixel goes in as `(value - mean) * scale`; `mean` in the input's order.
        bgr: whether the channels go in as blue, green, red.
    """

    def __init__(
        self,
        name: str,
        layers: nn.Sequential,
        taps: Mapping[str, int],
        *,
        mean: tuple[float, ...],
        scale: tuple[float, ...],
        bgr: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        self.layers = layers[: max(taps.values())]
        self.taps = dict(taps)
        self.default_tap = list(taps)[-1]
        self.mean, self.scale = np.array(mean, np.float32), np.array(scale, np.float32)
        self.bgr = bgr
        self.channels: dict[str, int] = {}
        self.geometries: dict[str, Geometry] = {}
        for tap, count in taps.items():
            part = layers[:count]
            self.geometries[tap] = PIXELS.after(windows(part))
            self.channels[tap] = _out_channels(part)
        self.min_side = next(n for n in itertools.count(1) if map_side(self.layers, n) > 0)

    def normalise(self, image: ImageArray) -> FloatArray:
        return scaled_pixels(image[:, :, ::-1] if self.bgr else image, self.mean, self.scale)

    def forward(self, x: Tensor, taps: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Maps `float32 (B, C, h, w)` by tap."""
        wanted = self._check_taps(taps)
        depth = max(self.taps[tap] for tap in wanted)
        ends = {self.taps[tap]: tap for tap in wanted}
        found: dict[str, Tensor] = {}
        for count, layer in enumerate(self.layers[:depth], start=1):
            x = layer(x)
            if count in ends:
                found[ends[count]] = x
        return {tap: found[tap] for tap in wanted}


def spatial_layers(module: nn.Module) -> Iterator[nn.Conv2d | nn.MaxPool2d]:
    """The convolutions and poolings of the main path, in order; skip branches left out."""
    for name, layer in module.named_modules():
        if "downsample" not in name and isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            yield layer


def windows(module: nn.Module) -> list[Window]:
    """The geometry of a chain's convolutions and poolings, in order."""
    out = []
    for layer in spatial_layers(module):
        kernel, stride, padding, dilation = (
            _side(v) for v in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        )
        out.append(Window(kernel, stride, padding, dilation))
    return out


def map_side(module: nn.Module, side: int) -> int:
    """The number of cells along a side that a chain makes of `side` pixels; 0 if it cannot."""
    for layer, window in zip(spatial_layers(module), windows(module), strict=True):
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
