"""Hard-negative mining, against a slow restatement of the release's loop."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import LinearSVC

from sppdet.core.errors import TrainingError
from sppdet.core.types import FloatArray, IntArray
from sppdet.heads.svm import LinearSvms
from sppdet.training.config import SvmConfig
from sppdet.training.hard_negatives import HardNegativeMiner

K, D = 4, 12
Image = tuple[str, FloatArray, FloatArray, IntArray]

# A small cache, trained exactly, so that a few images go through every rule.
SMALL = SvmConfig(c=1e-2, retrain_after=25, tolerance=1e-8, max_iterations=1_000_000)


def positives(seed: int = 0, n: int = 24) -> tuple[FloatArray, IntArray]:
    """Features of the classes 0, 1 and 2; class 3 has no positives."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % (K - 1)
    features = rng.normal(size=(n, D)) * 2
    features[np.arange(n), labels] += 5
    return features.astype(np.float32), labels


def images(seed: int = 1, n: int = 12, regions: int = 40) -> list[Image]:
    """Images with background, a few near misses of each class, and repeated regions."""
    rng = np.random.default_rng(seed)
    out: list[Image] = []
    for i in range(n):
        features = rng.normal(size=(regions, D)) * 2
        near = rng.integers(0, regions, 8)
        features[near, rng.integers(0, K - 1, 8)] += 3
        groups = np.arange(regions)
        groups[regions // 2 : regions // 2 + 5] = groups[:5]
        features = features[groups]
        iou = rng.random((regions, K)) * 0.4
        out.append((f"im{i}", features.astype(np.float32), iou.astype(np.float32), groups))
    return out


def mine(config: SvmConfig, stream: list[Image], scale: float = 1.0) -> HardNegativeMiner:
    miner = HardNegativeMiner(K, D, config, scale)
    miner.add_positives(*positives())
    for key, features, iou, groups in stream:
        miner.mine_image(key, features, iou, groups)
    return miner


def cached_regions(miner: HardNegativeMiner, k: int) -> set[tuple[int, int]]:
    """(image, region) of the negatives that class `k` has cached."""
    state = miner.state()
    ends = np.cumsum(state["negatives_count"])
    own = state["negatives"][ends[k] - state["negatives_count"][k] : ends[k]]
    pairs = zip(state["image"][own].tolist(), state["region"][own].tolist(), strict=True)
    found = list(pairs)
    assert len(found) == len(set(found))
    return set(found)


class SlowMiner:
    """The release's loop for one class, in plain Python with LinearSVC as its solver."""

    def __init__(self, config: SvmConfig, own: FloatArray) -> None:
        self.config = config
        self.own = [x.astype(np.float64) for x in own]
        self.cache: dict[tuple[int, int], np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = {}
        self.added = 0
        self.svm: LinearSVC | None = None

    def image(self, number: int, features: FloatArray, iou: FloatArray, groups: IntArray) -> None:
        taken: set[int] = set()
        for region, x in enumerate(features.astype(np.float64)):
            if not iou[region] < self.config.negative_iou:
                continue
            if self.svm is not None and not self.score(x) > self.config.hard_threshold:
                continue
            if int(groups[region]) in taken or (number, region) in self.cache:
                continue
            taken.add(int(groups[region]))
            self.cache[number, region] = x
            self.added += 1
        if self.svm is None or self.added > self.config.retrain_after:
            self.train()

    def score(self, x: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
        assert self.svm is not None
        return float(self.svm.decision_function(x[None])[0])

    def train(self) -> None:
        rows = np.array(self.own + list(self.cache.values()))
        sign = np.repeat([1, -1], [len(self.own), len(self.cache)])
        self.svm = LinearSVC(
            loss="hinge", C=self.config.c, class_weight={1: self.config.positive_weight},
            intercept_scaling=self.config.intercept_scaling,
            tol=1e-9, max_iter=1_000_000, random_state=1,
        ).fit(rows, sign)  # fmt: skip
        self.added = 0
        for name in [
            n for n, x in self.cache.items() if self.score(x) < self.config.evict_threshold
        ]:
            del self.cache[name]


def test_nothing_in_nothing_trained() -> None:
    svms = HardNegativeMiner(K, D, SMALL).finish()
    assert not svms.trained.any()
    assert svms.weights.shape == (K, D)
    assert np.all(svms.decision_function(np.ones((2, D), dtype=np.float32)) == -np.inf)


def test_images_without_regions_or_positives_train_nothing() -> None:
    miner = HardNegativeMiner(K, D, SMALL)
    miner.add_positives(np.zeros((0, D), dtype=np.float32), np.zeros(0, dtype=np.int64))
    miner.mine_image(
        "empty", np.zeros((0, D), dtype=np.float32), np.zeros((0, K), dtype=np.float32)
    )
    miner.mine_image("no positives", *images()[0][1:])
    assert not miner.finish().trained.any()
    assert not miner.state()["negatives_count"].any()


def test_a_class_without_negatives_stays_untrained() -> None:
    miner = HardNegativeMiner(K, D, SMALL)
    miner.add_positives(*positives())
    for key, features, iou, groups in images(n=2):
        iou[:, 1] = 0.9
        miner.mine_image(key, features, iou, groups)
    assert miner.finish().trained.tolist() == [True, False, True, False]


@pytest.mark.parametrize("seed", range(4))
def test_the_cache_is_the_releases_after_every_image(seed: int) -> None:
    stream = images(seed + 10)
    features, labels = positives()
    miner = HardNegativeMiner(K, D, SMALL)
    miner.add_positives(features, labels)
    slow = [SlowMiner(SMALL, features[labels == k]) for k in range(K - 1)]
    for number, (key, rows, iou, groups) in enumerate(stream):
        miner.mine_image(key, rows, iou, groups)
        for k, one in enumerate(slow):
            one.image(number, rows, iou[:, k], groups)
            assert cached_regions(miner, k) == set(one.cache)
    assert max(len(one.cache) for one in slow) > SMALL.retrain_after
    svms = miner.finish()
    assert svms.trained.tolist() == [True, True, True, False]
    assert svms.converged[:3].all()
    for k, one in enumerate(slow):
        one.train()
        assert one.svm is not None
        assert cached_regions(miner, k) == set(one.cache)
        np.testing.assert_allclose(svms.weights[k], one.svm.coef_[0], atol=1e-4)
        assert float(svms.bias[k]) == pytest.approx(float(one.svm.intercept_[0]), abs=1e-3)


@settings(max_examples=12, deadline=None)
@given(cut=st.integers(0, 12), again=st.integers(0, 12))
def test_interrupted_mining_ends_in_the_same_bytes(cut: int, again: int) -> None:
    config = SvmConfig(c=1e-2, retrain_after=25, max_negatives=60)
    stream = images()
    whole = mine(config, stream).finish()
    miner = HardNegativeMiner(K, D, config, 1.0)
    miner.add_positives(*positives())
    for number, image in enumerate(stream):
        if number in (cut, again):
            miner = HardNegativeMiner.from_state(miner.state(), config)
        miner.mine_image(*image)
    resumed = HardNegativeMiner.from_state(miner.state(), config).finish()
    for name in (field.name for field in fields(LinearSvms)):
        assert getattr(whole, name).tobytes() == getattr(resumed, name).tobytes()


def test_state_survives_a_round_trip() -> None:
    state = mine(SMALL, images(n=5)).state()
    again = HardNegativeMiner.from_state(state, SMALL).state()
    assert state.keys() == again.keys()
    for name, value in state.items():
        assert value.dtype == again[name].dtype
        np.testing.assert_array_equal(value, again[name])


def test_the_scale_is_folded_into_the_weights() -> None:
    scale = 4.0  # a power of two: scaling is then exact
    stream = images()
    scaled = [(key, rows / np.float32(scale), iou, groups) for key, rows, iou, groups in stream]
    plain = mine(SMALL, stream).finish()
    miner = HardNegativeMiner(K, D, SMALL, scale)
    features, labels = positives()
    miner.add_positives(features / np.float32(scale), labels)
    for image in scaled:
        miner.mine_image(*image)
    folded = miner.finish()
    np.testing.assert_allclose(folded.weights, plain.weights * scale, rtol=1e-5)
    np.testing.assert_allclose(
        folded.decision_function(scaled[0][1]), plain.decision_function(stream[0][1]), atol=1e-5
    )


def test_a_row_is_stored_once_and_freed_with_its_last_user() -> None:
    miner = HardNegativeMiner(K, D, SMALL)
    features, labels = positives()
    miner.add_positives(features, labels)
    for image in images(n=12):
        miner.mine_image(*image)
        used: set[tuple[int, int]] = set().union(*(cached_regions(miner, k) for k in range(K)))
        rows = miner.state()["rows"]
        assert len(rows) == len(features) + len(used)
    assert miner.state()["negatives_count"].sum() > len(used)


def test_positives_are_never_evicted() -> None:
    state = mine(SMALL, images()).state()
    features, labels = positives()
    assert state["positives_count"].tolist() == np.bincount(labels, minlength=K).tolist()
    order = np.argsort(labels, kind="stable")
    np.testing.assert_array_equal(state["rows"][state["positives"]], features[order])


def test_the_cap_keeps_the_hardest_negatives() -> None:
    (_, rows, iou, _), *_ = images(seed=6, n=1)
    never = SMALL.replace(retrain_after=10_000)
    free = mine(never, images(n=1))
    capped = HardNegativeMiner.from_state(free.state(), never.replace(max_negatives=10))
    for miner in (free, capped):
        miner.mine_image("more", rows, iou)
    everything, kept = free.state(), capped.state()
    assert kept["negatives_count"].tolist() == [10, 10, 10, 0]
    assert everything["negatives_count"][:3].min() > 20
    start = 0
    for k in range(K - 1):
        end = start + everything["negatives_count"][k]
        hardest = np.sort(everything["scores"][start:end])[-10:]
        np.testing.assert_array_equal(np.sort(kept["scores"][10 * k : 10 * k + 10]), hardest)
        start = end
    assert len(kept["rows"]) <= len(positives()[0]) + 30


def test_a_region_seen_again_is_not_cached_twice() -> None:
    stream = images(n=2)
    once = mine(SMALL.replace(retrain_after=10_000), stream)
    twice = mine(SMALL.replace(retrain_after=10_000), [*stream, stream[1]])
    for k in range(K):
        assert cached_regions(once, k) == cached_regions(twice, k)


def test_a_feature_that_is_not_finite_names_its_image() -> None:
    miner = mine(SMALL, images(n=2))
    _, rows, iou, groups = images(n=1)[0]
    rows[3, 2] = np.nan
    with pytest.raises(TrainingError, match=r"broken\.jpg"):
        miner.mine_image("broken.jpg", rows, iou, groups)
    with pytest.raises(TrainingError, match="positive"):
        HardNegativeMiner(K, D, SMALL).add_positives(rows, np.zeros(len(rows), dtype=np.int64))


def test_wrong_shapes_are_refused() -> None:
    miner = HardNegativeMiner(K, D, SMALL)
    rows, labels = positives()
    with pytest.raises(ValueError, match="features must be"):
        miner.add_positives(rows[:, 1:], labels)
    with pytest.raises(ValueError, match="labels"):
        miner.add_positives(rows, labels[1:])
    with pytest.raises(ValueError, match="outside"):
        miner.add_positives(rows, labels + K)
    with pytest.raises(ValueError, match="class_iou"):
        miner.mine_image("a", rows, np.zeros((len(rows), K - 1), dtype=np.float32))
    with pytest.raises(ValueError, match="groups"):
        miner.mine_image("a", rows, np.zeros((len(rows), K), dtype=np.float32), labels[1:])
    miner.mine_image("a", rows, np.zeros((len(rows), K), dtype=np.float32))
    with pytest.raises(ValueError, match="before the first image"):
        miner.add_positives(rows, labels)
    with pytest.raises(ValueError, match="class"):
        HardNegativeMiner(0, D, SMALL)
