"""What a run records of an image: plain values, in memory as in files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from sppdet.core.types import Detections, ImageArray

# What is known of an image: `error`, or what was found, such as width, height and detections.
Record = dict[str, Any]

BOX = "x1, y1, x2, y2 in pixels, from 0, x2 and y2 not included"


class Source(Protocol):
    """Where an image comes from: what results are recorded under."""

    @property
    def name(self) -> str:
        """The path as it was given, or an address."""
        ...

    @property
    def path(self) -> Path | None:
        """The file on this machine, if it is one."""
        ...

    @property
    def stem(self) -> str:
        """What files made of the image are named after."""
        ...


class Stamp(NamedTuple):
    """By which a file is told from another version of it: size in bytes, nanoseconds since 1970."""

    size: int
    mtime_ns: int


class Found(NamedTuple):
    """An image and what is recorded of it."""

    source: Source
    record: Record


def stamp(source: Source) -> Stamp | None:
    """Return a source's size and time; None for what is no file, or not there."""
    try:
        status = None if source.path is None else source.path.stat()
    except (OSError, ValueError):
        return None
    return status and Stamp(status.st_size, status.st_mtime_ns)


def detection_record(image: ImageArray, found: Detections) -> Record:
    """Record the detections of an image `uint8 (H, W, 3)`; `read_detections` gives them back."""
    objects = [
        {"class": one.name, "score": one.score, "margin": one.margin, "box": list(one.box)}
        for one in found
    ]
    return {"width": image.shape[1], "height": image.shape[0], "detections": objects}


def read_detections(record: Mapping[str, Any], classes: Sequence[str]) -> Detections:
    """Return the detections of a record; KeyError, TypeError or ValueError where it is damaged."""
    labels = {name: label for label, name in enumerate(classes)}
    objects = record["detections"]
    return Detections(
        np.array([one["box"] for one in objects], np.float32).reshape(-1, 4),
        np.array([one["score"] for one in objects], np.float32),
        np.array([labels[one["class"]] for one in objects], np.int64),
        tuple(classes),
        np.array([one["margin"] for one in objects], np.float32),
    )
