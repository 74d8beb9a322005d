"""Teaching wrong detections away: an added class's SVM solved anew, from where it stood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sppdet.core.boxes import box_iou
from sppdet.core.errors import ConfigError
from sppdet.core.images import read_image
from sppdet.core.parallel import matmul
from sppdet.core.progress import Progress
from sppdet.core.types import FloatArray
from sppdet.detection.added.classes import KnownClass
from sppdet.detection.added.learning import (
    HARD,
    POSITIVE_WEIGHT,
    REGRESSION_IOU,
    ROUNDS,
    C,
    solve_dual,
)
from sppdet.detection.added.regions import MOST_PROPOSALS, Model, join_features, region_features
from sppdet.heads.added.added_class import FEATURES, AddedClass
from sppdet.heads.svm_solver import DualProblem


class WrongImage(NamedTuple):
    """An image that does not show a class, or not in some boxes.

    Attributes:
        path: the image file.
        boxes: `float32 (N, 4)` that are not the class; None where nothing in the image is.
    """

    path: Path
    boxes: FloatArray | None = None


def correct_class(
    detector: Model, name: str, wrong: Sequence[WrongImage], progress: Progress
) -> KnownClass:
    """Learn that some regions are not of an added class.

    Its SVM is solved on its support vectors and on the hard ones of these regions, with the
    multipliers that it had; boxes and calibration stay.

    Raises:
        ConfigError: the class was trained with the model, or does not exist.
        ImageError: an image cannot be read.
    """
    known = {one.name: one for one in detector.parts.added}
    if name not in known:
        raise ConfigError(
            f"the model has no added class {name!r}",
            hint=f"it has {', '.join(known) or 'none'}; trained ones are not corrected",
        )
    old = known[name]
    scales = {n: float(s) for n, s in zip(FEATURES, old.model.scales, strict=True) if s > 0}
    with progress.task("features", len(wrong)) as advance:
        parts = []
        for one in wrong:
            parts.append(_features(detector, one, scales))
            advance(1)
    rows = np.concatenate(parts)
    model, hard = _solve(old.model, scales, rows)
    info = {**old.info, "corrected": int(old.info.get("corrected", 0)) + hard}
    progress.say(f"{name}: {hard} regions of {len(wrong)} images taught to be none")
    return old._replace(model=model, info=info)


def _features(detector: Model, one: WrongImage, scales: dict[str, float]) -> FloatArray:
    """`float32 (N, D)`, scaled: of the boxes and proposals close to them, or of all proposals."""
    image, head = read_image(one.path), detector.parts.head
    boxes = detector.propose(image)[:MOST_PROPOSALS]
    if one.boxes is not None:
        close = box_iou(boxes, one.boxes).max(axis=1, initial=0.0) > REGRESSION_IOU
        boxes = np.concatenate([one.boxes, boxes[close]]).astype(np.float32)
    regions = head.regions(head.prepare(detector.requests[0].compute(image)), boxes)
    return join_features(region_features(head, regions, tuple(scales)), scales, slice(None))


def _solve(model: AddedClass, scales: dict[str, float], rows: FloatArray) -> tuple[AddedClass, int]:
    """Solve with new negatives `(N, D)`, scaled; also how many of them were hard."""
    per_value = np.repeat(list(scales.values()), [len(getattr(model, name)) for name in scales])
    known = model.support.astype(np.float32) * per_value.astype(np.float32)
    sign, alpha = np.sign(model.multipliers), np.abs(model.multipliers)
    weights, bias = np.concatenate([getattr(model, n) for n in scales]) / per_value, model.bias[0]
    taken = np.zeros(len(rows), np.bool_)
    for _ in range(ROUNDS):
        margins = matmul(rows, weights.astype(np.float32)[:, None])[:, 0] + bias
        taken |= margins > HARD
        every = np.concatenate([known, rows[taken]])
        signs = np.concatenate([sign, np.full(int(taken.sum()), -1.0)]).astype(np.float64)
        dual = DualProblem(
            index=np.arange(len(every)),
            sign=signs,
            cost=np.where(signs > 0, C * POSITIVE_WEIGHT, C),
            alpha=np.concatenate([alpha, np.zeros(int(taken.sum()))]).astype(np.float64),
        )
        np.minimum(dual.alpha, dual.cost, out=dual.alpha)
        learned = solve_dual(every, dual)
        weights, bias = learned.solution.weights, np.float32(learned.solution.bias)
    ends = np.cumsum([len(getattr(model, name)) for name in scales])[:-1]
    raw = np.split((weights * per_value).astype(np.float32), ends)
    return replace(
        model,
        **dict(zip(scales, raw, strict=True)),
        bias=np.array([bias], np.float32),
        support=(learned.rows / per_value).astype(np.float16),
        multipliers=learned.multipliers.astype(np.float32),
    ), int(taken.sum())
