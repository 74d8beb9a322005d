"""Proposal engines side by side on a VOC split: time, number of boxes, recall, ABO and MABO.

    python scripts/benchmarks/proposals.py VOCdevkit --split val --images 500

Every engine sees every image right after the others did, so that a busy machine slows all alike.
OpenCV's boxes are all kept, and are in the order that our seam gives them, which is far better
than OpenCV's own. Any other source takes part with `--source package.module:name`: a function of
the image.
Expect about 2 s per image with opencv-fast, and 6 s more with opencv-quality.

A second table tells how the first engine's time grows with the size of the image: a few photos of
the split, enlarged to so many megapixels.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sppdet.core.errors import SppdetError
from sppdet.core.files import atomic_write_json
from sppdet.core.images import read_sample
from sppdet.core.jit import warm_up
from sppdet.core.types import Dataset, FloatArray, ImageArray, Sample
from sppdet.datasets import load_dataset
from sppdet.evaluation.proposal_recall import best_overlaps
from sppdet.proposals import ENGINES, ProposalConfig, make_proposer

LIMITS = (0, 2000, 1000, 500, 100)
METRICS = ("recall .5", "recall .7", "ABO", "MABO")
REFERENCE = "opencv-fast"
# What an engine is held against where it took part; every other against `REFERENCE`.
OWN_REFERENCE = {"selective-search-quality": "opencv-quality"}
DRAWS = 2000

Floats = NDArray[np.float64]
Source = Callable[[ImageArray], FloatArray]


class Tally:
    """Figures of one engine: seconds and boxes of each image, and sums of its objects' overlaps.

    `sums[limit]` is (images, classes, 4): objects, those reached at IoU 0.5 and at 0.7, best IoU.
    """

    def __init__(self, images: int, classes: int) -> None:
        self.seconds: Floats = np.zeros(images)
        self.boxes: Floats = np.zeros(images)
        self.sums = {limit: np.zeros((images, classes, 4)) for limit in LIMITS}

    def add(self, index: int, sample: Sample, boxes: FloatArray, seconds: float) -> None:
        """Count the proposals of image number `index`; difficult objects do not count."""
        self.seconds[index], self.boxes[index] = seconds, len(boxes)
        counted = ~sample.difficult
        for limit, sums in self.sums.items():
            best = best_overlaps(sample, boxes, limit=limit or None)[counted]
            for label, iou in zip(sample.labels[counted], best, strict=True):
                sums[index, label] += (1, iou >= np.float32(0.5), iou >= np.float32(0.7), iou)


def measures(sums: Floats, weights: Floats) -> Floats:
    """`(draws, 4)`: the four METRICS when image i counts `weights[draw, i]` times."""
    total = np.einsum("di,ick->dck", weights, sums)
    objects = np.maximum(total[..., 0].sum(axis=1), 1)
    overall = total[..., 1:].sum(axis=1) / objects[:, None]
    present = total[..., 0] > 0
    mean = total[..., 3] / np.where(present, total[..., 0], 1)
    mabo = mean.sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    return np.column_stack([overall, mabo])


def run(dataset: Dataset, sources: dict[str, Source]) -> dict[str, Tally]:
    """Time every source on every image, and measure what its boxes reach."""
    cv2.setNumThreads(1)
    tallies = {name: Tally(len(dataset), len(dataset.classes)) for name in sources}
    for index, sample in enumerate(dataset):
        image = read_sample(sample)
        for name, source in sources.items():
            seconds, boxes = timed(source, image)
            tallies[name].add(index, sample, boxes, seconds)
        if (index + 1) % 25 == 0:
            print(f"{index + 1} of {len(dataset)} images", flush=True)
    return tallies


# Photos of the second table, each timed three times.
GROWTH_IMAGES = 10


def timed(source: Source, image: ImageArray) -> tuple[float, FloatArray]:
    """Seconds of wall time, and the boxes."""
    start = time.perf_counter()
    boxes = source(image)
    return time.perf_counter() - start, boxes


def report(tallies: dict[str, Tally], seed: int) -> list[dict[str, Any]]:
    """One row an engine and limit: figures, and intervals of the difference to its reference."""
    images = len(next(iter(tallies.values())).seconds)
    draw = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), DRAWS)
    once, weights = np.ones((1, images)), draw.astype(np.float64)
    rows = []
    for name, tally in tallies.items():
        against = OWN_REFERENCE.get(name, REFERENCE)
        against = against if against in tallies else REFERENCE
        reference = tallies.get(against)
        for limit in LIMITS:
            row: dict[str, Any] = {"engine": name, "limit": limit or "all"}
            row["ms"] = float(np.median(tally.seconds) * 1e3)
            row["boxes"] = float(np.minimum(tally.boxes, limit or np.inf).mean())
            row |= dict(zip(METRICS, measures(tally.sums[limit], once)[0].tolist(), strict=True))
            if reference is not None and reference is not tally:
                row["against"] = against
                row["times faster"] = float(np.median(reference.seconds / tally.seconds))
                gain = measures(tally.sums[limit], weights) - measures(
                    reference.sums[limit], weights
                )
                low, high = np.percentile(gain, [2.5, 97.5], axis=0)
                row["gain"] = {m: [low[i], high[i]] for i, m in enumerate(METRICS)}
            rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text; in brackets the 95 % interval of the gain over `against`, in points."""
    lines = [
        f"{'engine':26}{'first':>6}{'ms':>8}{'faster':>8} {'than':16}{'boxes':>7}"
        + "".join(f"{m:>24}" for m in METRICS)
    ]
    for row in rows:
        cells = [f"{row['engine']:26}{row['limit']:>6}{row['ms']:8.1f}"]
        cells.append(
            f"{row['times faster']:7.0f}x {row['against']:16}" if "against" in row else " " * 25
        )
        cells.append(f"{row['boxes']:7.0f}")
        for metric in METRICS:
            gain = ""
            if "gain" in row:
                low, high = (100 * v for v in row["gain"][metric])
                gain = f" [{low:+.1f}, {high:+.1f}]"
            cells.append(f"{row[metric]:.3f}{gain}".rjust(24))
        lines.append("".join(cells))
    return "\n".join(lines)


