"""Trainings on other people's data sets: accuracy, time and memory, from random layers and others.

    python scripts/benchmarks/own_data.py SETS --run runs/own-data --methods from-default

SETS holds a data set per folder, in any format (default: SPPDET_SETS, else ../shared/data/sets).
Each method is the command that a user would give, in a process of its own, with its own proposals
and feature maps; `sppdet evaluate` follows on the set's val, or its test. Of sets named by
`--hold-out` a fifth of the training images is held out instead, drawn once for all methods. Data
sets go one after the other, and the methods of each take turns. Every finished row is kept in
RUN/own_data.json, and is not run again; a row that was interrupted begins anew.

Expect 20 minutes or more for `from-none`, and 5 for `from-default`, per set of 300 images.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sppdet.core.errors import SppdetError
from sppdet.core.files import atomic_write_json
from sppdet.core.model_file import read_header
from sppdet.core.progress import duration

SPPDET = (sys.executable, "-c", "from sppdet.cli import main; main()")
# The words of each method's command that come after the data set and the run's folder.
METHODS: dict[str, tuple[str, ...]] = {
    "from-none": ("train", "--from", "none"),
    "from-default": ("train", "--from", "default"),
    "add-class": ("add-class", "--model", "default"),
}
# Data sets whose own parts for evaluation are too broken to evaluate on.
HELD_OUT = ("ships_yolo",)
UNIT = 1 if sys.platform == "darwin" else 1024

Row = dict[str, Any]


class Cost(NamedTuple):
    """Wall time of a command, and the most memory that its process held."""

    seconds: float
    peak_gb: float


def run_command(words: Sequence[str | Path], log: Path) -> Cost:
    """Run a `sppdet` command, its output in `log`; SppdetError where it fails."""
    start = time.perf_counter()
    with log.open("a") as stream:
        job = subprocess.Popen([*SPPDET, *map(str, words)], stdout=stream, stderr=stream)
        try:
            _, status, usage = os.wait4(job.pid, 0)
        except BaseException:
            job.kill()
            job.wait()
            raise
    # It has been waited for: its object must not wait again.
    job.returncode = os.waitstatus_to_exitcode(status)
    if job.returncode:
        last = log.read_text().strip().splitlines()[-1:]
        raise SppdetError(
            f"`sppdet {words[0]}` failed ({'; '.join(last)})", path=log, hint="read the log"
        )
    return Cost(time.perf_counter() - start, usage.ru_maxrss * UNIT / 1e9)


def held_out_splits(data: Path, folder: Path, log: Path) -> tuple[list[str], list[str]]:
    """Hold out a fifth of the training images; the options that name each of the two parts."""
    if not folder.is_dir():
        words = ["data", "split", str(data), "--split", "train", "--lists", "--out", str(folder)]
        run_command(words, log)
    train, val = (["--split", str(folder / f"{name}.txt")] for name in ("train", "val"))
    return train, val


def measure(data: Path, method: str, run: Path, options: argparse.Namespace) -> Row:
    """Train on a data set by one method and evaluate; the row of the table."""
    folder, log = run / data.name / method, run / data.name / f"{method}.log"
    shutil.rmtree(folder, ignore_errors=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    train: list[str] = []
    val: list[str] = []
    if data.name in options.hold_out:
        train, val = held_out_splits(data, run / data.name / "splits", log)
    common = [] if options.threads is None else ["--threads", str(options.threads)]
    command, *words = METHODS[method]
    model, out = folder / "model.safetensors", folder / "evaluation"
    if command == "train":
        changes = [word for change in options.set for word in ("--set", change)]
        words += ["--run", str(folder), *changes]
    else:
        folder.mkdir()
        words += ["--out", str(model)]
    cost = run_command([command, data, *words, *train, *common], log)
    words = ["evaluate", str(data), "--model", str(model), "--out", str(out), "--metric", "both"]
    evaluation = run_command([*words, *val, *common], log)
    report = json.loads((out / "report.json").read_bytes())
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return {
        "images": training_images(model),
        "evaluated_on": report["voc"]["images"],
        "ap50": report["coco"]["ap50"],
        "ap": report["coco"]["ap"],
        "map_area": report["voc"]["map_area"],
        "seconds": round(cost.seconds, 1),
        "peak_gb": round(cost.peak_gb, 2),
        "evaluation_seconds": round(evaluation.seconds, 1),
    }


def training_images(model: Path) -> int:
    """The images that a model was trained on; where classes were added, those of the most shown."""
    provenance = read_header(model).provenance
    added = provenance.get("classes", {}).get("added", [])
    return int(max((one["images"] for one in added), default=provenance["images"]))


def table(rows: dict[str, dict[str, Row]]) -> str:
    """Markdown: a line per data set and method."""
    lines = [
        "| data set | images | method | AP50 | AP | seconds | memory, GB |",
        "|---|---|---|---|---|---|---|",
    ]
    for data, methods in rows.items():
        for method, row in methods.items():
            scores = " | ".join(f"{100 * row[key]:.1f}" for key in ("ap50", "ap"))
            images = f"{row['images']}, {row['evaluated_on']} to evaluate on"
            cost = f"{row['seconds']:.0f} | {row['peak_gb']:.1f}"
            lines.append(f"| {data} | {images} | {method} | {scores} | {cost} |")
    return "\n".join(lines)


def processor() -> str:
    """The processor's name, and how many cores this process may use."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the options; a data set or method that there is not is an error of usage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    default = os.environ.get("SPPDET_SETS", "../shared/data/sets")
    parser.add_argument("folder", metavar="SETS", type=Path, nargs="?", default=Path(default))
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="all by default")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--hold-out", nargs="*", metavar="NAME", default=list(HELD_OUT))
    parser.add_argument("--run", type=Path, default=Path("runs/own-data"))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(words)
    if not options.folder.is_dir():
        parser.error(f"{options.folder} is no folder; set SPPDET_SETS to that of the data sets")
    there = sorted(path.name for path in options.folder.iterdir() if path.is_dir())
    options.sets = options.sets or there
    if unknown := [name for name in options.sets if name not in there]:
        parser.error(f"no data set {unknown[0]!r}; there are {', '.join(there)}")
    return options


def main(words: Sequence[str] | None = None) -> int:
    options = parse(words)
    path: Path = options.run / "own_data.json"
    record: dict[str, Any] = {"rows": {}}
    if path.is_file():
        record = json.loads(path.read_bytes())
    record["processor"] = processor()
    try:
        for name in options.sets:
            rows = record["rows"].setdefault(name, {})
            for method in options.methods:
                if method in rows:
                    continue
                print(f"{name}, {method} ...", flush=True)
                rows[method] = measure(options.folder / name, method, options.run, options)
                atomic_write_json(path, record)
                print(f"  trained in {duration(rows[method]['seconds'])}", flush=True)
    except SppdetError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"\n{table(record['rows'])}\n\n{record['processor']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
