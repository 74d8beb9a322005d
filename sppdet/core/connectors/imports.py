"""From other libraries' detections to arrays, so that evaluation can take them.

Only fields are read: no library is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sppdet.core.errors import EvaluationError


class Parts(NamedTuple):
    """What `core.types.Detections` is made of, best first; without margins these are the scores."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    margins: NDArray[np.float32]


def from_supervision(found: Any, classes: Sequence[str] | None = None) -> Parts:
    """Read `supervision.Detections`: `xyxy`, `confidence`, and `class_id` or names in `data`.

    Args:
        classes: class names. Without them those of `data["class_name"]` are used, in the order of
            the alphabet.

    Raises EvaluationError without confidences or class ids, for a name that is not among the
    classes, and where there are neither names nor classes.
    """
    if found.confidence is None or (found.class_id is None and len(found)):
        raise EvaluationError(
            "supervision's detections have no confidence or class_id",
            hint="give those of a detector, not annotations",
        )
    names = found.data.get("class_name")
    if names is None:
        return _of_ids(found.xyxy, found.confidence, found.class_id, classes)
    return _of_names(found.xyxy, found.confidence, names, classes)


def from_torchvision(found: Mapping[str, Any], classes: Sequence[str]) -> Parts:
    """Read a detector's `boxes`, `labels` and `scores`; labels index `classes`.

    Of torchvision's own weights, `weights.meta["categories"]` are those, background included.
    """
    return _of_ids(found["boxes"], found["scores"], found["labels"], classes)


def from_transformers(
    found: Iterable[Mapping[str, Any]], classes: Sequence[str] | None = None
) -> Parts:
    """Read what the object-detection pipeline gives: `score`, `label` and `box` of each.

    Raises EvaluationError for a label that is not among `classes`; without them the labels are.
    """
    rows = list(found)
    boxes = [[one["box"][key] for key in ("xmin", "ymin", "xmax", "ymax")] for one in rows]
    return _of_names(boxes, [one["score"] for one in rows], [one["label"] for one in rows], classes)


def from_ultralytics(found: Any, classes: Sequence[str] | None = None) -> Parts:
    """Read one of ultralytics' `Results`: `boxes.xyxy`, `boxes.conf`, `boxes.cls` and `names`.

    Raises EvaluationError for a name that is not among `classes`; without them all `names` are.
    """
    names = found.names
    known = dict(enumerate(names)) if isinstance(names, list | tuple) else dict(names)
    ids = _array(found.boxes.cls).astype(np.int64).tolist()
    own = [known[number] for number in ids]
    every = [known[number] for number in sorted(known)] if classes is None else classes
    return _of_names(found.boxes.xyxy, found.boxes.conf, own, every)


def from_pandas(table: Any, classes: Sequence[str] | None = None) -> Parts:
    """Read a data frame's `class`, `score`, `x1`, `y1`, `x2`, `y2`, and `margin` if it is there.

    Raises EvaluationError for a column that is missing, and for a name that is not among `classes`;
    without them the names are.
    """
    wanted = ("x1", "y1", "x2", "y2", "score", "class")
    missing = [name for name in wanted if name not in table.columns]
    if missing:
        raise EvaluationError(
            f"the data frame has no column {', '.join(missing)}",
            hint=f"give it {', '.join(wanted)}",
        )
    boxes = [table[name].to_numpy() for name in wanted[:4]]
    margins = table["margin"].to_numpy() if "margin" in table.columns else None
    names = [str(name) for name in table["class"]]
    return _of_names(np.stack(boxes, axis=1), table["score"], names, classes, margins)


def _of_names(
    boxes: Any,
    scores: Any,
    names: Iterable[Any],
    classes: Sequence[str] | None,
    margins: Any = None,
) -> Parts:
    own = [str(name) for name in names]
    known = tuple(sorted(set(own)) if classes is None else classes)
    number = {name: label for label, name in enumerate(known)}
    unknown = sorted(set(own) - set(known))
    if unknown:
        raise EvaluationError(
            f"detections of {', '.join(map(repr, unknown))}, which is not among the classes",
            hint=f"leave them out, or rename them: the classes are {', '.join(known)}",
        )
    return _sorted(boxes, scores, [number[name] for name in own], known, margins)


def _of_ids(boxes: Any, scores: Any, labels: Any, classes: Sequence[str] | None) -> Parts:
    if classes is None:
        raise EvaluationError(
            "detections with numbers of classes alone", hint="give the names: classes=[..]"
        )
    return _sorted(boxes, scores, labels, tuple(classes), None)


def _sorted(boxes: Any, scores: Any, labels: Any, classes: tuple[str, ...], margins: Any) -> Parts:
    """Put detections in the order of their scores; equal ones stay in theirs."""
    values = _array(scores).astype(np.float32).reshape(-1)
    order = np.argsort(-values, kind="stable")
    return Parts(
        _array(boxes).astype(np.float32).reshape(-1, 4)[order],
        values[order],
        _array([] if labels is None else labels).astype(np.int64)[order],
        classes,
        (values if margins is None else _array(margins).astype(np.float32))[order],
    )


def _array(values: Any) -> NDArray[Any]:
    """An array of anything like one; tensors come from wherever they are."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values)
