"""One class from a few images: SVM with hard negatives, and a box regressor, on fixed features.

The features are those of a network that knows other classes already; only linear models are
learned, so that minutes of fine-tuning become seconds, and nothing of the network changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from sppdet.core.boxes import DELTA_STDS, encode_deltas
from sppdet.core.parallel import matmul
from sppdet.core.types import Float64Array, FloatArray, IntArray
from sppdet.detection.added.regions import ImageRegions, as_float32
from sppdet.heads.added.added_class import FEATURES, AddedClass
from sppdet.heads.box_regression import BUFFER_ROWS, BoxRegressors
from sppdet.heads.head import RegionHead
from sppdet.heads.svm_solver import DualProblem, SvmSolution, solve

# As in training (`SvmConfig`), but for `C`: with few positives, more weight on each helps.
FEATURE_NORM = 20.0
C, POSITIVE_WEIGHT, BIAS_SCALE = 3e-3, 2.0, 10.0
TOLERANCE, MAX_ITERATIONS, SEED = 0.01, 1000, 0
# Proposals this close to an object are positives beside it; those below are negatives.
POSITIVE_IOU, NEGATIVE_IOU = 0.7, 0.3
# Rounds of mining: the first on a random choice of so many negatives.
ROUNDS, FIRST_NEGATIVES, FEWEST_OF_IMAGE = 3, 4000, 20
# Regions of the bank that look as much like the class as its own objects may be of it.
LIKE_THE_CLASS = 1.0
HARD, EASY = -1.0, -1.2
# Penalty on a regressor's distance from the one it starts from, for features of that norm.
RIDGE, REGRESSION_IOU = 4000.0, 0.5


class Learned(NamedTuple):
    """An SVM over joined, scaled features.

    Attributes:
        solution: weights and bias.
        rows: `float32 (S, D)`, its support vectors.
        multipliers: `float64 (S,)`, signed.
        negatives: regions it was trained against in the last round.
        left_out: regions of the bank that may be of the class.
    """

    solution: SvmSolution
    rows: FloatArray
    multipliers: Float64Array
    negatives: int
    left_out: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Mined:
    """The regions that decided about a class's SVM, so that it can be solved on some images alone.

    Attributes:
        images: all of them.
        scales: of their features.
        positives, negatives: `int64 (n,)` rows per image.
        bank: `float32 (M, D)`, negatives from elsewhere.
        left_out: regions of the bank that may be of the class.
    """

    images: Sequence[ImageRegions]
    scales: Mapping[str, float]
    positives: Sequence[IntArray]
    negatives: Sequence[IntArray]
    bank: FloatArray
    left_out: int

    def solve(self, chosen: Sequence[int] | None = None) -> Learned:
        """Solve the SVM on the images of these numbers; None for all."""
        numbers = range(len(self.images)) if chosen is None else chosen
        positives = [self.images[n].join(self.scales, self.positives[n]) for n in numbers]
        negatives = [self.images[n].join(self.scales, self.negatives[n]) for n in numbers]
        learned = _solve(np.concatenate(positives), np.concatenate([*negatives, self.bank]))
        return learned._replace(left_out=self.left_out)


def mine(
    images: Sequence[ImageRegions],
    label: int,
    scales: Mapping[str, float],
    bank: FloatArray | None = None,
) -> Mined:
    """Find the regions that decide about a class: all that lie on none of its objects compete.

    Hard-negative mining as in R-CNN, in rounds over regions that are all in memory. `bank`
    `float32 (M, D)`, scaled, are negatives from elsewhere; they join after the first round, but
    for those that look like the class then: nobody labeled it there.
    """
    rng = np.random.default_rng(SEED)
    positives, candidates = [], []
    for one in images:
        overlap = one.overlap(label)
        near = overlap >= POSITIVE_IOU
        near[: len(one.labels)] = one.labels == label
        positives.append(np.flatnonzero(near))
        candidates.append(np.flatnonzero(overlap < NEGATIVE_IOU))
    share = max(FEWEST_OF_IMAGE, FIRST_NEGATIVES // len(images))
    first = [np.sort(rng.permutation(rows)[:share]) for rows in candidates]
    width = sum(one.shape[1] for one in images[0].features.values())
    mined = Mined(images, scales, positives, first, np.zeros((0, width), np.float32), 0)
    for turn in range(ROUNDS - 1):
        solution = mined.solve().solution
        weights = solution.weights.astype(np.float32)[:, None]
        if not turn and bank is not None:
            is_other = matmul(bank, weights)[:, 0] + solution.bias < LIKE_THE_CLASS
            mined = replace(mined, bank=bank[is_other], left_out=int((~is_other).sum()))
        found = []
        for one, rows, known in zip(images, candidates, mined.negatives, strict=True):
            margins = _margins(one, scales, rows, weights) + solution.bias
            kept = margins > np.where(np.isin(rows, known), EASY, HARD)
            found.append(rows[kept])
        mined = replace(mined, negatives=found)
    return mined


def _margins(
    image: ImageRegions, scales: Mapping[str, float], rows: IntArray, weights: FloatArray
) -> FloatArray:
    return matmul(image.join(scales, rows), weights)[:, 0]


def _solve(positives: FloatArray, negatives: FloatArray) -> Learned:
    rows = np.concatenate([positives, negatives])
    counts = [len(positives), len(negatives)]
    dual = DualProblem(
        index=np.arange(len(rows)),
        sign=np.repeat([1.0, -1.0], counts),
        cost=np.repeat([C * POSITIVE_WEIGHT, C], counts),
        alpha=np.zeros(len(rows)),
    )
    return solve_dual(rows, dual)


def solve_dual(rows: FloatArray, dual: DualProblem) -> Learned:
    """Solve from where the multipliers stand."""
    squares = np.einsum("nd,nd->n", rows, rows, dtype=np.float64)
    solution = solve(
        rows,
        squares,
        dual,
        bias_scale=BIAS_SCALE,
        tolerance=TOLERANCE,
        max_iterations=MAX_ITERATIONS,
        seed=SEED,
    )
    support = np.flatnonzero(dual.alpha)
    signed = dual.alpha[support] * dual.sign[support]
    return Learned(solution, rows[support], signed, int((dual.sign < 0).sum()))


def starting_regressor(
    head: RegionHead, regressors: BoxRegressors | None
) -> tuple[FloatArray, FloatArray]:
    """`float32 (fc7, 4)` and `(4,)`: the mean box regressor of a model's classes, over fc7.

    What moves a box onto an object is much the same for all classes. The mean of the ridge
    regressors, where they read fc7, and of the learned deltas, where there are any.
    """
    weights, biases = [], []
    if regressors is not None and head.config.regression_layer == "fc7":
        weights.append(regressors.weights[regressors.trained].mean(axis=0))
        biases.append(regressors.bias[regressors.trained].mean(axis=0))
    if head.config.learned_boxes or not weights:
        stds = np.array(DELTA_STDS, np.float32)
        learned = head.bbox_pred.weight.detach().numpy().reshape(-1, 4, head.config.fc7)
        weights.append(learned.mean(axis=0).T * stds)
        biases.append(head.bbox_pred.bias.detach().numpy().reshape(-1, 4).mean(axis=0) * stds)
    return np.mean(weights, axis=0), np.mean(biases, axis=0)


def learn_regressor(
    images: Sequence[ImageRegions], label: int, start: tuple[FloatArray, FloatArray], scale: float
) -> tuple[FloatArray, FloatArray]:
    """Fit a box regressor over raw fc7 that stays close to where it starts.

    Ridge regression of what the start leaves over, on the regions that overlap an object of the
    class by more than `REGRESSION_IOU`; `scale` brings fc7 to `FEATURE_NORM`.
    """
    weights, bias = start
    samples = (_regression_samples(one, label, start, scale) for one in images)
    width = len(weights) + 1
    gram, cross, count = np.zeros((width, width)), np.zeros((width, 4)), 0
    waiting: list[tuple[Float64Array, Float64Array]] = []
    for sample in samples:
        waiting.append(sample)
        count += len(sample[0])
        # Few large products, and never all rows at once.
        if count >= width and sum(len(one) for one, _ in waiting) >= BUFFER_ROWS:
            x, y = (np.concatenate(part) for part in zip(*waiting, strict=True))
            gram, cross, waiting = gram + x.T @ x, cross + x.T @ y, []
    empty = (np.zeros((0, width)), np.zeros((0, 4)))
    x, y = (np.concatenate(part) for part in zip(empty, *waiting, strict=True))
    if count < width:
        # The kernel matrix is smaller, and gives the same solution.
        change = x.T @ np.linalg.solve(x @ x.T + RIDGE * np.eye(len(x)), y)
    else:
        gram, cross = gram + x.T @ x, cross + x.T @ y
        change = np.linalg.solve(gram + RIDGE * np.eye(width), cross)
    moved = weights + (change[:-1] * scale).astype(np.float32)
    return moved, bias + change[-1].astype(np.float32)


def _regression_samples(
    image: ImageRegions, label: int, start: tuple[FloatArray, FloatArray], scale: float
) -> tuple[Float64Array, Float64Array]:
    """`float64 (n, fc7 + 1)` scaled features and a constant, and `(n, 4)` what the start leaves."""
    own = np.flatnonzero(image.labels == label)
    near = np.flatnonzero(image.overlap(label) > REGRESSION_IOU)
    fc7 = as_float32(image.features["fc7"][near])
    x = np.c_[fc7 * np.float32(scale), np.ones(len(near), np.float32)].astype(np.float64)
    if not len(own):
        return x, np.zeros((0, 4))
    best = image.overlaps[np.ix_(near, own)].argmax(axis=1)
    wanted = encode_deltas(image.boxes[own[best]], image.boxes[near])
    return x, (wanted - (matmul(fc7, start[0]) + start[1])).astype(np.float64)


def make_class(
    learned: Learned,
    scales: Mapping[str, float],
    widths: Mapping[str, int],
    boxes: tuple[FloatArray, FloatArray],
) -> AddedClass:
    """Put an SVM over scaled features and a regressor together, over raw features.

    `widths` are the lengths of the features that `scales` has.
    """
    sizes = [widths[name] if name in scales else 0 for name in FEATURES]
    empty = AddedClass(
        **{name: np.zeros(size, np.float32) for name, size in zip(FEATURES, sizes, strict=True)},
        bias=np.zeros(1, np.float32),
        box_weights=np.ascontiguousarray(boxes[0], np.float32),
        box_bias=np.asarray(boxes[1], np.float32),
        support=np.zeros((0, sum(sizes)), np.uint8),
        steps=np.ones(len(FEATURES), np.float32),
        multipliers=np.zeros(0, np.float32),
        scales=np.array([scales.get(name, 0.0) for name in FEATURES], np.float32),
    )
    return put_svm(empty, learned)


def put_svm(model: AddedClass, learned: Learned) -> AddedClass:
    """Give a class an SVM that was learned over its features, joined and scaled."""
    widths = [len(getattr(model, name)) for name in FEATURES]
    per_value = np.repeat(model.scales, widths)
    weights = (learned.solution.weights * per_value).astype(np.float32)
    support = learned.rows / per_value
    return model.with_svm(weights, float(learned.solution.bias), support, learned.multipliers)
