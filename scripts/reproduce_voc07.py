"""From a VOC2007 folder to the README's table, in one command that goes on where it stopped.

    python scripts/reproduce_voc07.py VOCdevkit --run runs/reproduce
    python scripts/reproduce_voc07.py VOCdevkit --run runs/reproduce --ship default

Trains on `train`, evaluates on `val` with box regression and without (`--ladder`: SVMs on every
layer as well), then the package's presets, for which it trains what other models they are made of
(configs/NAME.toml), and prints the table beside the published figures. `--presets` names those
that are wanted, or none. Scores are calibrated on `val`; what that gives for a preset is kept as
the table for its file. `--ship NAME` then trains on `trainval`, for as many epochs, and puts the
model into the package under that name, with the calibration of the model of `train` (the other one
that is shipped: `--config configs/lite0.toml --presets --ship lite0`, with a run of its own).
Figures, seconds per stage (of all the runs that it took, added up), peak memory, seed and versions
are kept in RUN/reproduce.json; what it holds is not computed again.

Expect 4,008 training and 1,000 validation images of VOC2007's trainval where the splits are ours,
2,501 and 2,510 where they are the official ones; some three hours on two cores, half of that
without presets, and 0.6 MB of disk per image and backbone.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import paper_ladder
from run_record import Record, Stopwatch, phase

from sppdet.cli.common import use_threads
from sppdet.cli.terminal.progress import terminal_progress
from sppdet.core.errors import SppdetError
from sppdet.core.files import sha256
from sppdet.core.model_file import SUFFIX, read_header
from sppdet.core.parallel import available_cores
from sppdet.core.progress import duration
from sppdet.core.settings import differences, digest, to_dict
from sppdet.core.settings import load as load_settings
from sppdet.core.types import Dataset
from sppdet.core.versions import installed
from sppdet.datasets import load_dataset
from sppdet.detection.dataset_inference import detect_dataset
from sppdet.detection.detector import DEFAULT_MODEL, Detector
from sppdet.detection.ensemble import Ensemble
from sppdet.detection.model_zoo import SHIPPED, Preset, list_presets
from sppdet.detection.probabilities.calibrate import fit_detections
from sppdet.evaluation.detection_report import voc_dict
from sppdet.evaluation.voc_ap import evaluate_voc
from sppdet.training import train
from sppdet.training.config import TrainingConfig

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
PHASES = ("train", "val", "presets", "ladder", "trainval")
# Where the other models that a preset is made of have their settings, by name.
CONFIGS = Path(__file__).resolve().parent.parent / "configs"
STAGES = (
    "proposals",
    "feature maps",
    "fine-tuning",
    "compression",
    "positives, box regression, context",
    "hard negatives",
    "detecting",
    "other",
)


def member_names(presets: Sequence[Preset]) -> list[str]:
    """List the models that presets are made of, but for the one that is trained in any case."""
    names = dict.fromkeys(name for preset in presets for name in preset.models)
    return [name for name in names if name != DEFAULT_MODEL]


def row(name: str) -> str:
    """Name the row of a preset, or of another model."""
    return f"sppdet, {name}"


def load_changed(path: Path, changes: Sequence[str]) -> Detector:
    """Load a model under changed settings."""
    return Detector.load(path).configure(overrides=changes)


def load_preset(preset: Preset, models: Mapping[str, Path]) -> Ensemble:
    """Load a preset, of models that were trained here."""
    return Ensemble.load_members(preset.members(models), preset.fusion)


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


class Reproduction:
    """Does all that the command line asks for; what the record holds is not computed again."""

    def __init__(self, args: argparse.Namespace) -> None:
        overrides = [*args.set, f"seed={args.seed}"] if args.seed is not None else args.set
        use_threads(args.threads)
        self.args, self.workers = args, args.threads or 0
        self.config = load_settings(TrainingConfig, args.config, overrides)
        known = list_presets()
        self.presets = [preset for preset in known if preset.name in args.presets]
        self.members = {
            name: load_settings(TrainingConfig, CONFIGS / f"{name}.toml", overrides)
            for name in member_names(known)
        }
        splits = ("train", "val", "trainval") if args.ship else ("train", "val")
        self.datasets = {split: load(args, split) for split in splits}
        self.record = Record(args.run / RECORD, self.facts())
        self.results, self.models = self.record.values["results"], self.record.values["models"]
        self.model = args.run / "model.safetensors"

    def run(self) -> None:
        """Every phase that is not in the record yet, then the tables."""
        progress, rungs = terminal_progress(), paper_ladder.rungs(self.config)
        wanted = [row(name) for name in member_names(self.presets)]
        wanted += [row(preset.name) for preset in self.presets]
        phases = (
            ("train", self.learn, "train" not in self.models or not self.model.is_file()),
            ("val", self.evaluate, REGRESSED not in self.results),
            ("presets", self.evaluate_presets, not set(wanted) <= set(self.results)),
            ("ladder", self.climb, self.args.ladder and rungs[-1][0] not in self.results),
            ("trainval", self.ship, self.args.ship and self.args.ship not in self.models),
        )
        for name, work, due in phases:
            if due:
                phase(self.record, progress, name, work)
        self.record.save()
        names = [*(name for name, _, _ in rungs), PLAIN, REGRESSED, *wanted]
        print(f"\n{table(self.record, self.datasets, names)}\n\n{times(self.record)}")
        print(f"written to {self.record.path}")

    def facts(self) -> dict[str, Any]:
        """Collect what decides the figures, and what one wants to know of the machine."""
        versions = {name: installed(name) for name in PACKAGES}
        decisive = [digest(config) for config in (self.config, *self.members.values())]
        decisive += [preset.path.read_text() for preset in list_presets()]
        decisive += [
            sample.image_id for split in ("train", "val") for sample in self.datasets[split]
        ]
        return {
            "key": sha256(json.dumps([versions, decisive])),
            "command": shlex.join(["python", *sys.argv]),
            "seed": self.config.seed,
            "changed_settings": differences(self.config, TrainingConfig()),
            "config": to_dict(self.config),
            "images": {split: len(dataset) for split, dataset in self.datasets.items()},
            "versions": {"python": sys.version.split()[0], **versions},
            "threads": self.args.threads or available_cores(),
        }

    def learn(self, watch: Stopwatch) -> None:
        """The model, on `train`."""
        self._train(self.config, "train", self.args.run, watch)
        self.models["train"] = str(self.model)

    def evaluate(self, watch: Stopwatch) -> None:
        """Its figures on `val`, without box regression and with it."""
        for name, regression in ((PLAIN, "none"), (REGRESSED, "mean")):
            changes = [f"detection.box_regression={regression}"]
            self._evaluate(name, partial(load_changed, self.model, changes), watch)

    def evaluate_presets(self, watch: Stopwatch) -> None:
        """The presets' figures, and those of what other models they are made of."""
        made = {DEFAULT_MODEL: self.model}
        for name in member_names(self.presets):
            made[name] = self._train(self.members[name], "train", self.args.run / name, watch)
            self._evaluate(row(name), partial(Detector.load, made[name]), watch)
        for preset in self.presets:
            self._evaluate(row(preset.name), partial(load_preset, preset, made), watch)

    def _evaluate(
        self, name: str, load: Callable[[], Detector | Ensemble], watch: Stopwatch
    ) -> None:
        if name not in self.results:
            data, cache = self.datasets["val"], self.args.run / "cache"
            detector = load()
            detections = detect_dataset(detector, data, cache, watch, workers=self.workers)
            fitted = fit_detections(detector.classes, data, detections)
            self.results[name] = voc_dict(evaluate_voc(data, detections)) | {
                "calibration": {**fitted.provenance(data), "table": fitted.calibration.toml()}
            }

    def climb(self, watch: Stopwatch) -> None:
        """The paper's ladder."""
        data, run = self.datasets, self.args.run
        detectors = paper_ladder.rung_models(self.config, data["train"], run, watch)
        rungs = paper_ladder.evaluate(self.config, detectors, data["val"], run, watch)
        self.results.update({name: voc_dict(rung) for name, rung in rungs.items()})

    def ship(self, watch: Stopwatch) -> None:
        """The model on `trainval`, into the package."""
        run, name = self.args.run / "trainval", self.args.ship
        score = 100 * (self.results[REGRESSED]["map11"] or 0.0)
        about = (
            f"Pascal VOC's 20 classes; trained as long on train alone it has {score:.1f} mAP"
            f" (11-point) on val"
        )
        cache = run / "cache" if self.args.own_cache else None
        made = self._train(self.config, "trainval", run, watch, cache=cache, description=about)
        target = SHIPPED / f"{name}{SUFFIX}"
        # It has seen every image; the model of `train` was calibrated on some that it had not.
        held = Detector.load(self.model)
        fitted = {"calibration": read_header(self.model).provenance["calibration"]}
        Detector.load(made).with_calibration(held.calibration).save(
            target, description=about, provenance=read_header(made).provenance | fitted
        )
        self.models[name] = str(made)
        watch.say(f"{target}: {target.stat().st_size / 1e6:.1f} MB")

    def _train(
        self,
        config: TrainingConfig,
        split: str,
        run: Path,
        watch: Stopwatch,
        *,
        cache: Path | None = None,
        description: str = "",
    ) -> Path:
        return train(
            config,
            self.datasets[split],
            run,
            validation=self.datasets["val"] if split == "train" else None,
            cache_dir=cache or self.args.run / "cache",
            progress=watch,
            workers=self.workers,
            description=description,
        )


