"""The ladder of the paper's table 9 on a VOC folder: SVMs on each layer, then box regression.

Trains on one split and evaluates on another; every stage is kept in the run's folder, so that an
interrupted run goes on where it stopped and proposals, conv maps and fine-tuning are shared by
all rungs. Prints a markdown table and writes it, with figures a class, to RUN/ladder.json.

    python scripts/ladder_voc07.py VOCdevkit --train train --test val --run runs/voc07
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from sppdet.config import Config, load_config
from sppdet.detection import DetectionConfig
from sppdet.detector import Detector
from sppdet.errors import SppdetError
from sppdet.evaluation.voc import VocResult, evaluate_voc
from sppdet.features import FeatureExtractor
from sppdet.files import atomic_write_json
from sppdet.progress import Progress, terminal_progress
from sppdet.region_features import RegionFeatures
from sppdet.training import train
from sppdet.training.run import prepare
from sppdet.types import Dataset, Detections

RELEASE = Path(__file__).resolve().parent.parent / "configs" / "release.toml"


def rungs(config: Config) -> list[tuple[str, str, DetectionConfig]]:
    """Name, layer of the SVMs and rules of detection; the paper's rungs first, then our own."""
    release = load_config(RELEASE, base=config).detection
    alone = replace(release, box_regression=False)
    fused = replace(release, softmax_weight=config.detection.softmax_weight)
    fused = replace(fused, score_threshold=config.detection.score_threshold)
    return [
        ("SVM on the pooled pyramid", "pool", alone),
        ("SVM on fine-tuned fc6", "fc6", alone),
        ("SVM on fine-tuned fc7", "fc7", alone),
        ("SVM on fine-tuned fc7, box regression", "fc7", release),
        ("the same, softmax in the score", "fc7", fused),
        ("the same, learned boxes, box voting, soft-NMS: the default", "fc7", config.detection),
    ]


def rung_models(
    config: Config, dataset: Dataset, run: Path, progress: Progress
) -> dict[str, Detector]:
    """A detector for each layer that SVMs are trained on; all share one fine-tuned head."""
    layers = ("pool", "fc6", "fc7")
    variants = [replace(config.svm, layer=layer) for layer in layers]
    found = {}
    for layer, svm in zip(layers, variants, strict=True):
        changed = replace(config, svm=svm)
        path = train(changed, dataset, run, progress=progress, svm_variants=variants)
        found[layer] = Detector.load(path)
    return found


def evaluate(
    detectors: dict[str, Detector], dataset: Dataset, run: Path, progress: Progress
) -> dict[str, VocResult]:
    """Every rung's result; an image's features are computed once for all rungs."""
    best = detectors["fc7"]
    extractor: FeatureExtractor = best.extractor
    data = prepare(best.config, dataset, run / "cache", extractor, progress)
    steps = rungs(best.config)
    found: dict[str, dict[str, Detections]] = {name: {} for name, _, _ in steps}
    with progress.task("detecting", len(dataset)) as advance:
        for index, sample in enumerate(dataset):
            maps = data.maps.load(data.digests[index])
            features = RegionFeatures(best.head, maps, data.proposals[index])
            for name, layer, rules in steps:
                judged = detectors[layer].detect_features(features, rules=rules)
                found[name][sample.image_id] = judged
            advance(1)
    return {name: evaluate_voc(dataset, detections) for name, detections in found.items()}


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
    from sppdet.datasets import load_voc

    progress = terminal_progress()
    try:
        config = load_config(options.config, options.set)
        training = load_voc(options.data, options.train, year=options.year)
        testing = load_voc(options.data, options.test, year=options.year)
        detectors = rung_models(config, training, options.run, progress)
        results = evaluate(detectors, testing, options.run, progress)
    except SppdetError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"\n| {training.name} -> {testing.name} | mAP (11-point) | mAP (area) |\n|---|---|---|")
    for name, result in results.items():
        print(f"| {name} | {100 * result.map11:.1f} | {100 * result.map_area:.1f} |")
    figures = {
        name: {
            "map11": result.map11,
            "map_area": result.map_area,
            "ap11": {one.name: one.ap11 for one in result.classes},
        }
        for name, result in results.items()
    }
    atomic_write_json(options.run / "ladder.json", figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
