"""The few-shot benchmark of VOC split 1: new classes from 1 to 10 objects, old ones unharmed.

    python scripts/fewshot_voc.py VOCdevkit --run runs/fewshot
    python scripts/fewshot_voc.py VOCdevkit --run runs/fewshot --base base.safetensors

Trains a base model on the 15 base classes of `train`, the novel classes' objects unlabeled, unless
`--base` names one. Then adds the five novel classes from 1, 2, 3, 5 and 10 objects of each, drawn
with ten seeds, as `sppdet add-class` does, and evaluates base and novel classes together on `val`
(IoU 0.5, area). All draws are detected in one pass over the images: added classes do not depend on
one another. The model is not told anything of `val`.

Goes on where it stopped: RUN/base has the training, RUN/detections a file per image.

Differs from the published protocol (Wang et al. 2020, TFA): one network of 6 million weights on a
CPU, not ResNet-101; VOC2007 `train` alone, not VOC07+12; tested on `val`, not on `test`. Like
there, an image is drawn only if all its objects of the class fit into the number of shots.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sppdet.cli.common import use_threads
from sppdet.cli.terminal.progress import terminal_progress
from sppdet.core.errors import SppdetError
from sppdet.core.files import atomic_write_json, sha256
from sppdet.core.images import read_sample
from sppdet.core.progress import Progress
from sppdet.core.settings import load
from sppdet.core.tensor_files import TensorCache
from sppdet.core.types import Dataset, Detections, Sample
from sppdet.datasets import VOC_CLASSES, load_dataset
from sppdet.detection.added.classes import KnownClass
from sppdet.detection.detector import Detector
from sppdet.evaluation.voc_ap import evaluate_voc
from sppdet.training import train
from sppdet.training.config import TrainingConfig

NOVEL = ("bird", "bus", "cow", "motorbike", "sofa")
BASE = tuple(name for name in VOC_CLASSES if name not in NOVEL)
SHOTS = (1, 2, 3, 5, 10)
SEEDS = 10
# Novel AP50, base and novel classes tested together, mean over seeds: TFA w/ cos (30 seeds, its
# model zoo) and DeFRCN (its paper), both ResNet-101 on VOC07+12, VOC2007 test.
PUBLISHED = {
    "TFA w/ cos": (25.3, 36.4, 42.1, 47.9, 52.9),
    "DeFRCN": (40.2, 53.6, 58.2, 63.6, 66.5),
}
REPORT = "fewshot.json"
# Images whose base detections are compared with those of the base model alone.
COMPARED = 50


def draw_shots(dataset: Dataset, name: str, shots: int, seed: int) -> list[Sample]:
    """Draw images that show so many objects of a class in all; only these are labeled, as 0.

    An image is taken if all its objects of the class fit.
    """
    label = dataset.classes.index(name)
    rng = np.random.default_rng([seed, label])
    found: list[Sample] = []
    left = shots
    for index in rng.permutation(len(dataset)):
        sample = dataset.samples[int(index)]
        own = (sample.labels == label) & ~sample.difficult
        if not 0 < own.sum() <= left or (sample.labels[sample.difficult] == label).any():
            continue
        found.append(
            replace(
                sample,
                boxes=sample.boxes[own],
                labels=np.zeros(int(own.sum()), np.int64),
                difficult=np.zeros(int(own.sum()), np.bool_),
            )
        )
        left -= int(own.sum())
        if not left:
            return found
    raise SppdetError(f"there are no {shots} objects of {name}", hint="draw fewer")


def add_draw(
    base: Detector, dataset: Dataset, novel: Sequence[str], shots: int, seed: int
) -> list[KnownClass]:
    """Add the novel classes from one draw: what the detector learned of each, named by the draw.

    Each class is learned from its own images; those of the others are background to it.
    """
    drawn = [draw_shots(dataset, name, shots, seed) for name in novel]
    samples = tuple(
        replace(one, labels=np.full_like(one.labels, label))
        for label, own in enumerate(drawn)
        for one in own
    )
    added = base.add_classes(Dataset("shots", tuple(novel), samples)).parts.added
    return [one._replace(name=draw_name(one.name, shots, seed)) for one in added]


def draw_name(name: str, shots: int, seed: int) -> str:
    """Name a class of one draw, so that all draws can be one detector's."""
    return f"{name}, {shots} shots, seed {seed}"


def with_added(base: Detector, added: Sequence[KnownClass]) -> Detector:
    """The base detector with classes of many draws; not calibrated, which changes no ranking."""
    parts = base.parts._replace(added=tuple(added), calibration=None)
    return Detector(**parts._asdict())


def detect_all(
    detector: Detector, dataset: Dataset, folder: Path, key: str, progress: Progress
) -> dict[str, Detections]:
    """Detect on every image, or read what was detected before."""
    cache, out = TensorCache(folder, key, ".detections"), {}
    with progress.task("detecting", len(dataset)) as advance:
        for sample in dataset:
            known = cache.load(sha256(sample.image_id))
            if known is None:
                found = detector.detect(read_sample(sample))
                arrays = {n: getattr(found, n) for n in ("boxes", "margins", "labels")}
                cache.save(sha256(sample.image_id), arrays)
            else:
                arrays = known.tensors
            values = (arrays["boxes"], arrays["margins"], arrays["labels"])
            out[sample.image_id] = Detections(*values, detector.classes)
            advance(1)
    return out


