"""The ladder of the paper's table 9 on a VOC folder: SVMs on each layer, then box regression.

Trains on one split and evaluates on another; every stage is kept in the run's folder, so that an
interrupted run goes on where it stopped and proposals, feature maps and fine-tuning are shared by
all rungs. Prints a markdown table and writes it, with figures per class, to RUN/ladder.json.

    python scripts/paper_ladder.py VOCdevkit --train train --test val --run runs/voc07
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sppdet.cli.terminal.progress import terminal_progress
from sppdet.core.errors import SppdetError
from sppdet.core.files import atomic_write_json
from sppdet.core.progress import Progress
from sppdet.core.settings import load
from sppdet.core.types import Dataset, Detections
from sppdet.detection.config import DetectionConfig, DetectorConfig
from sppdet.detection.detector import Detector
from sppdet.evaluation.tables import json_number
from sppdet.evaluation.voc_ap import VocResult, evaluate_voc
from sppdet.heads.config import FeatureLayer
from sppdet.training import train
from sppdet.training.config import TrainingConfig
from sppdet.training.data import prepare_data

RELEASE = Path(__file__).resolve().parent.parent / "configs" / "release.toml"


def rungs(config: DetectorConfig) -> list[tuple[str, str, DetectionConfig]]:
    """Name, layer of the SVMs and rules of detection; the paper's rungs first, then our own."""
    release = load(DetectorConfig, RELEASE, base=config).detection
    alone = release.replace(box_regression="none")
    fused = release.replace(softmax_weight=config.detection.softmax_weight)
    fused = fused.replace(margin_threshold=config.detection.margin_threshold)
    return [
        ("SVM on the pooled pyramid", "pool", alone),
        ("SVM on fine-tuned fc6", "fc6", alone),
        ("SVM on fine-tuned fc7", "fc7", alone),
        ("SVM on fine-tuned fc7, box regression", "fc7", release),
        ("the same, softmax in the score", "fc7", fused),
        ("the same, learned boxes, box voting, soft-NMS: the default", "fc7", config.detection),
    ]


def rung_models(
    config: TrainingConfig, dataset: Dataset, run: Path, progress: Progress
) -> dict[str, Detector]:
    """Train a detector per layer that SVMs can read; all share one fine-tuned head."""
    layers: tuple[FeatureLayer, ...] = ("pool", "fc6", "fc7")
    found: dict[str, Detector] = {}
    for layer in layers:
        changed = config.replace(head=config.head.replace(svm_layer=layer))
        found[layer] = Detector.load(train(changed, dataset, run, progress=progress))
    return found


def evaluate(
    config: TrainingConfig,
    detectors: dict[str, Detector],
    dataset: Dataset,
    run: Path,
    progress: Progress,
) -> dict[str, VocResult]:
    """Evaluate every rung on the same proposals and maps, those of the training's scales."""
    extractor = detectors["fc7"].extractor
    data = prepare_data(config, dataset, run / "cache", extractor, progress)
    steps = [(name, with_rules(detectors[layer], rules)) for name, layer, rules in rungs(config)]
    found: dict[str, dict[str, Detections]] = {name: {} for name, _ in steps}
    with progress.task("detecting", len(dataset)) as advance:
        for index, sample in enumerate(dataset):
            maps, boxes = data.load_maps(index), data.proposals[index]
            for name, detector in steps:
                found[name][sample.image_id] = detector.detect_regions([maps], boxes)
            advance(1)
    return {name: evaluate_voc(dataset, detections) for name, detections in found.items()}


def with_rules(detector: Detector, rules: DetectionConfig) -> Detector:
    """Put a detector under other rules, without test-time augmentation."""
    plain = rules.replace(scale_factors=(1.0,), flipped_scale_factors=())
    return detector.with_settings(detector.config.replace(detection=plain))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path, help="a VOCdevkit or VOC2007 folder")
    parser.add_argument("--train", default="train", help="split to train on")
    parser.add_argument("--test", default="val", help="split to evaluate on")
    parser.add_argument("--year", type=int, default=None)
    parser.add_argument("--run", type=Path, default=Path("runs/voc07"))
    parser.add_argument("--config", type=Path, default=None)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    from sppdet.datasets import load_dataset

    progress = terminal_progress()
    try:
        config = load(TrainingConfig, options.config, options.set)
        training = load_dataset(options.data, options.train, year=options.year, max_lost=0.0)
        testing = load_dataset(options.data, options.test, year=options.year, max_lost=0.0)
        detectors = rung_models(config, training, options.run, progress)
        results = evaluate(config, detectors, testing, options.run, progress)
    except SppdetError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"\n| {training.name} -> {testing.name} | mAP (11-point) | mAP (area) |\n|---|---|---|")
    for name, result in results.items():
        print(f"| {name} | {100 * result.map11:.1f} | {100 * result.map_area:.1f} |")
    figures = {
        name: {
            "map11": json_number(result.map11),
            "map_area": json_number(result.map_area),
            "ap11": {one.name: json_number(one.ap11) for one in result.classes},
        }
        for name, result in results.items()
    }
    atomic_write_json(options.run / "ladder.json", figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
