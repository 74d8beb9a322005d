"""Kill `sppdet detect --jsonl` at random moments, give it again, and compare with an unbroken run.

    python scripts/fuzz/killed_detect.py --images 10000 --kills 20 --model fast

Makes the images, runs the command once unbroken, then once more, killed (SIGKILL) at random lines
and up to a fiftieth of a second later. After each kill, the file has to be the beginning of the
unbroken run's, up to a part of one line; at the end both files, and with `--drawings` both folders,
have to be the same to the byte. Every process is forked from this one, which has imported
everything. Exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image

from sppdet.cli.main import main as sppdet
from sppdet.core.jit import warm_up
from sppdet.detection import ensemble  # noqa: F401  # imported once, not in every process

# Seconds between a line and the kill after it, at most: somewhere in the next images.
MOST_DELAY = 0.02


class Killed(NamedTuple):
    """What became of the runs: processes that were killed, lines at the end, what is wrong."""

    kills: int
    lines: int
    problems: list[str]


def make_images(folder: Path, count: int, seed: int) -> None:
    """Make small images of rectangles on noise, every hundredth of them broken."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for number in range(count):
        image = rng.integers(90, 120, (48, 64, 3), dtype=np.uint8)
        for _ in range(3):
            x, y = rng.integers(0, 44), rng.integers(0, 28)
            image[y : y + 20, x : x + 20] = rng.integers(0, 256, 3)
        path = folder / f"{number:05d}.png"
        Image.fromarray(image).save(path)
        if number % 100 == 7:
            path.write_bytes(path.read_bytes()[:40])


def start(words: Sequence[str]) -> int:
    """Run the command in a process of its own, silently; returns its number."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        sppdet(words)
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 0
    finally:
        os._exit(code)


def run_killed(words: Sequence[str], lines: Path, whole: bytes, kills: int, seed: int) -> Killed:
    """Run the command, killed so many times, then to its end."""
    rng = random.Random(seed)
    ends = [at + 1 for at, byte in enumerate(whole) if byte == ord("\n")]
    done, problems = 0, []
    for size in sorted(rng.choices([0, *ends[:-1]], k=kills)):
        child = start(words)
        while (gone := os.waitpid(child, os.WNOHANG))[0] == 0:
            if lines.exists() and lines.stat().st_size >= size:
                time.sleep(rng.uniform(0, MOST_DELAY))
                os.kill(child, signal.SIGKILL)
                gone = os.waitpid(child, 0)
                break
            time.sleep(0.001)
        done += os.WIFSIGNALED(gone[1])
        left = lines.read_bytes() if lines.exists() else b""
        if not whole.startswith(left):
            problems.append(f"after kill {done}: {len(left)} bytes that are none of the whole run")
    os.waitpid(start(words), 0)
    if lines.read_bytes() != whole:
        problems.append("the lines at the end are not those of an unbroken run")
    return Killed(done, len(ends), problems)


def check(
    folder: Path, model: str, images: int, kills: int, seed: int, *, drawings: bool = False
) -> Killed:
    """Make the images in `folder`, run the command whole and killed, and compare."""
    # A forked process has only the thread that forked it: no library may wait for others.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    warm_up()
    make_images(folder / "images", images, seed)
    words = ["detect", str(folder / "images"), "--model", model, "--threads", "1"]
    words += ["--threshold", "0.3"]
    names = ("whole", "killed")
    runs = {
        name: [*words, "--jsonl", str(folder / f"{name}.jsonl")]
        + (["--out", str(folder / name)] if drawings else [])
        for name in names
    }
    os.waitpid(start(runs["whole"]), 0)
    whole = (folder / "whole.jsonl").read_bytes()
    found = run_killed(runs["killed"], folder / "killed.jsonl", whole, kills, seed)
    if found.lines != images:
        found.problems.append(f"{found.lines} lines of {images} images")
    if drawings and _files(folder / "whole") != _files(folder / "killed"):
        found.problems.append("the drawings are not those of an unbroken run")
    return found


def _files(folder: Path) -> dict[str, bytes]:
    """Read the files of a folder, but for what a kill left of a file that was being written."""
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")
    }


def main() -> None:
    """Check, and print what was found; see above."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="fast")
    parser.add_argument("--drawings", action="store_true", help="write and compare drawings too")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="killed-detect-"))
    began = time.monotonic()
    found = check(
        folder,
        options.model,
        options.images,
        options.kills,
        options.seed,
        drawings=options.drawings,
    )
    print(f"{found.kills} kills, {found.lines} lines, {time.monotonic() - began:.0f} s")
    if found.problems:
        print("\n".join([*found.problems, f"kept in {folder}"]))
        sys.exit(1)
    with contextlib.suppress(OSError):
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
