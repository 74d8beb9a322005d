"""Time region pooling: ours, torchvision's `roi_pool` a level, and a loop over the regions.

    python scripts/benchmarks/spp_pooling.py --threads 1 2 --json spp.json

One table; all three are checked to give the same bits in the same run, with every number of
threads, and take turns, so that a busy machine slows all alike. `roi_pool` is called once a level
of the pyramid. Expect it to take at least 8 times as long as ours on two threads.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sppdet.core.files import atomic_write_json
from sppdet.core.parallel import keep_freed_memory
from sppdet.core.types import IntArray
from sppdet.spp.roi_pooling import PAPER_LEVELS, spatial_pyramid_pool
from sppdet.spp.torch_ops import pool_max_by_torch

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
    """torchvision's pooling, called once a level."""
    return pool_max_by_torch(feature_map, windows, PAPER_LEVELS)


def pool_by_loop(feature_map: Tensor, windows: IntArray) -> Tensor:
    """`adaptive_max_pool2d` of every region and level in turn."""
    rows = []
    for x1, y1, x2, y2 in windows.tolist():
        region = feature_map[:, y1:y2, x1:x2]
        rows.append(torch.cat([F.adaptive_max_pool2d(region, n).flatten() for n in PAPER_LEVELS]))
    return torch.stack(rows)


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Tell whether two float32 tensors are the same, signs of zeros included."""
    return a.shape == b.shape and torch.equal(a.view(torch.int32), b.view(torch.int32))


def measure(runs: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, list[float]]:
    """Wall-clock seconds of each, in turns, after one to warm up that must give equal bits."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    results = [run() for run in runs.values()]
    for name, result in zip(runs, results, strict=True):
        if not same_bits(result, results[0]):
            raise SystemExit(f"{name} differs from {next(iter(runs))}")
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            found[name].append(time.perf_counter() - start)
    return found


def rows(found: dict[str, list[float]], threads: int) -> list[dict[str, Any]]:
    """Least and median milliseconds, and how many times the median of the first."""
    base = statistics.median(next(iter(found.values())))
    return [
        {
            "name": name,
            "threads": threads,
            "least_ms": min(times) * 1e3,
            "median_ms": statistics.median(times) * 1e3,
            "times_ours": statistics.median(times) / base,
        }
        for name, times in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--regions", type=int, default=2000)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--height", type=int, default=38)
    parser.add_argument("--width", type=int, default=50)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    args = parser.parse_args()
    keep_freed_memory()

    generator = torch.Generator().manual_seed(args.seed)
    cells = torch.randn(args.height, args.width, args.channels, generator=generator)
    # Each gets the memory layout that suits it.
    ours_map = cells.permute(2, 0, 1)
    their_map = ours_map.contiguous()
    windows = random_windows(args.regions, args.height, args.width, args.seed)
    runs: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: spatial_pyramid_pool(ours_map, windows),
        "roi_pool a level": lambda: pool_by_roi_pool(their_map, windows),
        "loop of adaptive_max_pool2d": lambda: pool_by_loop(their_map, windows),
    }
    table = []
    for threads in args.threads:
        torch.set_num_threads(threads)
        table += rows(measure(runs, args.repeats), threads)
    area = float((windows[:, 2:] - windows[:, :2]).prod(axis=1).mean())
    print(
        f"{args.regions} regions of {area:.0f} cells on average, map {args.channels} x "
        f"{args.height} x {args.width}, levels {PAPER_LEVELS}; all equal, bit for bit"
    )
    print(f"{'':30}{'threads':>8}{'least ms':>10}{'median ms':>11}{'x ours':>8}")
    for row in table:
        times = f"{row['least_ms']:10.1f}{row['median_ms']:11.1f}{row['times_ours']:8.1f}"
        print(f"{row['name']:30}{row['threads']:8}{times}")
    if args.json is not None:
        atomic_write_json(args.json, {"settings": {**vars(args), "json": None}, "rows": table})


if __name__ == "__main__":
    main()
