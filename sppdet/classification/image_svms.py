"""Linear SVMs on feature vectors of images, one per class, trained on all of them at once.

The weight C of the losses is chosen on a held-out part of the training images.
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from sppdet.classification.config import ImageSvmConfig
from sppdet.core.progress import NullProgress, Progress
from sppdet.core.types import BoolArray, FloatArray, IntArray
from sppdet.evaluation.voc_ap import area_ap
from sppdet.heads.svm import LinearSvms


def train_svms(
    rows: FloatArray,
    labels: IntArray,
    config: ImageSvmConfig,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[LinearSvms, float, dict[str, float]]:
    """Train SVMs on all of `float32 (N, D)` features; also C, and held-out mean AP by C.

    A class without positives or without negatives stays untrained. The table is empty where
    C is given, or where the images are too few to hold any out.
    """
    progress = NullProgress() if progress is None else progress
    figures: dict[str, float] = {}
    c = config.candidates[0] if config.c is None else config.c
    held = hold_out(len(rows), config.holdout, seed)
    if config.c is None and len(config.candidates) > 1 and 0 < held.sum() < len(held):
        with progress.task("choosing C", len(config.candidates)) as advance:
            for candidate in config.candidates:
                svms = _fit(rows[~held], labels[~held], candidate, config, seed)
                score = mean_ap(svms.decision_function(rows[held]), labels[held])
                if np.isfinite(score):
                    figures[f"{candidate:g}"] = score
                advance(1)
        if figures:
            c = next(v for v in config.candidates if figures[f"{v:g}"] == max(figures.values()))
    return _fit(rows, labels, c, config, seed), c, figures


def hold_out(count: int, share: float, seed: int) -> BoolArray:
    """Choose a random share of the images, rounded: `bool (count,)`, the same for the same seed."""
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


def _fit(
    rows: FloatArray, labels: IntArray, c: float, config: ImageSvmConfig, seed: int
) -> LinearSvms:
    count = labels.shape[1]
    weights, bias = np.zeros((count, rows.shape[1])), np.zeros(count)
    trained, converged = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    rows = rows.astype(np.float64)
    for k in range(count):
        index = np.flatnonzero(labels[:, k])
        if np.unique(labels[index, k]).size < 2:
            continue
        svm = LinearSVC(
            loss="hinge",
            C=c,
            class_weight={1: config.positive_weight, -1: 1.0},
            intercept_scaling=config.intercept_scaling,
            tol=config.tolerance,
            max_iter=config.max_iterations,
            random_state=seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            svm.fit(rows[index], labels[index, k])
        weights[k], bias[k] = svm.coef_[0], svm.intercept_[0]
        trained[k], converged[k] = True, svm.n_iter_ < config.max_iterations
    return LinearSvms(weights.astype(np.float32), bias.astype(np.float32), trained, converged)
