"""Spatial pyramid pooling: a fixed-length vector from a map, or from any region of it.

A level `n` cuts a region of `h` x `w` cells into `n` x `n` bins; bin `i` covers rows
`floor(i h / n)` up to, not including, `ceil((i + 1) h / n)`, and columns likewise (He et al. 2014,
appendix A, and the authors' code). Bins are never empty, and neighbors share at most one row.
Output order: the levels as given, inside a level channel, then row, then column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sppdet.core.errors import SppdetError
from sppdet.core.jit import register_warm_up
from sppdet.core.parallel import parallel_for
from sppdet.core.types import FloatingArray, IntArray
from sppdet.spp.kernels import (
    fill_integral,
    fill_tile_maxima,
    pool_max,
    pool_mean,
    scatter_max,
    scatter_mean,
)
from sppdet.spp.torch_ops import pool_max_by_torch, pool_mean_by_torch

Mode = Literal["max", "mean"]
PAPER_LEVELS = (6, 3, 2, 1)

# Tiles of up to 4 x 4 cells: larger ones cost more to prepare than they save.
TILE_STEPS = 3
# Tiles pay when the windows hold together this many times the cells of the map.
TILE_PAYOFF = 8


def pyramid_bins(levels: Sequence[int]) -> int:
    """Count the bins of a pyramid; ValueError unless levels are positive and distinct."""
    if not levels or min(levels) < 1 or len(set(levels)) != len(levels):
        raise ValueError(f"pyramid levels must be positive and distinct, got {tuple(levels)}")
    return sum(level * level for level in levels)


def spatial_pyramid_pool(
    feature_map: Tensor,
    windows: IntArray,
    levels: Sequence[int] = PAPER_LEVELS,
    mode: Mode = "max",
) -> Tensor:
    """Pool `N` windows of one map to vectors `(N, C * bins)` in the map's dtype.

    Args:
        feature_map: `(C, h, w)`, float32 or float64; fastest in channels-last memory, as the
            backbones give it. On another device torch's and torchvision's operations pool it.
        windows: `int64 (N, 4)`, half-open cells `x1 y1 x2 y2`, as `project_boxes` gives them.
        levels: the pyramid. A level that divides another costs next to nothing with `max`.
        mode: `max`, starting from minus infinity (maps may be signed), or `mean`.

    Invariant: row `i` equals `adaptive_max_pool2d` of window `i` alone, bit for bit, at every
    level; with `mean`, `adaptive_avg_pool2d` up to rounding (sums are float64). Gradients flow to
    the map; that of a maximum goes to its first cell in reading order.

    Raises ValueError for windows that are empty or leave the map, SppdetError for a map with NaN.
    """
    bins = pyramid_bins(levels)
    channels, height, width = feature_map.shape
    windows = _checked_windows(windows, height, width)
    # The largest of values is not a number if one of them is not: one pass, and no map of flags.
    if feature_map.numel() and torch.isnan(feature_map.detach().amax()):
        raise SppdetError(
            "the feature map has values that are not numbers",
            hint="check the backbone's weights and the learning rate",
        )
    if len(windows) == 0:
        return feature_map.sum() * feature_map.new_zeros((0, channels * bins))
    if feature_map.device.type != "cpu":
        pool = pool_max_by_torch if mode == "max" else pool_mean_by_torch
        return pool(feature_map, windows, levels)
    if feature_map.requires_grad and torch.is_grad_enabled():
        pooled: Tensor = _RegionPool.apply(feature_map, windows, tuple(levels), mode)
        return pooled
    return _pool(feature_map, windows, levels, mode)


@register_warm_up
def _warm_up() -> None:
    """Pool and take a gradient: a gradient's code on one thread is not the one on several."""
    windows = np.array([[0, 0, 3, 2], [1, 0, 3, 3]], np.int64)
    modes: tuple[Mode, ...] = ("max", "mean")
    with torch.inference_mode(False), torch.enable_grad():
        for mode in modes:
            cells = torch.zeros(3, 3, 2).permute(2, 0, 1).requires_grad_(True)
            pooled = spatial_pyramid_pool(cells, windows, (2, 1), mode)
            pooled.sum().backward()  # type: ignore[no-untyped-call]


