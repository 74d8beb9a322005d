"""Trains a classifier in processes that kill themselves: `python -m
tests.helpers.killed_classification`.

Arguments: DATA OUT, DATA being folders of images. `OUT/whole` is trained at one go; the trainings
of `OUT/killed` get SIGKILL after chosen steps, or before a chosen file is put in place. Prints how
many processes were killed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import cv2

# Once here, and not in every process that draws curves.
import matplotlib.backends.backend_agg  # noqa: F401
import torch

from sppdet.classification.config import load_classification_config
from sppdet.classification.train import train_classifier
from sppdet.core.progress import NullProgress, Progress
from sppdet.datasets import load_class_folders
from tests.helpers.killed_training import KillingProgress, forked, kill_before_file

SETTINGS = (
    "network.width=0.1",
    "network.fc6=16",
    "network.fc7=16",
    "network.input_side=64",
    "network.levels=[2, 1]",
    "training.sizes=[64, 48]",
    "training.epochs=4",
    "training.batch=5",
    "training.save_every=2",
    "augment.crops=anywhere",
)
# Steps done when a process is killed, counted over the whole training: within an epoch between
# two saves, right after one, at the end of an epoch, in a later one.
KILLED_AT = (1, 2, 3, 4, 9, 11)
# Files that are put in place before the one that a process is killed at.
KILLED_BEFORE = (1, 3, 3)


def main() -> None:
    """Trains twice; see above."""
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    images = load_class_folders(data)
    config = load_classification_config(None, SETTINGS)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)

    def run(name: str, progress: Progress) -> None:
        train_classifier(config, images, out / name, validation=images, progress=progress)

    def killed_at(step: int) -> Callable[[int], None]:
        return lambda _: run("killed", KillingProgress("training", step))

    def killed_before(number: int) -> Callable[[int], None]:
        def job(report: int) -> None:
            kill_before_file(number, report)
            run("killed", NullProgress())

        return job

    assert forked(lambda _: run("whole", NullProgress()))[0]
    jobs = [*map(killed_at, KILLED_AT), *map(killed_before, KILLED_BEFORE)]
    killed = sum(not forked(job)[0] for job in jobs)
    assert forked(lambda _: run("killed", NullProgress()))[0]
    print(killed)


if __name__ == "__main__":
    main()