def load(args: argparse.Namespace, split: str) -> Dataset:
    """A split, or the first images of it."""
    dataset = load_dataset(args.root, split, year=args.year, max_lost=0.0)
    if not args.limit or args.limit >= len(dataset):
        return dataset
    name = f"{dataset.name}, first {args.limit}"
    return replace(dataset, name=name, samples=dataset.samples[: args.limit])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("root", type=Path, help="a VOC2007 folder, or a devkit that holds it")
    parser.add_argument("--run", type=Path, default=Path("runs/reproduce"), help="keeps everything")
    parser.add_argument("--year", type=int, default=2007)
    parser.add_argument("--config", type=Path, default=None)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seed", type=int, default=None)
    known = [preset.name for preset in list_presets()]
    parser.add_argument("--presets", nargs="*", choices=known, default=known, metavar="PRESET")
    parser.add_argument("--ladder", action="store_true", help="SVMs on every layer, too")
    parser.add_argument("--ship", metavar="NAME", help="train on trainval, into the package")
    parser.add_argument(
        "--own-cache",
        action="store_true",
        help="the shipped model computes its proposals and maps anew, so that its time is whole",
    )
    parser.add_argument("--limit", type=int, default=0, help="use only the first images of a split")
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args(argv)
    try:
        Reproduction(args).run()
    except SppdetError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