class _RegionPool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, feature_map: Tensor, windows: IntArray, levels: tuple[int, ...], mode: Mode
    ) -> Tensor:
        ctx.save_for_backward(feature_map)
        ctx.windows, ctx.levels, ctx.mode = windows, levels, mode
        return _pool(feature_map, windows, levels, mode)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (feature_map,) = ctx.saved_tensors
        return _unpool(grad, feature_map, ctx.windows, ctx.levels, ctx.mode), None, None, None


def _pool(feature_map: Tensor, windows: IntArray, levels: Sequence[int], mode: Mode) -> Tensor:
    cells = _channels_last(feature_map)
    height, width, channels = cells.shape
    out = torch.empty((len(windows), channels * pyramid_bins(levels)), dtype=feature_map.dtype)
    rows = out.numpy()
    plan, sources = _plan(levels)
    if mode == "max":
        sides = windows[:, 2:] - windows[:, :2]
        steps = TILE_STEPS if sides.prod(axis=1).sum() > TILE_PAYOFF * height * width else 1
        tables = np.empty((steps, steps, height, width, channels), cells.dtype)
        tables[0, 0] = cells
        fill_tile_maxima(tables)

        def pool(part: slice) -> None:
            pool_max(tables, windows[part], plan, sources, rows[part])
    else:
        integral = np.empty((height + 1, width + 1, channels))
        fill_integral(cells, integral)

        def pool(part: slice) -> None:
            pool_mean(integral, windows[part], plan, rows[part])

    parallel_for(len(windows), pool, out.numel())
    return out


def _unpool(
    grad: Tensor, feature_map: Tensor, windows: IntArray, levels: Sequence[int], mode: Mode
) -> Tensor:
    """`(C, h, w)`: the gradient of the map from that of the pooled vectors."""
    cells = _channels_last(feature_map)
    channels = cells.shape[2]
    plan, _ = _plan(levels)
    parts = torch.split(grad.detach(), [channels * n * n for n in levels], dim=1)
    by_bin = [part.reshape(len(part), channels, -1).transpose(1, 2) for part in parts]
    grads = torch.cat(by_bin, dim=1).numpy()
    out = np.zeros_like(cells)

    def scatter(part: slice) -> None:
        if mode == "max":
            scatter_max(grads[:, :, part], cells[:, :, part], windows, plan, out[:, :, part])
        else:
            scatter_mean(grads[:, :, part], windows, plan, out[:, :, part])

    parallel_for(channels, scatter, grads.size)
    return torch.from_numpy(out).permute(2, 0, 1)


def _plan(levels: Sequence[int]) -> tuple[IntArray, IntArray]:
    """Levels from fine to coarse with the bins before each, and what each is merged from.

    The bins of a level are unions of those of its multiples: `floor(i h / n)` equals
    `floor(k i h / (k n))`, and so with the ceilings. The nearest multiple is the cheapest.
    """
    before = np.cumsum([0, *(n * n for n in levels)])
    order = sorted(range(len(levels)), key=lambda k: -levels[k])
    plan = np.array([(levels[k], before[k]) for k in order], np.int64)
    fine = [levels[k] for k in order]
    sources = [
        max((j for j in range(k) if fine[j] % n == 0), default=-1) for k, n in enumerate(fine)
    ]
    return plan, np.array(sources, np.int64)


def _channels_last(feature_map: Tensor) -> FloatingArray:
    """`(h, w, C)` contiguous values; no copy where the memory is so already."""
    cells: FloatingArray = feature_map.detach().permute(1, 2, 0).contiguous().numpy()
    return cells


def _checked_windows(windows: IntArray, height: int, width: int) -> IntArray:
    windows = np.ascontiguousarray(windows, np.int64).reshape(-1, 4)
    inside = (windows[:, :2] >= 0).all(axis=1) & (windows[:, 2:] <= (width, height)).all(axis=1)
    bad = np.flatnonzero(~inside | (windows[:, 2:] <= windows[:, :2]).any(axis=1))
    if bad.size:
        raise ValueError(
            f"window {bad[0]}, {windows[bad[0]].tolist()}, is empty or leaves the map of "
            f"{width} x {height} cells"
        )
    return windows
