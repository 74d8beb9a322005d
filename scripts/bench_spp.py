"""Time region pooling: ours, torchvision's `roi_pool` a level, and a loop over the regions.

One table; the three are checked to agree bit for bit in the same run. Expect `roi_pool` to take at
least 8 times as long as ours.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_pool

from sppdet.backbones.allocator import keep_freed_memory
from sppdet.spp import PAPER_LEVELS, spatial_pyramid_pool
from sppdet.types import IntArray

# The release drops proposals below 20 pixels: two cells at a short side of 600 and stride 16.
LEAST_CELLS = 2


def random_windows(count: int, height: int, width: int, seed: int) -> IntArray:
    """`int64 (count, 4)` windows whose sides are spread evenly on a log scale, as objects' are."""
    rng = np.random.default_rng(seed)
    limit = np.array([width, height])
    sides = np.exp(rng.uniform(np.log(LEAST_CELLS), np.log(limit + 1), (count, 2))).astype(np.int64)
    sides = np.clip(sides, LEAST_CELLS, limit)
    first = np.floor(rng.uniform(size=(count, 2)) * (limit - sides + 1)).astype(np.int64)
    return np.concatenate([first, first + sides], axis=1)


def pool_by_roi_pool(feature_map: Tensor, windows: IntArray) -> Tensor:
    """torchvision's pooling, called once a level; its boxes end at the last cell, inclusive."""
    rois = torch.zeros(len(windows), 5)
    rois[:, 1:] = torch.from_numpy(windows - [0, 0, 1, 1])
    return torch.cat([roi_pool(feature_map[None], rois, n).flatten(1) for n in PAPER_LEVELS], dim=1)


def pool_by_loop(feature_map: Tensor, windows: IntArray) -> Tensor:
    """`adaptive_max_pool2d` of every region and level in turn."""
    rows = []
    for x1, y1, x2, y2 in windows.tolist():
        region = feature_map[:, y1:y2, x1:x2]
        rows.append(torch.cat([F.adaptive_max_pool2d(region, n).flatten() for n in PAPER_LEVELS]))
    return torch.stack(rows)


def seconds(run: Callable[[], Tensor], repeats: int) -> tuple[float, float]:
    """Least and median wall-clock seconds after one run to warm up."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times), statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--regions", type=int, default=2000)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--height", type=int, default=38)
    parser.add_argument("--width", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()

    generator = torch.Generator().manual_seed(args.seed)
    cells = torch.randn(args.height, args.width, args.channels, generator=generator)
    ours_map = cells.permute(2, 0, 1)
    their_map = ours_map.contiguous()
    windows = random_windows(args.regions, args.height, args.width, args.seed)
    runs: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: spatial_pyramid_pool(ours_map, windows),
        "roi_pool a level": lambda: pool_by_roi_pool(their_map, windows),
        "loop of adaptive_max_pool2d": lambda: pool_by_loop(their_map, windows),
    }
    ours = runs["ours"]()
    for name, run in runs.items():
        if not torch.equal(run(), ours):
            raise SystemExit(f"{name} differs from ours")
    area = (windows[:, 2:] - windows[:, :2]).prod(axis=1).mean()
    print(
        f"{args.regions} regions of {area:.0f} cells on average, map {args.channels} x "
        f"{args.height} x {args.width}, levels {PAPER_LEVELS}, {args.threads} threads; all equal"
    )
    print(f"{'':30}{'least ms':>10}{'median ms':>11}{'x ours':>8}")
    base = 0.0
    for name, run in runs.items():
        least, median = seconds(run, args.repeats)
        base = base or median
        print(f"{name:30}{least * 1e3:10.1f}{median * 1e3:11.1f}{median / base:8.1f}")


if __name__ == "__main__":
    main()
