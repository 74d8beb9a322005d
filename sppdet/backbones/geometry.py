"""Where the cells of a feature map lie in the network's input, computed from its layers.

Coordinates are continuous and 0-based with half-pixel centres: pixel `i` covers `[i, i + 1)` and
its centre is at `i + 0.5`. Padding that depends on the input's size would make the geometry depend
on it too, so every backbone here pads by constants: those with TensorFlow's SAME padding first
grow their input at the bottom and right to a multiple of their stride, where SAME is constant.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """A convolution or pooling as geometry sees it; equal along x and y.

    Attributes:
        kernel: taps along one side.
        stride: input cells between two output cells.
        padding: cells added before the first input cell (left and top).
        dilation: input cells between two taps.
    """

    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1


@dataclass(frozen=True, slots=True)
class Geometry:
    """The lattice of receptive-field centres of a feature map, equal along x and y.

    Attributes:
        stride: input pixels between the centres of two neighbouring cells.
        offset: the centre of the first cell's receptive field, in continuous input pixels.
    """

    stride: int
    offset: float

    @property
    def offset0(self) -> float:
        """`offset` as the SPP-net release counts it: in 1-based pixel numbers (ZF-5: 21)."""
        return self.offset + 0.5

    def after(self, windows: Iterable[Window]) -> Geometry:
        """The geometry of the map that `windows` make, in order, out of a map with this one."""
        stride, offset = self.stride, self.offset
        for window in windows:
            reach = (window.kernel - 1) * window.dilation
            offset += stride * (reach / 2 - window.padding)
            stride *= window.stride
        return Geometry(stride, offset)


# The image itself, seen as a map: one cell a pixel.
PIXELS = Geometry(stride=1, offset=0.5)
