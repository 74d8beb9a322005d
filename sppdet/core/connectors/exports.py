"""From detections to what supervision, FiftyOne, torchvision, transformers and pandas take."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sppdet.core.errors import SppdetError

# Columns of a data frame: class name, probability, margin, and corners in pixels.
COLUMNS = ("class", "score", "margin", "x1", "y1", "x2", "y2")


class DetectionArrays(Protocol):
    """The arrays of `core.types.Detections`."""

    @property
    def boxes(self) -> NDArray[np.float32]:
        """`(N, 4)`, x1 y1 x2 y2 in pixels."""
        ...

    @property
    def scores(self) -> NDArray[np.float32]:
        """`(N,)`, probabilities."""
        ...

    @property
    def margins(self) -> NDArray[np.float32]:
        """`(N,)`, what the scores follow from."""
        ...

    @property
    def labels(self) -> NDArray[np.int64]:
        """`(N,)`, index into `classes`."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        ...


def to_supervision(found: DetectionArrays) -> Any:
    """`supervision.Detections`, with `class_name` and `margin` in its `data`."""
    return _library("supervision").Detections(
        xyxy=found.boxes.copy(),
        confidence=found.scores.copy(),
        class_id=found.labels.copy(),
        data={"class_name": np.array(_names(found), str), "margin": found.margins.copy()},
    )


def to_fiftyone(found: DetectionArrays, width: int, height: int) -> Any:
    """`fiftyone.Detections`, whose boxes are x, y, width and height as shares of the image's."""
    fiftyone = _library("fiftyone")
    size = np.array([width, height], np.float64)
    corners = found.boxes[:, :2] / size
    sides = (found.boxes[:, 2:] - found.boxes[:, :2].astype(np.float64)) / size
    rows = zip(_names(found), np.hstack([corners, sides]).tolist(), found.scores, strict=True)
    return fiftyone.Detections(
        detections=[
            fiftyone.Detection(label=name, bounding_box=box, confidence=float(score))
            for name, box, score in rows
        ]
    )


def to_torchvision(found: DetectionArrays) -> dict[str, Any]:
    """Tensors `boxes (N, 4)`, `labels int64 (N,)` and `scores (N,)`, as its detectors give them.

    Labels index the detections' classes, of which none is the background.
    """
    torch = _library("torch")
    arrays = (found.boxes.copy(), found.labels.copy(), found.scores.copy())
    return dict(zip(("boxes", "labels", "scores"), map(torch.from_numpy, arrays), strict=True))


def to_transformers(found: DetectionArrays) -> list[dict[str, Any]]:
    """What the object-detection pipeline gives: `score`, `label` and `box`, corners in pixels."""
    rows = zip(_names(found), found.scores.tolist(), found.boxes.tolist(), strict=True)
    return [
        {
            "score": score,
            "label": name,
            "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)),
        }
        for name, score, box in rows
    ]


def to_pandas(found: DetectionArrays) -> Any:
    """`pandas.DataFrame` of the columns `COLUMNS`, one row per detection, best first."""
    values = [_names(found), found.scores, found.margins, *found.boxes.T]
    return _library("pandas").DataFrame(dict(zip(COLUMNS, values, strict=True)))


def _names(found: DetectionArrays) -> list[str]:
    return [found.classes[label] for label in found.labels.tolist()]


def _library(name: str) -> Any:
    """Import a library; SppdetError where it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        problem = f"{name} cannot be imported ({error})"
        raise SppdetError(problem, hint=f"pip install {name}") from None
