"""Trains in processes that kill themselves: `python -m tests.helpers.killed_training DATA OUT`.

Every process is forked from this one, which has imported and compiled everything and started no
thread, and gives itself SIGKILL at a chosen moment. Three trainings of one data set: `OUT/whole`
is not killed, `OUT/writes` before every file that it puts in place, `OUT/stages` in the middle of
every stage. Prints what the processes were doing when they were killed, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import torch

from sppdet.core.jit import warm_up
from sppdet.core.progress import Advance, NullProgress, Progress
from sppdet.core.settings import load
from sppdet.datasets import load_dataset
from sppdet.training import svm_stage, train
from sppdet.training.config import TrainingConfig
from sppdet.training.pipeline import LOG_FILE
from sppdet.training.region_pass import LABEL

# Everything small, but every stage longer than the space between two saves of it.
SETTINGS = (
    "features.backbone=efficientnet_lite0",
    "features.scales=[96]",
    "head.pyramid_channels=8",
    "head.fc6=32",
    "head.fc7=32",
    "proposals.max_proposals=150",
    "finetune.steps=14",
    "finetune.checkpoint_every=5",
    "finetune.augment_prob=0.5",
    "svm.proposals_per_image=100",
    "head.fc6_rank=8",
)
IMAGES, HELD_OUT = 6, 2
SVM_SAVE_EVERY = 4
# More than there are files: a run that never ends is an error, not a hang.
MOST_KILLS = 60

# Where `stages` is killed, one process after the other: (stage, items done when it happens).
KILLS = (
    ("proposals", 2),
    ("feature maps", 3),
    ("fine-tuning", 3),
    ("fine-tuning", 7),
    ("fine-tuning", 13),
    ("compression", 3),
    (LABEL, 4),
    ("hard negatives", 2),
    ("hard negatives", 5),
    ("detecting", 1),
)


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KillingProgress(NullProgress):
    """Ends the process when a stage has come so far."""

    def __init__(self, stage: str, done: int) -> None:
        self.stage, self.done = stage, done

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        """A stage; the one to be killed in counts its items."""
        came = 0

        def advance(count: int) -> None:
            nonlocal came
            came += count
            if label == self.stage and came >= self.done:
                kill_myself()

        yield advance


def kill_before_file(number: int, report: int) -> None:
    """From here on, the process is killed when the file of this number is to be put in place."""
    left = number

    def listen(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event == "os.rename":
            left -= 1
            if left == 0:
                os.write(report, os.fsencode(Path(str(arguments[1])).name))
                kill_myself()

    sys.addaudithook(listen)


def forked(job: Callable[[int], None]) -> tuple[bool, str]:
    """Whether the job ended (False: killed), and what it wrote to the file number it was given."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(read)
            job(write)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        told = stream.read().decode()
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if not killed and os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit("a training failed")
    return not killed, told


def main() -> None:
    """Trains three times and prints `{"writes": [file, ...], "stages": [[stage, done], ...]}`."""
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    dataset, held_out = load_dataset(data, "train"), load_dataset(data, "val")
    config = load(TrainingConfig, None, SETTINGS)
    svm_stage.SAVE_EVERY = SVM_SAVE_EVERY
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    warm_up()

    def run(name: str, progress: Progress) -> None:
        train(config, dataset, out / name, progress=progress, validation=held_out)

    def killed_in(stage: str, items: int) -> Callable[[int], None]:
        return lambda _: run("stages", KillingProgress(stage, items))

    def whole(_: int) -> None:
        run("whole", NullProgress())

    def interrupted(number: int) -> Callable[[int], None]:
        def job(report: int) -> None:
            kill_before_file(number, report)
            run("writes", NullProgress())

        return job

    if not forked(whole)[0]:
        raise SystemExit("nobody was to kill this one")
    writes: list[str] = []
    # The model and its log are written anew by every run: the log's turn is the last.
    while LOG_FILE not in writes and len(writes) < MOST_KILLS:
        # A process that only wrote anew what the one before it wrote would be followed by others.
        stuck = len(writes) > 2 and len(set(writes[-3:])) == 1
        writes.append(forked(interrupted(3 if stuck else 2))[1])
    if not forked(lambda _: run("writes", NullProgress()))[0]:
        raise SystemExit("nobody was to kill the last one")
    killed = []
    for stage, items in KILLS:
        done, _ = forked(killed_in(stage, items))
        if not done:
            killed.append([stage, items])
    if not forked(lambda _: run("stages", NullProgress()))[0]:
        raise SystemExit("nobody was to kill the last one")
    print(json.dumps({"writes": writes, "stages": killed}))


if __name__ == "__main__":
    main()
