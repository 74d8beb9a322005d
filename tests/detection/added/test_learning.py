"""Learning one class: the SVM's objective against scikit-learn's, ridge against least squares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import LinearSVC

from sppdet.core.boxes import box_iou, encode_deltas
from sppdet.core.types import Float64Array, FloatArray, Sample
from sppdet.detection.added import learning
from sppdet.detection.added.learning import (
    BIAS_SCALE,
    NEGATIVE_IOU,
    POSITIVE_IOU,
    POSITIVE_WEIGHT,
    REGRESSION_IOU,
    RIDGE,
    C,
    learn_regressor,
    mine,
)
from sppdet.detection.added.regions import ImageRegions, feature_scales

SIZE = (100, 80)
WIDTHS = {"fc6": 6, "fc7": 5, "averages": 3}


def made_image(seed: int, proposals: int = 120, objects: int = 2) -> ImageRegions:
    """Objects of two classes, boxes around them and anywhere, features that tell them apart."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 40, (objects, 2))
    truth = np.concatenate([corners, corners + rng.uniform(20, 35, (objects, 2))], axis=1)
    near = np.repeat(truth, proposals // (2 * max(objects, 1)), axis=0) if objects else truth
    near = near + rng.normal(0, 3, near.shape)
    left = rng.uniform(0, 60, (proposals - len(near), 2))
    free = np.concatenate([left, left + rng.uniform(5, 40, left.shape)], axis=1)
    boxes = np.concatenate([truth, near, free]).astype(np.float32)
    truth = truth.astype(np.float32)
    labels = np.arange(objects, dtype=np.int64) % 2
    overlaps = box_iou(boxes, truth)
    seen = np.zeros((len(boxes), 2))
    for label in range(2):
        own = overlaps[:, labels == label]
        seen[:, label] = own.max(axis=1, initial=0.0)
    features = {
        name: (
            seen @ np.random.default_rng(width).normal(size=(2, width)) * 2
            + rng.normal(0, 0.6, (len(boxes), width))
        ).astype(np.float16)
        for name, width in WIDTHS.items()
    }
    sample = Sample(
        image_id=str(seed), path=Path(f"{seed}.jpg"), width=SIZE[0], height=SIZE[1],
        boxes=truth, labels=labels, difficult=np.zeros(objects, np.bool_),
    )  # fmt: skip
    return ImageRegions(sample, boxes, features, overlaps, labels)


def objective(rows: Float64Array, signs: Float64Array, weights: Float64Array, bias: float) -> float:
    hinge = np.maximum(0, 1 - signs * (rows @ weights + bias))
    cost = np.where(signs > 0, C * POSITIVE_WEIGHT, C)
    return float((weights @ weights + (bias / BIAS_SCALE) ** 2) / 2 + (cost * hinge).sum())


@pytest.mark.parametrize("seed", range(4))
def test_the_svm_is_linear_svcs_on_all_regions(seed: int) -> None:
    images = [made_image(10 * seed + n, objects=n) for n in range(1, 5)]
    scales = feature_scales(images, list(WIDTHS), 20.0)
    learned = mine(images, 0, scales).solve()
    positive, negative = [], []
    for one in images:
        overlap = one.overlap(0)
        chosen = overlap >= POSITIVE_IOU
        chosen[: len(one.labels)] = one.labels == 0
        positive.append(one.join(scales, chosen))
        negative.append(one.join(scales, overlap < NEGATIVE_IOU))
    rows = np.concatenate([*positive, *negative]).astype(np.float64)
    counts = [sum(map(len, positive)), sum(map(len, negative))]
    signs = np.repeat([1.0, -1.0], counts)
    cost = np.repeat([C * POSITIVE_WEIGHT, C], counts)
    oracle = LinearSVC(
        C=1.0, loss="hinge", dual=True, intercept_scaling=BIAS_SCALE, tol=1e-6, max_iter=500_000
    )
    oracle.fit(rows, signs, sample_weight=cost)
    best = objective(rows, signs, oracle.coef_[0], float(oracle.intercept_[0]))
    found = objective(rows, signs, learned.solution.weights, learned.solution.bias)
    assert found == pytest.approx(best, rel=0.01)
    # Support vectors and multipliers are the same solution.
    np.testing.assert_allclose(
        learned.multipliers @ learned.rows, learned.solution.weights, rtol=1e-4, atol=1e-5
    )


def made_rows(
    images: list[ImageRegions], start: tuple[FloatArray, FloatArray], scale: float
) -> tuple[Float64Array, Float64Array]:
    """What is regressed on, and what the start leaves over."""
    rows, left = [], []
    for one in images:
        for region in range(len(one.boxes)):
            own = np.flatnonzero(one.labels == 0)
            if not len(own) or one.overlap(0)[region] <= REGRESSION_IOU:
                continue
            nearest = own[one.overlaps[region, own].argmax()]
            fc7 = one.features["fc7"][region].astype(np.float64)
            wanted = encode_deltas(one.boxes[[nearest]], one.boxes[[region]])[0]
            rows.append(np.r_[fc7 * scale, 1.0])
            left.append(wanted - (fc7 @ start[0] + start[1]))
    return np.array(rows), np.array(left)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 999), few=st.booleans())
def test_the_regressor_solves_its_ridge_problem(seed: int, few: bool) -> None:
    # Few regions: by the kernel matrix. Many: by the normal equations.
    images = (
        [made_image(seed, proposals=2, objects=1)] if few else [made_image(seed), made_image(7)]
    )
    rng, scale = np.random.default_rng(seed), 1.7
    start = (
        (rng.normal(size=(WIDTHS["fc7"], 4)) / 9).astype(np.float32),
        (rng.normal(size=4) / 9).astype(np.float32),
    )
    rows, left = made_rows(images, start, scale)
    assert (len(rows) < rows.shape[1]) == few
    penalty = RIDGE**0.5 * np.eye(rows.shape[1])
    change = np.linalg.lstsq(np.r_[rows, penalty], np.r_[left, 0 * penalty[:, :4]], rcond=None)[0]
    weights, bias = learn_regressor(images, 0, start, scale)
    np.testing.assert_allclose(weights - start[0], change[:-1] * scale, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(bias - start[1], change[-1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("proposals", [2, 120])
def test_a_huge_penalty_keeps_the_regressor_where_it_starts(
    proposals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "RIDGE", 1e15)
    start = (np.full((WIDTHS["fc7"], 4), 0.25, np.float32), np.full(4, -0.5, np.float32))
    images = [made_image(3, proposals=proposals, objects=1)]
    weights, bias = learn_regressor(images, 0, start, 1.0)
    np.testing.assert_allclose(weights, start[0], atol=1e-6)
    np.testing.assert_allclose(bias, start[1], atol=1e-6)
    # And none moves it by what there is to learn.
    monkeypatch.setattr(learning, "RIDGE", 1e-9)
    free, _ = learn_regressor(images, 0, start, 1.0)
    assert np.abs(free - start[0]).max() > 1e-3
