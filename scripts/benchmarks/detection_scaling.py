"""Growth of the time of a detection with proposals, classes and image size.

    python scripts/benchmarks/detection_scaling.py VOCdevkit --images 5 --json growth.json

One quantity grows at a time, on the same photos, with the model's own settings for the rest:

- proposals: the image's own, best first; beyond what selective search gives, jittered copies of
  them (shifted and stretched by up to a tenth of their sides);
- classes: the model's SVMs, regressors and last layers over and over, copies of SVMs with noise
  of a tenth of their deviation, so that about as many regions per class pass the threshold as in
  truth;
- image size: the photo enlarged or shrunk. Only the resize to the network's input grows with it,
  and reading the file, which is timed beside it from a JPEG of that size.

Figures are medians over the photos, the model loaded. Expect growth below proportional in
all three.
"""

from __future__ import annotations

import sppdet  # isort: skip  # noqa: F401  (before torch, whose threads then wait asleep)

import argparse
import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from sppdet.cli.common import use_threads
from sppdet.cli.terminal.progress import terminal_progress
from sppdet.core import boxes as geometry
from sppdet.core.errors import SppdetError
from sppdet.core.files import atomic_write_json
from sppdet.core.images import read_image, read_sample
from sppdet.core.jit import warm_up
from sppdet.core.progress import Progress
from sppdet.core.settings import to_dict
from sppdet.core.types import FloatArray, ImageArray, IntArray
from sppdet.datasets import load_dataset
from sppdet.detection.detector import Detector
from sppdet.heads.box_regression import BoxRegressors
from sppdet.heads.image_context import ContextClassifier
from sppdet.heads.svm import LinearSvms

PROPOSALS = (250, 500, 1000, 2000, 4000)
CLASSES = (20, 50, 100, 200)
MEGAPIXELS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
JITTER = 0.1
NOISE = 0.1

Row = dict[str, float]


def timed(run: Callable[[], object]) -> float:
    """Seconds of wall time, after one run to warm up."""
    run()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def regions(own: FloatArray, count: int, image: ImageArray, seed: int) -> FloatArray:
    """`float32 (count, 4)`: the image's own proposals, then jittered copies of them."""
    rng = np.random.default_rng(seed)
    height, width = image.shape[:2]
    parts = [own[:count]]
    while sum(map(len, parts)) < count:
        sides = own[:, 2:] - own[:, :2]
        moves = rng.uniform(-JITTER, JITTER, own.shape) * np.tile(sides, 2)
        moved = geometry.clip((own + moves).astype(np.float32), width, height)
        parts.append(moved[: count - sum(map(len, parts))])
    return np.concatenate(parts)


def with_classes(detector: Detector, count: int, seed: int) -> Detector:
    """The detector with `count` classes, made of its own."""
    rng = np.random.default_rng(seed)
    own = len(detector.classes)
    which = np.arange(count) % own
    copies = which != np.arange(count)

    def noisy(values: FloatArray) -> FloatArray:
        taken = values[which].copy()
        spread = NOISE * float(values.std())
        taken[copies] += rng.normal(0, spread, taken[copies].shape).astype(np.float32)
        return taken

    svms, regressors = detector.svms, detector.regressors
    # The softmax spreads over all classes: what a score loses by that is given back.
    share = detector.config.detection.softmax_weight * np.log(count / own)
    bias = (svms.bias[which] + share).astype(np.float32)
    many = LinearSvms(noisy(svms.weights), bias, svms.trained[which], svms.converged[which])
    moves = None
    if regressors is not None:
        weights = regressors.weights[which]
        moves = BoxRegressors(weights, regressors.bias[which], regressors.trained[which])
    context = detector.context
    if context is not None:
        parts = (context.weights[which], context.bias[which], context.trained[which])
        context = ContextClassifier(*parts)
    head = copy.deepcopy(detector.head)
    head.cls_score = repeated(head.cls_score, np.concatenate([[0], 1 + which]))
    head.bbox_pred = repeated(head.bbox_pred, (4 * which[:, None] + np.arange(4)).ravel())
    names = tuple(f"{detector.classes[k]} {i // own}" for i, k in enumerate(which))
    return Detector(names, detector.config, detector.extractor, head, many, moves, context)


