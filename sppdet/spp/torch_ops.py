"""Region pooling out of torch's and torchvision's own operations, for maps on a GPU.

On a CPU `kernels` are many times as fast; there this is what they are compared with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sppdet.core.types import IntArray


def pool_max_by_torch(feature_map: Tensor, windows: IntArray, levels: Sequence[int]) -> Tensor:
    """`(N, C * bins)` maxima of the bins of windows `int64 (N, 4)` of a map `(C, h, w)`.

    torchvision's `roi_pool`, called once per level; its boxes end at the last cell, inclusive. It
    divides in float32: bins are exact at levels up to 6, at 7 one in a thousand is a cell larger.
    """
    from torchvision.ops import roi_pool  # takes seconds to import, and is rarely needed

    rois = feature_map.new_zeros(len(windows), 5)
    rois[:, 1:] = torch.from_numpy(windows - [0, 0, 1, 1])
    return torch.cat([roi_pool(feature_map[None], rois, n).flatten(1) for n in levels], dim=1)


def pool_mean_by_torch(feature_map: Tensor, windows: IntArray, levels: Sequence[int]) -> Tensor:
    """`(N, C * bins)` means of the bins, from sums over the rectangles above and left (float64)."""
    padded = torch.nn.functional.pad(feature_map.double(), (1, 0, 1, 0))
    sums = padded.cumsum(1).cumsum(2).permute(1, 2, 0)
    parts = []
    for level in levels:
        (x1, x2), (y1, y2) = (_edges(windows[:, [k, k + 2]], level) for k in (0, 1))
        left, right = (torch.from_numpy(x[:, None, :]) for x in (x1, x2))
        top, bottom = (torch.from_numpy(y[:, :, None]) for y in (y1, y2))
        total = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        cells = ((bottom - top) * (right - left)).to(total.device)
        means = (total / cells[..., None]).to(feature_map.dtype)
        parts.append(means.permute(0, 3, 1, 2).flatten(1))
    return torch.cat(parts, dim=1)


def _edges(sides: IntArray, level: int) -> tuple[IntArray, IntArray]:
    """First cells and ends `int64 (N, level)` of the bins of sides `[first, end)`."""
    length = sides[:, 1:] - sides[:, :1]
    bins = np.arange(level)
    first: IntArray = sides[:, :1] + bins * length // level
    end: IntArray = sides[:, :1] - (-(bins + 1) * length // level)
    return first, end
