"""From the coarse grid of the upper stages to the finer one below them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sppdet.core.jit import jit
from sppdet.core.types import FloatingArray


def upsample2x(half: Tensor, height: int, width: int) -> Tensor:
    """`(height, width, C)`: a map of `TrainableStages`, upsampled linearly onto the source's grid.

    Odd rows and columns are the cells themselves, even ones the mean of their two neighbors (the
    first one is the first cell's copy). On a CPU, where no gradient is asked for, it is one
    compiled loop, with the same bits: torch's many small passes wake its threads each time.
    """
    if (half.requires_grad and torch.is_grad_enabled()) or half.device.type != "cpu":
        return _doubled(_doubled(half, 0)[:height], 1)[:, :width].contiguous()
    cells = half.detach().contiguous()
    out = torch.empty((height, width, cells.shape[2]), dtype=cells.dtype)
    _fill(cells.numpy(), np.array(0.5, cells.numpy().dtype)[()], out.numpy())
    return out


def _doubled(values: Tensor, dim: int) -> Tensor:
    first, others = values.narrow(dim, 0, 1), values.narrow(dim, 0, values.shape[dim] - 1)
    before = torch.cat([first, others], dim)
    return torch.stack([(before + values) / 2, values], dim + 1).flatten(dim, dim + 1)


def _warm_up() -> None:
    with torch.no_grad():
        upsample2x(torch.zeros(1, 1, 1), 2, 2)


@jit(warm_up=_warm_up)
def _fill(half: FloatingArray, one_half: Any, out: FloatingArray) -> None:
    """Rows first, then columns; `one_half` is of the type of the values."""
    height, width, channels = out.shape
    line = np.empty((half.shape[1], channels), half.dtype)
    for y in range(height):
        below = half[y // 2]
        above = half[max(y // 2 - 1, 0)]
        for j in range(len(line)):
            for c in range(channels):
                if y % 2:
                    line[j, c] = below[j, c]
                else:
                    line[j, c] = (above[j, c] + below[j, c]) * one_half
        for x in range(width):
            right, left = line[x // 2], line[max(x // 2 - 1, 0)]
            row = out[y, x]
            for c in range(channels):
                if x % 2:
                    row[c] = right[c]
                else:
                    row[c] = (left[c] + right[c]) * one_half
