"""From a VOC2007 folder to the README's table, in one command that goes on where it stopped.

    python scripts/reproduce_voc07.py VOCdevkit --run runs/reproduce
    python scripts/reproduce_voc07.py VOCdevkit --run runs/reproduce --ship default

Trains on `train`, evaluates on `val` with box regression and without (`--ladder`: SVMs on every
layer as well), and prints the table beside the published figures. `--ship NAME` then trains on
`trainval`, for as many epochs, and puts the model into the package under that name. Figures,
seconds a stage (of all the runs that it took, added up), peak memory, seed and versions are kept in
RUN/reproduce.json; what it holds is not computed again.

Expect 4,008 training and 1,000 validation images of VOC2007's trainval where the splits are ours,
2,501 and 2,510 where they are the official ones; two hours on two cores, and 0.6 MB of disk
an image.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ladder_voc07

from sppdet.batch import detect_dataset
from sppdet.cli.common import load_detector, peak_memory, use_threads
from sppdet.config import Config, differences, digest, load_config, to_dict
from sppdet.datasets import load_voc
from sppdet.errors import SppdetError
from sppdet.evaluation.report import voc_dict
from sppdet.evaluation.voc import evaluate_voc
from sppdet.files import atomic_write_bytes, atomic_write_json, sha256
from sppdet.modelfile import SUFFIX
from sppdet.modelnames import SHIPPED
from sppdet.progress import Advance, Progress, duration, terminal_progress
from sppdet.proposals.cache import available_cores
from sppdet.training import train
from sppdet.types import Dataset
from sppdet.versions import installed

RECORD = "reproduce.json"
PACKAGES = ("sppdet", "torch", "torchvision", "numpy", "opencv-contrib-python", "numba")
# Published mAP on VOC2007 test, trained on VOC2007 trainval: He et al. 2014, Girshick et al. 2014
# (second version) and Girshick 2015.
PUBLISHED = (
    ("SPP-net, ZF-5, five scales (paper)", 59.2),
    ("SPP-net, VGG-16", 63.1),
    ("R-CNN, VGG-16", 66.0),
    ("Fast R-CNN, VGG-16", 66.9),
)
PLAIN, REGRESSED = "sppdet, boxes of the proposals", "sppdet"
PHASES = ("train", "val", "ladder", "trainval")
STAGES = (
    "proposals",
    "conv maps",
    "fine-tuning",
    "compression",
    "positives, box regressors, scenes",
    "hard negatives",
    "detecting",
    "other",
)
# Seconds between two saves of the time spent, so that a killed run's is not lost.
SAVE_INTERVAL = 10.0


class Record:
    """What was reached so far, on disk; begun anew when anything that decides it has changed."""

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path = path
        fresh = {**facts, "seconds": {}, "results": {}, "models": {}, "peak_memory_gb": 0.0}
        try:
            found = json.loads(path.read_bytes())
        except (OSError, ValueError):
            found = {}
        self.values: dict[str, Any] = found if found.get("key") == facts["key"] else fresh

    def save(self) -> None:
        """Writes it, the peak memory of this process included."""
        peak = max(self.values["peak_memory_gb"], peak_memory() or 0.0)
        self.values["peak_memory_gb"] = round(peak, 2)
        atomic_write_json(self.path, self.values)

    def add_seconds(self, phase: str, stage: str, seconds: float) -> None:
        """Adds to the time that a stage of a phase has taken, and saves."""
        stages = self.values["seconds"].setdefault(phase, {})
        stages[stage] = round(stages.get(stage, 0.0) + seconds, 1)
        self.save()


class Stopwatch:
    """A progress that also adds each stage's time to the record, every few seconds."""

    def __init__(self, progress: Progress, record: Record, phase: str) -> None:
        self._progress, self._record, self._phase = progress, record, phase

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        """A stage, timed."""
        last = time.perf_counter()

        def count(wait: float) -> None:
            nonlocal last
            now = time.perf_counter()
            if now - last >= wait:
                self._record.add_seconds(self._phase, label, now - last)
                last = now

        with self._progress.task(label, total) as advance:

            def timed(done: int) -> None:
                advance(done)
                count(SAVE_INTERVAL)

            try:
                yield timed
            finally:
                count(0.0)

    def say(self, text: str) -> None:
        """The line."""
        self._progress.say(text)


def phase(record: Record, progress: Progress, name: str, work: Callable[[Stopwatch], None]) -> None:
    """Runs a phase; time outside its stages is recorded as theirs, under `other`."""
    watch, start = Stopwatch(progress, record, name), time.perf_counter()
    before = sum(record.values["seconds"].get(name, {}).values())
    try:
        work(watch)
    finally:
        told = sum(record.values["seconds"].get(name, {}).values()) - before
        record.add_seconds(name, "other", max(0.0, time.perf_counter() - start - told))


def evaluated(model: Path, dataset: Dataset, run: Path, progress: Progress, workers: int) -> Any:
    """The figures of the model without box regression and with it."""
    found = {}
    for name, regression in ((PLAIN, "false"), (REGRESSED, "true")):
        changes = [f"detection.box_regression={regression}"]
        detector = load_detector(str(model), "cpu", None, changes)
        detections = detect_dataset(detector, dataset, run / "cache", progress, workers=workers)
        found[name] = voc_dict(evaluate_voc(dataset, detections))
    return found


def ordered(values: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, Any]]:
    """The items in the order of `names`, others after them: files keep no order."""
    rank = {name: position for position, name in enumerate(names)}
    return sorted(values.items(), key=lambda item: (rank.get(item[0], len(rank)), item[0]))


