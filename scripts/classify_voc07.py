"""Image classification on Pascal VOC2007 as the paper's table 6: SVMs on whole-image features.

Rows: a crop of 224 pixels, the full image at a short side of 224, 392 and 448, several sizes
averaged; and with the best of four windows of the maps added. Trains on one split, C chosen on a
part of it, and evaluates on another. Features are kept in the run's folder: an interrupted run goes
on where it stopped. Prints a markdown table and writes it, with figures per class, to
RUN/<backbone>.json.

    python scripts/classify_voc07.py VOCdevkit --train train --test val --run runs/classify-voc07
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from sppdet.classification.config import SvmClassifierConfig, load_svm_config
from sppdet.classification.image_features import extract_features
from sppdet.classification.svm_classifier import SvmClassifier, train_svm_classifier
from sppdet.cli.terminal.progress import terminal_progress
from sppdet.core.errors import SppdetError
from sppdet.core.files import atomic_write_json
from sppdet.core.progress import Progress
from sppdet.core.types import Dataset
from sppdet.datasets import load_dataset
from sppdet.evaluation.classification_report import classification_dict
from sppdet.evaluation.voc_classification import (
    ClassificationResult,
    class_labels,
    evaluate_voc_classification,
)

# Name, short sides, side of the crop (0: the full image), windows per side. The paper crops 224 out
# of 256 and knows no windows.
ROWS: tuple[tuple[str, tuple[int, ...], int, int], ...] = (
    ("crop 224", (256,), 224, 0),
    ("full, 224", (224,), 0, 0),
    ("full, 392", (392,), 0, 0),
    ("full, 448", (448,), 0, 0),
    ("full, 224 + 300 + 392", (224, 300, 392), 0, 0),
    ("full, 392, and the best of 2 x 2 windows", (392,), 0, 2),
    ("full, 448, and the best of 2 x 2 windows", (448,), 0, 2),
    ("full, 224 + 300 + 392, and the best of 2 x 2 windows", (224, 300, 392), 0, 2),
)


def first(dataset: Dataset, count: int | None) -> Dataset:
    """Return the first `count` images of a data set; all for None."""
    if count is None or count >= len(dataset):
        return dataset
    name = f"{dataset.name}, first {count}"
    return replace(dataset, name=name, samples=dataset.samples[:count])


def evaluate(
    classifier: SvmClassifier, dataset: Dataset, cache: Path, progress: Progress
) -> ClassificationResult:
    """Compute a row's figures; raises the first error: fewer images would be another data set."""
    paths = [sample.path for sample in dataset]
    rows, errors = extract_features(paths, classifier.extractor, cache, progress)
    for error in errors.values():
        raise error
    scores = classifier.view_scores(rows)
    ids = [sample.image_id for sample in dataset]
    return evaluate_voc_classification(dataset, dict(zip(ids, scores, strict=True)))


def run_row(
    config: SvmClassifierConfig, training: Dataset, testing: Dataset, run: Path, progress: Progress
) -> dict[str, Any]:
    """Train and evaluate one row: its figures, and how C was chosen."""
    paths = [sample.path for sample in training]
    cache = run / "features"
    classifier, facts = train_svm_classifier(
        config,
        training.classes,
        paths,
        class_labels(training),
        cache_dir=cache,
        progress=progress,
    )
    result = evaluate(classifier, testing, cache, progress)
    return {"training": facts, "test": classification_dict(result)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path, help="a VOCdevkit or VOC2007 folder")
    parser.add_argument("--train", default="train", help="split to train on")
    parser.add_argument("--test", default="val", help="split to evaluate on")
    parser.add_argument("--year", type=int, default=None)
    parser.add_argument("--run", type=Path, default=Path("runs/classify-voc07"))
    parser.add_argument("--backbones", nargs="+", default=["efficientnet_lite0"])
    parser.add_argument("--limit", type=int, nargs=2, metavar=("TRAIN", "TEST"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    progress = terminal_progress()
    try:
        base = load_svm_config(overrides=options.set)
        limits = options.limit or (None, None)
        training, testing = (
            first(load_dataset(options.data, split, year=options.year, max_lost=0.0), limit)
            for split, limit in zip((options.train, options.test), limits, strict=True)
        )
        for backbone in options.backbones:
            figures: dict[str, Any] = {}
            for name, scales, crop, windows in ROWS:
                features = base.features.replace(
                    backbone=backbone, scales=scales, crop=crop, windows=windows
                )
                config = base.replace(features=features)
                progress.say(f"{backbone}, {name}")
                figures[name] = run_row(config, training, testing, options.run, progress)
            atomic_write_json(options.run / f"{backbone}.json", figures)
            print_table(f"{backbone}: {training.name} -> {testing.name}", figures)
    except SppdetError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def print_table(title: str, figures: dict[str, Any]) -> None:
    """Print a markdown row for each kind of view, and what it gains over the row before."""
    print(f"\n| {title} | mAP (11-point) | step | mAP (area) | C |\n|---|---|---|---|---|")
    before: float | None = None
    for name, found in figures.items():
        map11, area = 100 * found["test"]["map11"], 100 * found["test"]["map_area"]
        step = "" if before is None else f"{map11 - before:+.1f}"
        print(f"| {name} | {map11:.1f} | {step} | {area:.1f} | {found['training']['c']:g} |")
        before = map11


if __name__ == "__main__":
    raise SystemExit(main())
