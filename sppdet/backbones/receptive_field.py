"""Receptive fields of feature map cells in the network's input, computed from its layers.

Coordinates are continuous and 0-based with half-pixel centers: pixel `i` covers `[i, i + 1)` and
its center is at `i + 0.5`. Padding that depends on the input's size would make the offset depend
on it too, so every backbone here pads by constants: those with TensorFlow's SAME padding first
grow their input at the bottom and right to a multiple of their stride, where SAME is constant.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConvWindow:
    """Sliding window of a convolution or pooling, equal along x and y.

    Attributes:
        kernel: cells of the window along one side.
        stride: input cells between two output cells.
        padding: cells added before the first input cell (left and top).
        dilation: input cells between two neighboring cells of the window.
    """

    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """Lattice of the receptive fields' centers in a feature map, equal along x and y.

    Attributes:
        stride: input pixels between the centers of two neighboring cells.
        offset: the center of the first cell's receptive field, in continuous input pixels.
    """

    stride: int
    offset: float

    def after(self, windows: Iterable[ConvWindow]) -> ReceptiveField:
        """Return the lattice of the map that `windows` make, in order, of a map with this one."""
        stride, offset = self.stride, self.offset
        for window in windows:
            reach = (window.kernel - 1) * window.dilation
            offset += stride * (reach / 2 - window.padding)
            stride *= window.stride
        return ReceptiveField(stride, offset)


# The image itself as a map: one cell per pixel.
PIXELS = ReceptiveField(stride=1, offset=0.5)
