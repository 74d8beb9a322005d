"""Linear SVMs on feature vectors of images, one a class, trained on all of them at once.

The objective is that of `svm`, on features of L2 norm 1. The weight C of the losses is chosen on a
held-out part of the training images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sppdet.errors import ConfigError
from sppdet.evaluation.voc import area_ap
from sppdet.hinge import Dual, solve
from sppdet.progress import NullProgress, Progress
from sppdet.svm import LinearSvms
from sppdet.types import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class ImageSvmConfig:
    """How the SVMs are trained."""

    # Weight of the hinge losses against the regulariser; none: the best of `candidates`.
    c: float | None = None
    # Weights tried on the held-out images: the first with the highest mean AP wins.
    candidates: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
    # Share of the training images that is held out for choosing; they are trained on afterwards.
    holdout: float = 0.25
    # Weight of a positive's loss in units of a negative's.
    positive_weight: float = 2.0
    # Constant feature whose weight is the bias.
    bias_scale: float = 1.0
    # The solver stops when no optimality condition is violated by more than this (score units).
    tolerance: float = 0.01
    # Passes over the images a training may take; a class that needs more is marked unconverged.
    max_iterations: int = 1000

    def __post_init__(self) -> None:
        if not self.candidates or min(self.candidates) <= 0 or (self.c is not None and self.c <= 0):
            raise ConfigError("svm.c and svm.candidates must be above 0", mend="give at least one")
        if not 0 < self.holdout < 1:
            raise ConfigError(f"svm.holdout is {self.holdout}", mend="give a number in (0, 1)")
        if min(self.positive_weight, self.bias_scale, self.tolerance) <= 0:
            raise ConfigError("svm.positive_weight, bias_scale and tolerance must be above 0")
        if self.max_iterations < 1:
            raise ConfigError("svm.max_iterations is below 1", mend="give 1 or more")


def train_svms(
    rows: FloatArray,
    labels: IntArray,
    config: ImageSvmConfig,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[LinearSvms, float, dict[str, float]]:
    """SVMs on all of `float32 (N, D)` features, their C, and mean AP on held-out images by C.

    A class without positives or without negatives stays untrained. The table is empty where
    C is given, or where the images are too few to hold any out.
    """
    progress = NullProgress() if progress is None else progress
    figures: dict[str, float] = {}
    c = config.candidates[0] if config.c is None else config.c
    held = held_out(len(rows), config.holdout, seed)
    if config.c is None and len(config.candidates) > 1 and 0 < held.sum() < len(held):
        with progress.task("choosing C", len(config.candidates)) as advance:
            for candidate in config.candidates:
                svms = _solve(rows[~held], labels[~held], candidate, config, seed)
                found = mean_ap(svms.scores(rows[held]), labels[held])
                if np.isfinite(found):
                    figures[f"{candidate:g}"] = found
                advance(1)
        if figures:
            c = next(v for v in config.candidates if figures[f"{v:g}"] == max(figures.values()))
    return _solve(rows, labels, c, config, seed), c, figures


def held_out(count: int, share: float, seed: int) -> BoolArray:
    """`bool (count,)`: a random share of the images, rounded, the same for the same arguments."""
    chosen = np.zeros(count, np.bool_)
    order = np.random.default_rng([seed, count]).permutation(count)
    chosen[order[: round(count * share)]] = True
    return chosen


def mean_ap(scores: FloatArray, labels: IntArray) -> float:
    """Mean over the classes that have positives of the area AP of `(N, K)` scores; nan for none."""
    found = []
    for k in range(labels.shape[1]):
        counted = labels[:, k] != 0
        present = labels[counted, k] > 0
        order = np.argsort(-scores[counted, k], kind="stable")
        if present.any():
            found.append(area_ap(np.cumsum(present[order], dtype=np.int64), int(present.sum())))
    return float(np.mean(found)) if found else float("nan")


def _solve(
    rows: FloatArray, labels: IntArray, c: float, config: ImageSvmConfig, seed: int
) -> LinearSvms:
    count = labels.shape[1]
    weights, bias = np.zeros((count, rows.shape[1])), np.zeros(count)
    trained, converged = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    rows = np.ascontiguousarray(rows)
    squares = np.einsum("nd,nd->n", rows, rows, dtype=np.float64)
    for k in range(count):
        index = np.flatnonzero(labels[:, k])
        sign = labels[index, k].astype(np.float64)
        if not (sign > 0).any() or not (sign < 0).any():
            continue
        cost = np.where(sign > 0, c * config.positive_weight, c)
        found = solve(
            rows,
            squares,
            Dual(index, sign, cost, np.zeros(len(index))),
            bias_scale=config.bias_scale,
            tolerance=config.tolerance,
            max_iterations=config.max_iterations,
            seed=seed,
        )
        weights[k], bias[k] = found.weights, found.bias
        trained[k], converged[k] = True, found.converged
    return LinearSvms(weights.astype(np.float32), bias.astype(np.float32), trained, converged)