def repeated(layer: torch.nn.Linear, rows: IntArray) -> torch.nn.Linear:
    """A layer of some of the outputs of another, in that order."""
    made = torch.nn.Linear(layer.in_features, len(rows))
    made.weight.data, made.bias.data = layer.weight.data[rows], layer.bias.data[rows]
    return made.requires_grad_(False)


def grow_proposals(
    detector: Detector, images: Sequence[ImageArray], progress: Progress
) -> list[Row]:
    """Seconds against the number of regions; proposing them is in it, and does not grow."""
    rows = []
    with progress.task("proposals", len(PROPOSALS)) as advance:
        for count in PROPOSALS:
            seconds = []
            for image in images:
                chosen = regions(detector.propose(image), count, image, seed=0)

                def run(image: ImageArray = image, chosen: FloatArray = chosen) -> object:
                    detector.propose(image)
                    return detector.detect_regions(detector.extract(image), chosen)

                seconds.append(timed(run))
            rows.append({"proposals": count, "seconds": statistics.median(seconds)})
            advance(1)
    return rows


def grow_classes(detector: Detector, images: Sequence[ImageArray], progress: Progress) -> list[Row]:
    """Seconds against the number of classes."""
    rows = []
    with progress.task("classes", len(CLASSES)) as advance:
        for count in CLASSES:
            many = with_classes(detector, count, seed=0)
            seconds = [timed(partial(many.detect, image)) for image in images]
            rows.append({"classes": count, "seconds": statistics.median(seconds)})
            advance(1)
    return rows


def grow_size(detector: Detector, images: Sequence[ImageArray], progress: Progress) -> list[Row]:
    """Seconds against the image's size: of detecting, and of reading it from a JPEG."""
    rows = []
    with (
        progress.task("sizes", len(MEGAPIXELS)) as advance,
        tempfile.TemporaryDirectory() as folder,
    ):
        path = Path(folder) / "image.jpg"
        for megapixels in MEGAPIXELS:
            detecting, reading = [], []
            for image in images:
                factor = (megapixels * 1e6 / (image.shape[0] * image.shape[1])) ** 0.5
                size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
                sized = np.asarray(cv2.resize(image, size), np.uint8)
                Image.fromarray(sized).save(path, quality=92)
                detecting.append(timed(partial(detector.detect, sized)))
                reading.append(timed(partial(read_image, path)))
            row = {"megapixels": megapixels, "seconds": statistics.median(detecting)}
            rows.append({**row, "reading": statistics.median(reading)})
            advance(1)
    return rows


def table(rows: Sequence[Row]) -> str:
    """One line a row, and its seconds in units of the first row's."""
    names = list(rows[0])
    lines = ["".join(f"{name:>12}" for name in [*names, "times first"])]
    for row in rows:
        cells = [f"{row[names[0]]:12g}", *(f"{row[name]:12.3f}" for name in names[1:])]
        lines.append("".join([*cells, f"{row['seconds'] / rows[0]['seconds']:12.2f}"]))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("root", type=Path, help="a VOC folder or devkit")
    parser.add_argument("--split", default="val")
    parser.add_argument("--year", type=int, default=None)
    parser.add_argument("--model", default="default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=5, help="the first so many of the split")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    args = parser.parse_args()
    progress = terminal_progress()
    try:
        dataset = load_dataset(args.root, args.split, year=args.year, max_lost=0.0)
        images = [read_sample(sample) for sample in dataset.samples[: max(1, args.images)]]
        use_threads(args.threads)
        warm_up()
        detector = Detector.load(args.model)
        settings = to_dict(detector.config.proposals)
        tables = {
            name: grow(detector, images, progress)
            for name, grow in (
                ("proposals", grow_proposals),
                ("classes", grow_classes),
                ("image size", grow_size),
            )
        }
    except SppdetError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"\n{args.model} on {len(images)} images of {dataset.name}, {args.threads} threads")
    for name, rows in tables.items():
        print(f"\n{name}\n{table(rows)}")
    if args.json is not None:
        report: dict[str, Any] = {"model": args.model, "threads": args.threads, **tables}
        atomic_write_json(args.json, {**report, "images": len(images), "settings": settings})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
