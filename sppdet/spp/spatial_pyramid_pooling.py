"""The paper's layer: spatial pyramid pooling of whole maps, of any size, to fixed vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sppdet.core.errors import ConfigError
from sppdet.spp.roi_pooling import PAPER_LEVELS, Mode, pyramid_bins

Rule = Literal["exact", "paper"]


class SpatialPyramidPooling(nn.Module):
    """A layer from maps `(B, C, h, w)` of any size to vectors `(B, C * bins)`.

    Args:
        levels: the pyramid, in output order.
        mode: `max` or `mean`.
        rule: `exact` bins as `roi_pooling` has them, or `paper`: windows of `ceil(a / n)` cells at
            strides of `floor(a / n)` for a side of `a` cells (He et al. 2014, sec. 2.3). The
            paper's rule gives `n` bins only for some sides; where it does not, ConfigError is
            raised.
    """

    def __init__(
        self, levels: Sequence[int] = PAPER_LEVELS, mode: Mode = "max", rule: Rule = "exact"
    ) -> None:
        super().__init__()
        self.bins = pyramid_bins(levels)
        self.levels, self.mode, self.rule = tuple(levels), mode, rule

    def forward(self, x: Tensor) -> Tensor:
        pool = self._pool_exact if self.rule == "exact" else self._pool_paper
        return torch.cat([pool(x, level).flatten(1) for level in self.levels], dim=1)

    def _pool_exact(self, x: Tensor, level: int) -> Tensor:
        if self.mode == "max":
            return F.adaptive_max_pool2d(x, level)
        return F.adaptive_avg_pool2d(x, level)

    def _pool_paper(self, x: Tensor, level: int) -> Tensor:
        kernel, stride = zip(*(paper_window(side, level) for side in x.shape[2:]), strict=True)
        if self.mode == "max":
            return F.max_pool2d(x, kernel, stride)
        return F.avg_pool2d(x, kernel, stride)

    def extra_repr(self) -> str:
        return f"levels={self.levels}, mode={self.mode!r}, rule={self.rule!r}"


def paper_window(side: int, level: int) -> tuple[int, int]:
    """Window and stride in cells of the paper's rule; ConfigError where it misses `level` bins."""
    window, stride = -(-side // level), side // level
    found = (side - window) // stride + 1 if stride else 0
    if found != level:
        raise ConfigError(
            f"the paper's window rule gives {found} bins, not {level}, on a side of {side} cells",
            hint="use the exact rule",
        )
    return window, stride