def growth(source: Source, samples: Sequence[Sample], sizes: Sequence[float]) -> dict[str, float]:
    """Median seconds by megapixels, the photos' own size first, under the name `own`."""
    found = {}
    cv2.setNumThreads(1)
    for name in ("own", *map(str, sizes)):
        times = []
        for sample in samples:
            image = read_sample(sample)
            if name != "own":
                factor = (float(name) * 1e6 / (image.shape[0] * image.shape[1])) ** 0.5
                image = np.asarray(cv2.resize(image, None, fx=factor, fy=factor), np.uint8)
            times.append(min(timed(source, image)[0] for _ in range(3)))
        found[name] = float(np.median(times))
    return found


def growth_table(grown: dict[str, float]) -> str:
    """Milliseconds by megapixels, and how many times those of the photos as they are."""
    lines = []
    for size, seconds in grown.items():
        label = "as it is" if size == "own" else f"{size} Mpx"
        lines.append(f"{label:>10}{seconds * 1e3:9.1f} ms{seconds / grown['own']:8.2f}x")
    return "\n".join(lines)


def load_source(where: str) -> Source:
    """The callable that `package.module:name` names."""
    module, _, name = where.partition(":")
    found: Source = getattr(importlib.import_module(module), name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("root", type=Path, help="a VOC folder or devkit")
    parser.add_argument("--split", default="val")
    parser.add_argument("--year", type=int, default=None)
    parser.add_argument("--images", type=int, default=500, help="the first so many; 0 for all")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES[:3]))
    parser.add_argument("--source", nargs="*", default=[], metavar="MODULE:NAME")
    parser.add_argument(
        "--megapixels", type=float, nargs="*", default=[1.0, 5.0, 20.0], help="of the second table"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the intervals' resampling")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    args = parser.parse_args()

    dataset = load_dataset(args.root, args.split, year=args.year, max_lost=0.0)
    dataset = dataclasses.replace(dataset, samples=dataset.samples[: args.images or None])
    warm_up()
    configs = {name: ProposalConfig(engine=name, max_proposals=0) for name in args.engines}
    sources: dict[str, Source] = {name: make_proposer(c) for name, c in configs.items()}
    sources |= {where: load_source(where) for where in args.source}
    rows = report(run(dataset, sources), args.seed)
    objects = sum(int((~s.difficult).sum()) for s in dataset)
    print(f"{dataset.name}, {len(dataset)} images, {objects} objects, difficult ones left out")
    print(table(rows))
    first, source = next(iter(sources.items()))
    grown = growth(source, dataset.samples[:GROWTH_IMAGES], args.megapixels)
    print(f"\n{first}, one core, median over {GROWTH_IMAGES} photos, decoding aside")
    print(growth_table(grown))
    if args.json is not None:
        atomic_write_json(args.json, {"engines": rows, "growth": grown})


if __name__ == "__main__":
    try:
        main()
    except SppdetError as error:
        raise SystemExit(str(error)) from None