def table(record: Record, datasets: Mapping[str, Dataset], names: Sequence[str]) -> str:
    """The README's table: ours, then the published ones."""
    here = f"{datasets['train'].name} -> {datasets['val'].name}"
    lines = ["| | data | mAP, 11-point | mAP, area |", "|---|---|---|---|"]
    for name, one in ordered(record.values["results"], names):
        points = [f"{100 * (one[key] or 0.0):.1f}" for key in ("map11", "map_area")]
        lines.append(f"| {name} | {here} | {points[0]} | {points[1]} |")
    lines += [f"| {name} | trainval -> test | {value} | |" for name, value in PUBLISHED]
    return "\n".join(lines)


def times(record: Record) -> str:
    """Minutes of each phase, and of its stages."""
    lines = []
    for name, stages in ordered(record.values["seconds"], PHASES):
        spent = [f"{stage} {duration(seconds)}" for stage, seconds in ordered(stages, STAGES)]
        parts = ", ".join(spent)
        lines.append(f"{name}: {duration(sum(stages.values()))} ({parts})")
    lines.append(f"peak memory {record.values['peak_memory_gb']:.1f} GB")
    return "\n".join(lines)


def reproduce(args: argparse.Namespace) -> None:
    """Every phase that is not in the record yet, then the tables."""
    overrides = [*args.set, f"seed={args.seed}"] if args.seed is not None else args.set
    config = load_config(args.config, overrides)
    splits = ("train", "val", "trainval") if args.ship else ("train", "val")
    datasets = {split: load(args, split) for split in splits}
    use_threads(args.threads)
    record, progress = Record(args.run / RECORD, facts(args, config, datasets)), terminal_progress()
    workers, results, models = args.threads or 0, record.values["results"], record.values["models"]
    model = args.run / "model.safetensors"

    def learn(watch: Stopwatch) -> None:
        train(config, datasets["train"], args.run, progress=watch, workers=workers)
        models["train"] = str(model)

    def judge(watch: Stopwatch) -> None:
        results.update(evaluated(model, datasets["val"], args.run, watch, workers))

    def climb(watch: Stopwatch) -> None:
        detectors = ladder_voc07.rung_models(config, datasets["train"], args.run, watch)
        rungs = ladder_voc07.evaluate(detectors, datasets["val"], args.run, watch)
        results.update({name: voc_dict(rung) for name, rung in rungs.items()})

    def ship(watch: Stopwatch) -> None:
        run = args.run / "trainval"
        cache = run / "cache" if args.own_cache else args.run / "cache"
        score = 100 * (results[REGRESSED]["map11"] or 0.0)
        about = (
            f"Pascal VOC's 20 classes; trained as long on train alone it has {score:.1f} mAP"
            f" (11-point) on val"
        )
        options: dict[str, Any] = {"cache_dir": cache, "workers": workers, "description": about}
        made = train(config, datasets["trainval"], run, progress=watch, **options)
        target = SHIPPED / f"{args.ship}{SUFFIX}"
        atomic_write_bytes(target, made.read_bytes())
        models[args.ship] = str(made)
        progress.say(f"{target}: {made.stat().st_size / 1e6:.1f} MB")

    if "train" not in models or not model.is_file():
        phase(record, progress, "train", learn)
    if REGRESSED not in results:
        phase(record, progress, "val", judge)
    if args.ladder and ladder_voc07.rungs(config)[-1][0] not in results:
        phase(record, progress, "ladder", climb)
    if args.ship and args.ship not in models:
        phase(record, progress, "trainval", ship)
    record.save()
    names = [name for name, _, _ in ladder_voc07.rungs(config)] + [PLAIN, REGRESSED]
    print(f"\n{table(record, datasets, names)}\n\n{times(record)}\nwritten to {record.path}")


def load(args: argparse.Namespace, split: str) -> Dataset:
    """A split, or the first images of it."""
    dataset = load_voc(args.root, split, year=args.year)
    if not args.limit or args.limit >= len(dataset):
        return dataset
    name = f"{dataset.name}, first {args.limit}"
    return replace(dataset, name=name, samples=dataset.samples[: args.limit])


def facts(
    args: argparse.Namespace, config: Config, datasets: Mapping[str, Dataset]
) -> dict[str, Any]:
    """What decides the figures, and what one wants to know of the machine."""
    versions = {name: installed(name) for name in PACKAGES}
    ids = [
        sha256(*(sample.image_id for sample in datasets[split].samples))
        for split in ("train", "val")
    ]
    return {
        "key": sha256(digest(config), json.dumps(versions), *ids),
        "command": shlex.join(["python", *sys.argv]),
        "seed": config.seed,
        "changed_settings": differences(config, Config()),
        "config": to_dict(config),
        "images": {split: len(dataset) for split, dataset in datasets.items()},
        "versions": {"python": sys.version.split()[0], **versions},
        "threads": args.threads or available_cores(),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("root", type=Path, help="a VOC2007 folder, or a devkit that holds it")
    parser.add_argument("--run", type=Path, default=Path("runs/reproduce"), help="keeps everything")
    parser.add_argument("--year", type=int, default=2007)
    parser.add_argument("--config", type=Path, default=None)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--ladder", action="store_true", help="SVMs on every layer, too")
    parser.add_argument("--ship", metavar="NAME", help="train on trainval, into the package")
    parser.add_argument(
        "--own-cache",
        action="store_true",
        help="the shipped model computes its proposals and maps anew, so that its time is whole",
    )
    parser.add_argument("--limit", type=int, default=0, help="the first so many images of a split")
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args(argv)
    try:
        reproduce(args)
    except SppdetError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
