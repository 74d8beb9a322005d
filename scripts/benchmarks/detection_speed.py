"""Detection timed, one table per run: every stage of ours, R-CNN mode, torchvision's Faster R-CNN.

    python scripts/benchmarks/detection_speed.py VOCdevkit --models default fast accurate --json
    detect.json

Figures are medians over photos of a VOC split, the model loaded and everything compiled; all
contenders see an image one after the other, so that a busy machine slows all alike. `in all` is a
call of `detect` by itself; the stages are timed in a second pass over the same image, through the
same public pieces. R-CNN mode runs the first model's backbone on every region, in 8-bit integers as
ours does and in floats as R-CNN did, and takes ten seconds to a minute per image: it is timed on a
few, and so is torchvision, whose detectors have random weights (no download) and stand for their
speed only. Expect R-CNN mode to take some 80 times as long as ours. `--map N` then compares the
mAP of both modes on N images, as `scripts/benchmarks/rcnn_map.py` does.
"""

from __future__ import annotations

import sppdet  # isort: skip  # noqa: F401  (before torch, whose threads then wait asleep)

import argparse
import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rcnn_map
import torch
from stage_times import STAGES, stage_seconds
from torchvision.models.detection import (
    fasterrcnn_mobilenet_v3_large_320_fpn,
    fasterrcnn_resnet50_fpn,
)

from sppdet.cli.common import use_threads
from sppdet.cli.terminal.progress import terminal_progress
from sppdet.core.errors import ConfigError, SppdetError
from sppdet.core.files import atomic_write_json
from sppdet.core.images import read_sample
from sppdet.core.jit import warm_up
from sppdet.core.progress import Progress, duration
from sppdet.core.types import ImageArray
from sppdet.core.versions import installed
from sppdet.datasets import load_dataset
from sppdet.detection.detector import Detector
from sppdet.detection.ensemble import Ensemble, load_detector
from sppdet.detection.modes.rcnn import RcnnDetector

# torchvision's detectors, by what the table calls them.
TORCHVISION = {
    "Faster R-CNN ResNet-50 FPN": fasterrcnn_resnet50_fpn,
    "Faster R-CNN MobileNet-320 FPN": fasterrcnn_mobilenet_v3_large_320_fpn,
}
RCNN = "R-CNN mode"
# What both ways of R-CNN mode are expected to take on two cores, for the estimate before.
RCNN_SECONDS = 50.0
PACKAGES = ("sppdet", "torch", "torchvision", "numpy")

Run = Callable[[ImageArray], object]


@dataclasses.dataclass
class Contender:
    """Something that detects, and the seconds that it took: of each image, and of each stage."""

    name: str
    threads: int
    run: Run
    images: int
    detector: Detector | Ensemble | None = None
    seconds: list[float] = dataclasses.field(default_factory=list)
    stages: list[dict[str, float]] = dataclasses.field(default_factory=list)

    def time_image(self, image: ImageArray) -> None:
        """Time one image, if there are more to be timed."""
        if len(self.seconds) >= self.images:
            return
        use_threads(self.threads)
        start = time.perf_counter()
        self.run(image)
        self.seconds.append(time.perf_counter() - start)
        if self.detector is not None:
            self.stages.append(stage_seconds(self.detector, image))

    def stage(self, name: str) -> float | None:
        """Median seconds of a stage; None where no stages are timed."""
        found = [one[name] for one in self.stages if name in one]
        return statistics.median(found) if found else None


def torchvision_run(name: str) -> Run:
    """One of torchvision's detectors, its weights random."""
    torch.manual_seed(0)
    network = TORCHVISION[name](weights=None, weights_backbone=None, num_classes=21).eval()

    def run(image: ImageArray) -> object:
        with torch.inference_mode():
            return network([torch.from_numpy(image).permute(2, 0, 1).float().div_(255)])

    return run


def in_floats(detector: Detector) -> Detector:
    """The same model with every layer computed in floats."""
    config = detector.config
    features = config.features.replace(quantize=False)
    return detector.with_settings(config.replace(features=features))


def contenders(args: argparse.Namespace, progress: Progress) -> list[Contender]:
    """All that take part, in the order of the table: ours, then R-CNN mode, then torchvision."""
    detectors = {name: load_detector(name) for name in args.models}
    found = [
        Contender(name, threads, detector.detect, args.images, detector)
        for name, detector in detectors.items()
        for threads in args.threads
    ]
    most = max(args.threads)
    if args.rcnn_images:
        name = args.models[0]
        ours = detectors[name]
        if isinstance(ours, Ensemble):
            raise ConfigError("R-CNN mode takes one model", hint="name a single one first")
        for detector, label in ((ours, RCNN), (in_floats(ours), f"{RCNN} in floats")):
            rcnn = RcnnDetector(detector, progress=progress)
            found.append(Contender(f"{label}, {name}", most, rcnn.detect, args.rcnn_images))
        expected = duration(args.rcnn_images * RCNN_SECONDS * 2 / most)
        progress.say(f"R-CNN mode on {args.rcnn_images} images: about {expected} on two free cores")
    for name in TORCHVISION if args.torchvision_images else ():
        run = torchvision_run(name)
        for threads in args.threads:
            found.append(Contender(name, threads, run, args.torchvision_images))
    return found


