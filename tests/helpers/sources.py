"""Sources of images as results are recorded under them, and records of what was found in them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from sppdet.core.types import Detections

CLASSES = ("cat", "dog", "кот")


class Source(NamedTuple):
    """A file, or an address where `path` is None."""

    name: str
    path: Path | None = None

    @property
    def stem(self) -> str:
        return Path(self.name).stem


def source(path: Path) -> Source:
    """A source of a file, which is made with its own name in it if it is missing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(str(path).encode("utf-8", "surrogateescape"))
    return Source(str(path), path)


def detections(count: int, seed: int = 0, side: float = 60) -> Detections:
    """So many detections in an image of `side` x `side` pixels, best first."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, side / 2, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, side / 2, (count, 2))], axis=1)
    scores = np.sort(rng.uniform(0, 1, count))[::-1].astype(np.float32)
    labels = rng.integers(0, len(CLASSES), count)
    return Detections(
        boxes.astype(np.float32), scores, labels, CLASSES, np.float32(3) * scores - np.float32(1)
    )
