"""The mAP of both modes of one model, side by side on the same regions of the same images.

    python scripts/benchmarks/rcnn_map.py VOCdevkit --images 100 --model
    runs/voc07/model.safetensors

R-CNN mode runs the network once per region: 2,000 regions of 100 images take half an hour on
two cores; `--proposals` keeps the first so many of each image, in both modes. What was found in an
image is kept under `--run`: the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from sppdet.cli.common import use_threads
from sppdet.cli.terminal.progress import terminal_progress
from sppdet.core.errors import SppdetError
from sppdet.core.files import atomic_write_json, sha256
from sppdet.core.images import read_sample
from sppdet.core.jit import warm_up
from sppdet.core.progress import Progress, duration
from sppdet.core.settings import digest
from sppdet.core.types import Dataset, Detections, FloatArray, ImageArray, Sample
from sppdet.datasets import load_dataset
from sppdet.detection.detector import Detector
from sppdet.detection.model_zoo import find_members
from sppdet.detection.modes.rcnn import BATCH, PADDING, SIDE, RcnnDetector
from sppdet.evaluation.detection_report import voc_dict
from sppdet.evaluation.voc_ap import evaluate_voc

MODES = ("spp", "rcnn")
# Seconds per region that R-CNN mode is expected to take on two cores, for the estimate.
REGION_SECONDS = 0.007

Record = dict[str, Any]


def add_options(parser: argparse.ArgumentParser, prefix: str = "--") -> None:
    """The options of the comparison, for this script and for others."""
    parser.add_argument(
        f"{prefix}proposals", type=int, default=0, help="the first so many in both modes; 0 for all"
    )
    parser.add_argument(f"{prefix}run", type=Path, default=Path("runs/rcnn-map"))


def compare(
    model: str, dataset: Dataset, proposals: int, run: Path, progress: Progress
) -> dict[str, Any]:
    """Print mAP and seconds of both modes over the data set; return the same figures."""
    detector = Detector.load(model)
    if detector.classes != dataset.classes:
        raise SppdetError("was trained on other classes than the data set has", path=model)
    path = find_members(model)[0].path
    settings = f"{proposals} {SIDE} {PADDING} {BATCH} {digest(detector.config)}"
    folder = run / sha256(path.read_bytes(), settings, detector.propose.key)[:16]
    todo = sum(not _file(folder, sample).is_file() for sample in dataset)
    limit = proposals or detector.config.proposals.max_proposals
    progress.say(
        f"R-CNN mode on {limit} regions of {todo} images: about "
        f"{duration(todo * limit * REGION_SECONDS)} on two free cores; kept in {folder}"
    )
    records: dict[str, Record] = {}
    with progress.task("both modes", len(dataset)) as advance:
        for sample in dataset:
            records[sample.image_id] = _record(detector, sample, proposals, folder)
            advance(1)
    figures: dict[str, Any] = {"dataset": dataset.name, "proposals": proposals or "all"}
    print(f"\n{dataset.name}, {f'the first {proposals}' if proposals else 'all'} proposals of each")
    print(f"{'':6}{'mAP 11-point':>14}{'mAP area':>10}{'s per image':>12}")
    for mode in MODES:
        found = {name: _detections(one[mode], dataset.classes) for name, one in records.items()}
        result = evaluate_voc(dataset, found)
        seconds = float(np.median([one[mode]["seconds"] for one in records.values()]))
        figures[mode] = {**voc_dict(result), "seconds": seconds}
        print(f"{mode:6}{100 * result.map11:14.1f}{100 * result.map_area:10.1f}{seconds:12.2f}")
    return figures


def _file(folder: Path, sample: Sample) -> Path:
    return folder / f"{sample.image_id}.json"


def _record(detector: Detector, sample: Sample, proposals: int, folder: Path) -> Record:
    """Detections of both modes in an image: from its file, which is made where there is none."""
    path = _file(folder, sample)
    try:
        kept: Record = json.loads(path.read_bytes())
        return kept
    except (OSError, ValueError):
        pass
    image = read_sample(sample)
    boxes = detector.propose(image)[: proposals or None]
    record = {mode: _found(mode, detector, image, boxes) for mode in MODES}
    atomic_write_json(path, record)
    return record


def _found(mode: str, detector: Detector, image: ImageArray, boxes: FloatArray) -> Record:
    start = time.perf_counter()
    if mode == "rcnn":
        found = RcnnDetector(detector).detect_regions(image, boxes)
    else:
        found = detector.detect_regions(detector.extract(image), boxes)
    return {
        "seconds": time.perf_counter() - start,
        "boxes": found.boxes.tolist(),
        "scores": found.scores.tolist(),
        "margins": found.margins.tolist(),
        "labels": found.labels.tolist(),
    }


def _detections(record: Record, classes: tuple[str, ...]) -> Detections:
    return Detections(
        np.array(record["boxes"], np.float32),
        np.array(record["scores"], np.float32),
        np.array(record["labels"], np.int64),
        classes,
        np.array(record["margins"], np.float32),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("root", type=Path, help="a VOC folder or devkit")
    parser.add_argument("--split", default="val")
    parser.add_argument("--year", type=int, default=None)
    parser.add_argument("--model", default="default")
    parser.add_argument("--images", type=int, default=100, help="the first so many; 0 for all")
    parser.add_argument("--threads", type=int, default=None)
    add_options(parser)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    progress = terminal_progress()
    try:
        dataset = load_dataset(args.root, args.split, year=args.year, max_lost=0.0)
        if 0 < args.images < len(dataset):
            name = f"{dataset.name}, first {args.images}"
            samples = dataset.samples[: args.images]
            dataset = dataclasses.replace(dataset, name=name, samples=samples)
        use_threads(args.threads)
        warm_up()
        figures = compare(args.model, dataset, args.proposals, args.run, progress)
    except SppdetError as error:
        print(error, file=sys.stderr)
        return 1
    if args.json is not None:
        atomic_write_json(args.json, figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