def figures(
    dataset: Dataset,
    found: Mapping[str, Detections],
    detector: Detector,
    names: Sequence[str],
) -> dict[str, float]:
    """AP50 of each class of the data set, `names[i]` being what class i is called in `found`."""
    labels = {detector.classes.index(name): label for label, name in enumerate(names)}
    table = np.full(len(detector.classes), -1, np.int64)
    table[list(labels)] = list(labels.values())
    chosen = {}
    for key, one in found.items():
        own = table[one.labels]
        kept = own >= 0
        chosen[key] = Detections(one.boxes[kept], one.scores[kept], own[kept], dataset.classes)
    result = evaluate_voc(dataset, chosen)
    return {each.name: float(each.ap_area) for each in result.classes}


def base_model(arguments: argparse.Namespace, progress: Progress) -> Path:
    """The model of the base classes: the one that was named, or a training in the run's folder."""
    if arguments.base is not None:
        return Path(arguments.base)
    data = load_dataset(arguments.voc, "train", year=2007, classes=arguments.base_classes)
    config = load(TrainingConfig, None, arguments.set)
    run = arguments.run / "base"
    return train(config, data, run, progress=progress, cache_dir=arguments.cache)


def rows(report: Mapping[str, Any]) -> Iterator[str]:
    """The table, line by line."""
    shots = report["shots"]
    yield "| novel AP50 | " + " | ".join(f"{n}" for n in shots) + " |"
    yield "|---|" + "---|" * len(shots)
    ours = [report["novel"][str(n)] for n in shots]
    yield "| sppdet | " + " | ".join(f"{100 * m:.1f} +- {100 * s:.1f}" for m, s in ours) + " |"
    for name, values in PUBLISHED.items():
        known = dict(zip(SHOTS, values, strict=True))
        yield f"| {name} | " + " | ".join(f"{known.get(n, float('nan')):.1f}" for n in shots) + " |"
    yield (
        f"base AP50: {100 * report['base_before']:.2f} before, {100 * report['base_after']:.2f}"
        f" after; {report['compared']} photos compared bit for bit: "
        + ("equal" if report["equal"] else "DIFFERENT")
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train, add, detect, evaluate; the report, also written to the run's folder."""
    progress = terminal_progress()
    base = Detector.load_file(base_model(arguments, progress))
    novel, bases = tuple(arguments.novel), tuple(arguments.base_classes)
    data = load_dataset(arguments.voc, "train", year=2007)
    test = load_dataset(arguments.voc, "val", year=2007)
    test = replace(test, samples=test.samples[: arguments.limit])
    start, added = time.perf_counter(), []
    draws = [(n, seed) for n in arguments.shots for seed in range(arguments.seeds)]
    with progress.task("draws", len(draws)) as advance:
        for shots, seed in draws:
            added += add_draw(base, data, novel, shots, seed)
            advance(1)
    seconds = (time.perf_counter() - start) / len(draws)
    detector = with_added(base, added)
    key = sha256(*(one.model.fc7.tobytes() for one in added), *detector.classes)
    found = detect_all(detector, test, arguments.run / "detections", key, progress)
    report: dict[str, Any] = {"shots": list(arguments.shots), "seeds": arguments.seeds}
    report["seconds_per_draw"] = round(seconds, 1)
    every: dict[int, list[float]] = {n: [] for n in arguments.shots}
    for shots, seed in draws:
        names = [draw_name(n, shots, seed) if n in novel else n for n in test.classes]
        each = figures(test, found, detector, names)
        every[shots].append(float(np.nanmean([each[name] for name in novel])))
        report["base_after"] = float(np.nanmean([each[name] for name in bases]))
    report["novel"] = {str(n): [float(np.mean(v)), float(np.std(v))] for n, v in every.items()}
    report |= _compare(base, test, found)
    report["base_before"] = report["base_after"] if report["equal"] else None
    atomic_write_json(arguments.run / REPORT, report)
    return report


def _compare(base: Detector, test: Dataset, found: Mapping[str, Detections]) -> dict[str, Any]:
    """Whether the base model alone detects the same, bit for bit, on the first images."""
    equal = True
    some = test.samples[:COMPARED]
    for sample in some:
        alone, both = base.detect(read_sample(sample)), found[sample.image_id]
        own = both.labels < len(base.classes)
        ways = (
            np.lexsort((alone.margins, alone.labels)),
            np.lexsort((both.scores[own], both.labels[own])),
        )
        equal &= np.array_equal(alone.boxes[ways[0]], both.boxes[own][ways[1]])
        equal &= np.array_equal(alone.margins[ways[0]], both.scores[own][ways[1]])
    return {"compared": len(some), "equal": bool(equal)}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("voc", type=Path, help="folder that holds VOC2007")
    parser.add_argument("--run", type=Path, required=True, help="results; goes on where it stopped")
    parser.add_argument("--base", help="model of the base classes, instead of training one")
    parser.add_argument("--shots", type=int, nargs="+", default=list(SHOTS))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--novel", nargs="+", default=list(NOVEL))
    parser.add_argument("--base-classes", nargs="+", default=list(BASE))
    parser.add_argument("--limit", type=int, help="first so many images of val")
    parser.add_argument("--cache", type=Path, help="proposals and feature maps of the training")
    parser.add_argument("--set", action="append", default=[], help="a setting of the training")
    parser.add_argument("--threads", type=int)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; the exit code."""
    arguments = parse(argv)
    use_threads(arguments.threads)
    try:
        report = run(arguments)
    except SppdetError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(rows(report)))
    print(json.dumps(report["novel"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