def table(found: Sequence[Contender]) -> str:
    """Format one line per contender: milliseconds per stage, seconds in all, times the first.

    The ratio is taken over the images that both have been timed on, with as many threads.
    """
    width = max(len(one.name) for one in found) + 2
    head = f"{'':{width}}{'threads':>8}{'images':>8}"
    lines = [head + "".join(f"{stage:>14}" for stage in STAGES) + f"{'in all (s)':>12}{'times':>9}"]
    for one in found:
        cells = [f"{one.name:{width}}{one.threads:8}{len(one.seconds):8}"]
        for stage in STAGES:
            value = one.stage(stage)
            cells.append(" " * 14 if value is None else f"{value * 1e3:11.1f} ms")
        cells.append(f"{statistics.median(one.seconds):12.3f}{ratio(one, found):9.2f}")
        lines.append("".join(cells))
    return "\n".join(lines)


def ratio(one: Contender, found: Sequence[Contender]) -> float:
    """Median of its time over that of the first model with as many threads."""
    base = next(other for other in found if other.threads == one.threads)
    return statistics.median(a / b for a, b in zip(one.seconds, base.seconds, strict=False))


def rows(found: Sequence[Contender]) -> list[dict[str, Any]]:
    """The table for programs, with the seconds of every image."""
    return [
        {
            "name": one.name,
            "threads": one.threads,
            "images": len(one.seconds),
            "median_seconds": statistics.median(one.seconds),
            "times_first_model": ratio(one, found),
            "seconds": one.seconds,
            "stages": {stage: one.stage(stage) for stage in STAGES if one.stages},
        }
        for one in found
    ]


def run(args: argparse.Namespace) -> None:
    """Time everything, print the table and write it."""
    progress = terminal_progress()
    dataset = load_dataset(args.root, args.split, year=args.year, max_lost=0.0)
    count = max(args.images, args.rcnn_images, args.torchvision_images)
    chosen = np.unique(np.linspace(0, len(dataset) - 1, count).astype(int))
    warm_up()
    found = contenders(args, progress)
    first = read_sample(dataset.samples[0])
    for one in found:
        if not one.name.startswith(RCNN):
            use_threads(one.threads)
            one.run(first)
    with progress.task("images", len(chosen)) as advance:
        for index in chosen:
            image = read_sample(dataset.samples[index])
            for one in found:
                one.time_image(image)
            advance(1)
    print(f"\n{dataset.name}, {len(chosen)} images; load average {os.getloadavg()[0]:.1f}")
    print(table(found))
    print(
        "torchvision's weights are random: for speed only. Times: of the first model, same images"
    )
    report: dict[str, Any] = {
        "dataset": dataset.name,
        "images": [dataset.samples[index].image_id for index in chosen],
        "contenders": rows(found),
        "versions": {name: installed(name) for name in PACKAGES},
        "load_average": os.getloadavg()[0],
    }
    if args.map:
        use_threads(max(args.threads))
        samples = dataset.samples[: args.map]
        some = dataclasses.replace(
            dataset, name=f"{dataset.name}, first {args.map}", samples=samples
        )
        limit = args.map_proposals
        report["map"] = rcnn_map.compare(args.models[0], some, limit, args.map_run, progress)
    if args.json is not None:
        atomic_write_json(args.json, report)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("root", type=Path, help="a VOC folder or devkit")
    parser.add_argument("--split", default="val")
    parser.add_argument("--year", type=int, default=None)
    parser.add_argument("--models", nargs="+", default=["default"], help="names or paths")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--images", type=int, default=20, help="evenly spaced in the split")
    parser.add_argument("--rcnn-images", type=int, default=2, help="0 leaves R-CNN mode out")
    parser.add_argument("--torchvision-images", type=int, default=5, help="0 leaves them out")
    parser.add_argument("--map", type=int, default=0, metavar="N", help="compare mAP on N images")
    rcnn_map.add_options(parser, "--map-")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    args = parser.parse_args()
    if min(args.images, *args.threads) < 1 or min(args.rcnn_images, args.torchvision_images) < 0:
        parser.error("there must be an image and a thread")
    try:
        run(args)
    except SppdetError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
