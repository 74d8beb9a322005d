"""Does SPP help a network trained from nothing? Plain, SPP and multi-size SPP on VOC's objects.

A narrowed ZF-5 learns to tell the object crops of one split apart and is tested on those of
another, in three variants with the same number of epochs and three seeds each; the learning rate
falls at fixed epochs, so that the test split decides nothing. Every run resumes; finished ones are
not run again. Writes RUN/results.json and prints a table of mean and spread.

    python scripts/train_from_scratch.py VOCdevkit --run runs/scratch
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sppdet.classification.classifier import Classifier
from sppdet.classification.config import ClassificationConfig, NetworkConfig, TrainingConfig
from sppdet.classification.train import train_classifier
from sppdet.cli.terminal.progress import terminal_progress
from sppdet.core.errors import SppdetError
from sppdet.core.files import atomic_write_json
from sppdet.core.progress import Progress
from sppdet.datasets import LabeledImages, load_class_folders, load_dataset, write_object_crops

# Half of the paper's 224 and 180: ZF-5 makes 6 x 6 and 4 x 4 cells of them, so the pyramid begins
# at the 3 x 3 bins that the plain network's pooling gives.
SIDE, SMALL_SIDE = 112, 90
LEVELS = (3, 2, 1)
MARGIN, MIN_SIDE = 0.1, 16
# The paper's 0.5 is for 4,096 units and 70 epochs.
DROPOUT = 0.2
VARIANTS = ("no SPP", "SPP, single-size", "SPP, multi-size")
# Shares of the epochs after which the learning rate falls.
MILESTONES = (0.65, 0.9)


def settings(variant: str, seed: int, options: argparse.Namespace) -> ClassificationConfig:
    """The settings of a variant; all share everything but pooling and input sizes."""
    network = NetworkConfig(
        width=options.width,
        variant="plain" if variant == VARIANTS[0] else "spp",
        levels=LEVELS,
        input_side=SIDE,
        fc6=512,
        fc7=512,
        dropout=DROPOUT,
    )
    training = TrainingConfig(
        epochs=options.epochs,
        batch=options.batch,
        learning_rate=options.rate,
        sizes=(SIDE, SMALL_SIDE) if variant == VARIANTS[2] else (),
        milestones=tuple(max(1, round(share * options.epochs)) for share in MILESTONES),
    )
    return ClassificationConfig(network=network, training=training, seed=seed)


def crops(options: argparse.Namespace, split: str, progress: Progress) -> Path:
    """The folder of a split's object crops, written if it is not there."""
    folder: Path = options.run / "crops" / split
    if not folder.is_dir():
        dataset = load_dataset(options.data, split, year=options.year, max_lost=0.0)
        write_object_crops(dataset, folder, margin=MARGIN, min_side=MIN_SIDE, progress=progress)
    return folder


def at_most(images: LabeledImages, count: int) -> LabeledImages:
    """At most `count` images of each class, evenly spaced: VOC has 14 persons for every sheep."""
    kept: list[int] = []
    for label in range(len(images.classes)):
        mine = np.flatnonzero(images.labels == label)
        chosen = np.unique(np.linspace(0, len(mine) - 1, min(count, len(mine))).astype(int))
        kept += mine[chosen].tolist()
    paths = tuple(images.paths[index] for index in kept)
    return replace(images, paths=paths, labels=images.labels[kept])


def errors(classifier: Classifier, images: LabeledImages) -> dict[str, float]:
    """Top-1 and top-5 error of center crops, and the mean over classes of the top-1 error."""
    found = np.stack([classifier.probabilities(path, "center") for path in images.paths])
    order = np.argsort(-found, axis=1, kind="stable")
    wrong = order[:, 0] != images.labels
    classes = [wrong[images.labels == label] for label in np.unique(images.labels)]
    return {
        "top1": float(wrong.mean()),
        "top5": float((order[:, :5] != images.labels[:, None]).all(axis=1).mean()),
        "class_mean": float(np.mean([one.mean() for one in classes])),
    }


def table(results: dict[str, dict[str, float]], seeds: int) -> str:
    """Markdown: mean and standard deviation over the seeds, in per cent."""
    lines = ["| network | top-1 error | mean over classes | top-5 error |", "|---|---|---|---|"]
    for variant in VARIANTS:
        runs = [results[f"{variant}, seed {seed}"] for seed in range(seeds)]
        cells = []
        for key in ("top1", "class_mean", "top5"):
            values = 100 * np.array([run[key] for run in runs])
            spread = values.std(ddof=1) if seeds > 1 else 0.0
            cells.append(f"{values.mean():.2f} ± {spread:.2f}")
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path, help="a VOCdevkit or VOC2007 folder")
    parser.add_argument("--train", default="train", help="split to train on")
    parser.add_argument("--test", default="val", help="split to test on")
    parser.add_argument("--year", type=int, default=None)
    parser.add_argument("--run", type=Path, default=Path("runs/scratch"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=0.002)
    parser.add_argument("--width", type=float, default=0.25, help="of ZF-5's layers")
    parser.add_argument("--most", type=int, default=300, help="training objects per class")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    progress = terminal_progress()
    try:
        training = at_most(
            load_class_folders(crops(options, options.train, progress)), options.most
        )
        folder = crops(options, options.test, progress)
        testing = load_class_folders(folder, classes=training.classes)
        print(f"{len(training)} objects to train on, {len(testing)} to test on")
        results: dict[str, dict[str, float]] = {}
        for seed in range(options.seeds):
            for number, variant in enumerate(VARIANTS):
                name = f"{variant}, seed {seed}"
                config = settings(variant, seed, options)
                start = time.perf_counter()
                run = options.run / f"{('plain', 'single', 'multi')[number]}-{seed}"
                path = train_classifier(config, training, run, progress=progress)
                seconds = time.perf_counter() - start
                results[name] = errors(Classifier.load(path), testing)
                print(f"{name}: {results[name]}, trained in {seconds:.0f} s", flush=True)
                atomic_write_json(options.run / "results.json", results)
    except SppdetError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"\n{table(results, options.seeds)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
