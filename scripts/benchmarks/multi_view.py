"""Views of an image: the time that maps save over crops, and how often each kind is right.

The first table times 10 and 96 views, pooled from one map a scale against run crop by crop. The
second, given a model, tells accuracy and time of every kind of view on a folder for each class,
and how well 10 views of maps agree with 10 crops (the paper: within 0.1 % of top-5 error).

    python scripts/benchmarks/multi_view.py photos/ --backbone zf5
    python scripts/benchmarks/multi_view.py data/crops --split val --model
    runs/crops/model.safetensors
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sppdet.classification.classifier import Classifier
from sppdet.classification.config import NetworkConfig
from sppdet.classification.multi_view import (
    PAPER_SCALES,
    VIEW_SETS,
    ViewSet,
    crop_views,
    predict,
    scale_to_side,
    view_boxes,
    view_logits,
    with_flip,
)
from sppdet.classification.network import ClassificationNetwork
from sppdet.classification.transforms import to_input
from sppdet.cli.terminal.progress import terminal_progress
from sppdet.core.errors import SppdetError
from sppdet.core.files import atomic_write_json
from sppdet.core.images import read_image
from sppdet.core.types import FloatArray, ImageArray
from sppdet.datasets import LabeledImages, load_class_folders
from sppdet.evaluation.accuracy import evaluate_accuracy
from sppdet.media.sources import find_images

# Stands for the classes of a network that is timed only; ImageNet has as many.
TIMED_CLASSES = tuple(f"class {k}" for k in range(1000))
BATCH = 18


def multi_crop_logits(network: ClassificationNetwork, image: ImageArray) -> Tensor:
    """`float32 (96, K)`: the paper's views of six scales, each cut out and run on its own."""
    found = []
    for scale in PAPER_SCALES:
        x = to_input(network.backbone, image, scale_to_side(scale, network.input_side))
        boxes = view_boxes(x.shape[3], x.shape[2], network.input_side).astype(np.int64)
        cut = torch.cat([crop_views(each, boxes) for each in with_flip(x)])
        found += [network.forward(part) for part in torch.split(cut, BATCH)]
    return torch.cat(found)


def milliseconds(run: Callable[[ImageArray], Tensor], images: Sequence[ImageArray]) -> float:
    """The median over the images, each run once, after one run to warm up."""
    run(images[0])
    times = []
    for image in images:
        start = time.perf_counter()
        run(image)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def time_views(network: ClassificationNetwork, images: Sequence[ImageArray]) -> dict[str, object]:
    """Print the first table; return the same as a dict."""
    rows: dict[str, tuple[Callable[[ImageArray], Tensor], Callable[[ImageArray], Tensor]]] = {
        "10 views": (
            lambda image: view_logits(network, image, "ten-crop"),
            lambda image: view_logits(network, image, "ten-map"),
        ),
        "96 views": (
            lambda image: multi_crop_logits(network, image),
            lambda image: view_logits(network, image, "multi"),
        ),
    }
    print(f"\n| {len(images)} images, median ms | crops | maps | times faster |\n|---|---|---|---|")
    out: dict[str, object] = {}
    for name, (by_crops, by_maps) in rows.items():
        with torch.inference_mode():
            slow, fast = milliseconds(by_crops, images), milliseconds(by_maps, images)
        print(f"| {name} | {slow:.0f} | {fast:.0f} | {slow / fast:.1f} |", flush=True)
        out[name] = {"crops_ms": slow, "maps_ms": fast, "ratio": slow / fast}
    return out


def test_views(network: ClassificationNetwork, images: LabeledImages) -> dict[str, object]:
    """Print the second table, without kinds that a plain network lacks; return it as a dict."""
    kinds = [views for views in VIEW_SETS if not (network.is_plain and "full" in views)]
    found: dict[ViewSet, dict[int, FloatArray]] = {views: {} for views in kinds}
    seconds = dict.fromkeys(kinds, 0.0)
    with terminal_progress().task("classifying", len(images)) as advance:
        for index, path in enumerate(images.paths):
            image = read_image(path)
            for views in kinds:
                start = time.perf_counter()
                found[views][index] = predict(network, image, views)
                seconds[views] += time.perf_counter() - start
            advance(1)
    print(f"\n| {images.name}, {len(images)} images | top-1 | top-5 | ms | as 10 crops say |")
    print("|---|---|---|---|---|")
    crop_best = {index: scores.argmax() for index, scores in found["ten-crop"].items()}
    out: dict[str, object] = {}
    for name, scores in found.items():
        result = evaluate_accuracy(images, scores)
        same = np.mean([each.argmax() == crop_best[index] for index, each in scores.items()])
        top5 = "-" if result.top5 is None else f"{100 * result.top5:.2f}"
        spent = 1000 * seconds[name] / len(images)
        print(f"| {name} | {100 * result.top1:.2f} | {top5} | {spent:.1f} | {100 * same:.1f} |")
        figures = {"top1": result.top1, "top5": result.top5, "ms": spent, "same": float(same)}
        out[name] = figures
    return out


def network_of(options: argparse.Namespace) -> ClassificationNetwork:
    """The model's network, or an untrained one of the paper's size."""
    if options.model is not None:
        return Classifier.load(options.model).network
    config = NetworkConfig(backbone=options.backbone, input_side=options.side)
    return ClassificationNetwork(config, TIMED_CLASSES).eval().requires_grad_(False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("images", type=Path, help="images; with --model a folder for each class")
    parser.add_argument("--split", help="a folder in it that holds those of the classes")
    parser.add_argument("--model", type=Path, help="a classifier's model file")
    parser.add_argument("--backbone", default="zf5", help="of the untrained network, without model")
    parser.add_argument("--side", type=int, default=224, help="its input side in pixels")
    parser.add_argument("--time-images", type=int, default=10, help="images of the first table")
    parser.add_argument("--limit", type=int, help="images of the second table")
    parser.add_argument("--threads", type=int, help="cores to use")
    parser.add_argument("--out", type=Path, help="gets both tables as JSON")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    figures: dict[str, object] = {}
    try:
        network = network_of(options)
        if options.model is None:
            paths = find_images(options.images)
        else:
            labeled = spread(
                load_class_folders(options.images, options.split, classes=network.classes),
                options.limit,
            )
            paths = list(labeled.paths)
        step = max(1, len(paths) // options.time_images)
        timed = [read_image(path) for path in paths[::step][: options.time_images]]
        figures["time"] = time_views(network, timed)
        if options.model is not None:
            figures["accuracy"] = test_views(network, labeled)
    except SppdetError as error:
        print(error, file=sys.stderr)
        return 1
    if options.out is not None:
        atomic_write_json(options.out, figures)
    return 0


def spread(images: LabeledImages, count: int | None) -> LabeledImages:
    """Return `count` of the images, evenly spaced; all for None."""
    if count is None or count >= len(images):
        return images
    chosen = np.linspace(0, len(images) - 1, count).astype(int)
    paths = tuple(images.paths[index] for index in chosen)
    return LabeledImages(images.name, images.classes, paths, images.labels[chosen])


if __name__ == "__main__":
    raise SystemExit(main())
