"""Teaching wrong detections away: an added class's SVM solved anew, from where it stood."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sppdet.core.boxes import areas, box_iou, clip
from sppdet.core.errors import ConfigError, count_noun
from sppdet.core.images import read_image
from sppdet.core.parallel import matmul
from sppdet.core.progress import Progress
from sppdet.core.types import FloatArray
from sppdet.detection.added.classes import ADDED_LIMITS, KnownClass
from sppdet.detection.added.learning import (
    HARD,
    POSITIVE_WEIGHT,
    REGRESSION_IOU,
    ROUNDS,
    C,
    put_svm,
    solve_dual,
)
from sppdet.detection.added.regions import MOST_PROPOSALS, Model, join_features, region_features
from sppdet.heads.added.added_class import FEATURES, AddedClass
from sppdet.heads.svm_solver import DualProblem

# What somebody has looked at and called wrong weighs as much as so many other negatives.
WRONG_WEIGHT = 10.0


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
            parts.append(_features(detector, one, old.model, scales))
            advance(1)
    rows = np.concatenate(parts)
    model, hard = _solve(old.model, scales, rows)
    info = {**old.info, "corrected": int(old.info.get("corrected", 0)) + hard}
    taught = f"{count_noun(hard, 'region')} of {count_noun(len(wrong), 'image')}"
    progress.say(f"{name}: {taught} taught to be none")
    return old._replace(model=model, info=info)


def _features(
    detector: Model, one: WrongImage, model: AddedClass, scales: dict[str, float]
) -> FloatArray:
    """`float32 (N, D)`, scaled: of the boxes and proposals close to them, or of all proposals.

    And of where the class moves the best of these, which is where detections come from.
    """
    image, head = read_image(one.path), detector.parts.head
    boxes = detector.propose(image)[:MOST_PROPOSALS]
    if one.boxes is not None:
        close = box_iou(boxes, one.boxes).max(axis=1, initial=0.0) > REGRESSION_IOU
        boxes = np.concatenate([one.boxes, boxes[close]]).astype(np.float32)
    prepared = head.prepare(detector.requests[0].compute(image))
    regions = head.regions(prepared, boxes)
    best = np.argsort(-model.score(regions)[:, 0], kind="stable")
    best = best[: int(ADDED_LIMITS["refine_top"])]
    moved = clip(model.refine(regions, best, np.zeros(len(best), np.int64)), *regions.size)
    again = head.regions(prepared, moved[areas(moved) > 0])
    parts = [region_features(head, one, tuple(scales)) for one in (regions, again)]
    return np.concatenate([join_features(part, scales, slice(None)) for part in parts])


def _solve(model: AddedClass, scales: dict[str, float], rows: FloatArray) -> tuple[AddedClass, int]:
    """Solve with new negatives `(N, D)`, scaled; also how many of them were hard."""
    per_value = np.repeat(list(scales.values()), [len(getattr(model, name)) for name in scales])
    known = model.support_features() * per_value.astype(np.float32)
    sign, alpha = np.sign(model.multipliers), np.abs(model.multipliers)
    # A multiplier above what a negative may have is of a region that was taught before.
    costs = np.maximum(np.where(sign > 0, C * POSITIVE_WEIGHT, C), alpha).astype(np.float64)
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
            cost=np.concatenate([costs, np.full(int(taken.sum()), C * WRONG_WEIGHT)]),
            alpha=np.concatenate([alpha, np.zeros(int(taken.sum()))]).astype(np.float64),
        )
        learned = solve_dual(every, dual)
        weights, bias = learned.solution.weights, np.float32(learned.solution.bias)
    return put_svm(model, learned), int(taken.sum())
