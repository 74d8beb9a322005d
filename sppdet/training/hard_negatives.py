"""Hard-negative mining in one streaming pass over the images (the SPP-net release's loop)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sppdet.core.boxes import box_iou
from sppdet.core.errors import TrainingError
from sppdet.core.parallel import matmul
from sppdet.core.types import FloatArray, IntArray
from sppdet.heads.svm import LinearSvms
from sppdet.heads.svm_solver import DualProblem, margins, solve
from sppdet.training.config import SvmConfig
from sppdet.training.negative_cache import FeaturePool, NegativeCache
from sppdet.training.region_sampling import RegionTargets

State = dict[str, NDArray[Any]]

# Positives belong to no streamed image.
NO_IMAGE = -1


def class_overlaps(targets: RegionTargets, n_classes: int) -> FloatArray:
    """`float32 (N, K)`: each region's highest IoU with an object of each class; 0 for none."""
    out = np.zeros((len(targets.boxes), n_classes), dtype=np.float32)
    overlaps = box_iou(targets.boxes, targets.gt_boxes)
    for index, label in enumerate(targets.gt_labels):
        np.maximum(out[:, label], overlaps[:, index], out=out[:, label])
    return out


class HardNegativeMiner:
    """Trains one SVM per class from positives given up front and images streamed once.

    Order of use: `add_positives`, then `mine_image` for every image, then `finish`. The first
    image gives all its negatives; a later one those that score above `hard_threshold`. A class is
    trained on the first image, whenever more than `retrain_after` negatives were added, and by
    `finish`; after each training, negatives below `evict_threshold` are dropped. Positives stay.

    Memory: `4 * dim` bytes for each positive and for each distinct cached negative, at most
    `max_negatives` per class; a negative that several classes cache is stored once.

    Invariant: the result is a function of the calls; `from_state(state())` continues bit for bit.
    """

    def __init__(self, n_classes: int, dim: int, config: SvmConfig, scale: float = 1.0) -> None:
        """`scale` (see `feature_scale`) multiplies every feature that comes in."""
        if n_classes < 1:
            raise ValueError("there must be a class to train")
        self.config = config
        self.scale = float(scale)
        self.dim = dim
        self._store = FeaturePool(dim)
        self._classes = [NegativeCache(dim) for _ in range(n_classes)]
        self._images: dict[str, int] = {}
        # The current SVMs as one matrix over raw features, for one product per image.
        self._weights: FloatArray = np.zeros((dim, n_classes), dtype=np.float32)
        self._bias: FloatArray = np.zeros(n_classes, dtype=np.float32)

    def add_positives(self, features: FloatArray, labels: IntArray) -> None:
        """Add raw features `float32 (P, D)` of ground-truth boxes with their classes `(P,)`.

        Raises TrainingError if a feature is not finite, ValueError after the first image.
        """
        if self._images:
            raise ValueError("positives must be given before the first image")
        features = self._checked(features)
        labels = np.asarray(labels, dtype=np.int64)
        if labels.shape != (len(features),):
            raise ValueError(f"{len(features)} features but labels of shape {labels.shape}")
        if labels.size and not 0 <= labels.min() <= labels.max() < len(self._classes):
            raise ValueError(f"a label lies outside the {len(self._classes)} classes")
        if not np.isfinite(features).all():
            raise TrainingError("a positive's feature is not finite", hint="train the head again")
        places = self._store.add(
            features * np.float32(self.scale), NO_IMAGE, np.arange(len(features))
        )
        self._store.retain(places)
        for label, cache in enumerate(self._classes):
            new = places[labels == label]
            cache.positives = np.concatenate([cache.positives, new])
            cache.positive_alpha = np.concatenate([cache.positive_alpha, np.zeros(len(new))])

    def mine_image(
        self,
        key: str,
        features: FloatArray,
        class_iou: FloatArray,
        groups: IntArray | None = None,
    ) -> None:
        """Mine one image, and train the classes that are due.

        Args:
            key: the image's name; a region of a key seen before is not cached twice.
            features: `float32 (N, D)`, raw.
            class_iou: `float32 (N, K)`, each region's largest IoU with the objects of each class.
            groups: `int64 (N,)`; of the hard negatives with one number, the first is kept. Give
                regions that pool the same cells, and so have the same features, one number.

        Raises TrainingError naming the image if a feature is not finite.
        """
        features = self._checked(features)
        shape = (len(features), len(self._classes))
        if class_iou.shape != shape:
            raise ValueError(f"class_iou must be {shape}, got {class_iou.shape}")
        if groups is not None and groups.shape != (len(features),):
            raise ValueError(f"groups must be ({len(features)},), got {groups.shape}")
        scores = matmul(features, self._weights) + self._bias
        if not np.isfinite(scores).all():
            raise TrainingError("a feature is not finite", path=key, hint="train the head again")
        seen = self._images.get(key)
        image = self._images.setdefault(key, len(self._images))
        chosen = [
            self._hard(cache, scores[:, k], class_iou[:, k], groups, seen)
            for k, cache in enumerate(self._classes)
        ]
        self._cache(features, image, chosen, scores)
        for k, cache in enumerate(self._classes):
            if cache.added and (not cache.rounds or cache.added > self.config.retrain_after):
                self._train(k)

    def finish(self) -> LinearSvms:
        """Return the SVMs over raw features, every class trained once more on what it has cached.

        A class without positives, or that never met a negative, is left untrained.
        """
        for k, cache in enumerate(self._classes):
            if cache.rounds:
                self._train(k)
        return LinearSvms(
            weights=self._weights.T.copy(),
            bias=self._bias.copy(),
            trained=np.array([cache.rounds > 0 for cache in self._classes], dtype=np.bool_),
            converged=np.array([cache.converged for cache in self._classes], dtype=np.bool_),
        )

    def _checked(self, features: FloatArray) -> FloatArray:
        features = np.asarray(features, dtype=np.float32)
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(f"features must be (N, {self.dim}), got {features.shape}")
        return features

    def _hard(
        self,
        cache: NegativeCache,
        scores: FloatArray,
        iou: FloatArray,
        groups: IntArray | None,
        seen: int | None,
    ) -> IntArray:
        """Choose the regions of an image that one class is to cache; `seen` if it came before."""
        if not len(cache.positives):
            return np.zeros(0, dtype=np.int64)
        mask = iou < self.config.negative_iou
        if cache.rounds:
            mask &= scores > self.config.hard_threshold
        chosen: IntArray = np.flatnonzero(mask)
        if groups is not None:
            first = np.unique(groups[chosen], return_index=True)[1]
            chosen = chosen[np.sort(first)]
        if seen is not None:
            own = cache.negatives[self._store.image[cache.negatives] == seen]
            chosen = chosen[~np.isin(chosen, self._store.region[own])]
        return chosen

    def _cache(
        self, features: FloatArray, image: int, chosen: list[IntArray], scores: FloatArray
    ) -> None:
        """Store the union of the chosen regions once, and hand each class its share."""
        union = np.unique(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)
        if not union.size:
            return
        places = self._store.add(features[union] * np.float32(self.scale), image, union)
        for k, (cache, regions) in enumerate(zip(self._classes, chosen, strict=True)):
            own = places[np.searchsorted(union, regions)]
            self._store.retain(own)
            cache.negatives = np.concatenate([cache.negatives, own])
            cache.scores = np.concatenate([cache.scores, scores[regions, k].astype(np.float64)])
            cache.negative_alpha = np.concatenate([cache.negative_alpha, np.zeros(len(own))])
            cache.added += len(own)
        for cache in self._classes:
            if len(cache.negatives) > self.config.max_negatives:
                best = np.argsort(-cache.scores, kind="stable")[: self.config.max_negatives]
                mask = np.zeros(len(cache.negatives), dtype=np.bool_)
                mask[best] = True
                self._store.release(cache.keep(mask))

    def _train(self, k: int) -> None:
        """Train class `k` from where it stood, rescore its cache and evict the easy part."""
        cache, config = self._classes[k], self.config
        n_pos, n_neg = len(cache.positives), len(cache.negatives)
        dual = DualProblem(
            index=np.concatenate([cache.positives, cache.negatives]),
            sign=np.repeat([1.0, -1.0], [n_pos, n_neg]),
            cost=np.repeat([config.c * config.positive_weight, config.c], [n_pos, n_neg]),
            alpha=np.concatenate([cache.positive_alpha, cache.negative_alpha]),
        )
        seed = (config.seed * 1_000_003 + k * 10_007 + cache.rounds) % 2**63
        found = solve(
            self._store.rows,
            self._store.squares,
            dual,
            bias_scale=config.intercept_scaling,
            tolerance=config.tolerance,
            max_iterations=config.max_iterations,
            seed=seed,
        )
        cache.positive_alpha = dual.alpha[:n_pos].copy()
        cache.negative_alpha = dual.alpha[n_pos:].copy()
        cache.weights, cache.bias, cache.converged = found.weights, found.bias, found.converged
        cache.added = 0
        cache.rounds += 1
        cache.scores = margins(self._store.rows, cache.negatives, cache.weights, cache.bias)
        self._store.release(cache.keep(cache.scores >= config.evict_threshold))
        self._weights[:, k] = cache.weights * self.scale
        self._bias[k] = cache.bias

    def state(self) -> State:
        """Return everything needed to go on, as arrays; only rows in use are copied."""
        live = np.flatnonzero(self._store.uses)
        renumber = np.zeros(len(self._store.uses), dtype=np.int64)
        renumber[live] = np.arange(len(live))
        out: State = {
            "rows": self._store.rows[live],
            "image": self._store.image[live],
            "region": self._store.region[live],
            "keys": np.frombuffer(
                "".join(f"{key}\0" for key in self._images).encode(), dtype=np.uint8
            ).copy(),
            "scale": np.array([self.scale]),
            "weights": np.stack([cache.weights for cache in self._classes]),
            "bias": np.array([cache.bias for cache in self._classes]),
            "added": np.array([cache.added for cache in self._classes]),
            "rounds": np.array([cache.rounds for cache in self._classes]),
            "converged": np.array([cache.converged for cache in self._classes]),
        }
        for name in ("positives", "negatives"):
            lists = [getattr(cache, name) for cache in self._classes]
            out[name] = renumber[np.concatenate(lists)]
            out[f"{name}_count"] = np.array([len(values) for values in lists])
        for name in ("scores", "positive_alpha", "negative_alpha"):
            out[name] = np.concatenate([getattr(cache, name) for cache in self._classes])
        return out

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]], config: SvmConfig) -> HardNegativeMiner:
        """Make a miner that goes on where `state()` was taken; `config` must be the same."""
        n_classes, dim = state["weights"].shape
        miner = cls(n_classes, dim, config, float(state["scale"][0]))
        keys = state["keys"].tobytes().decode().split("\0")[:-1]
        miner._images = {key: i for i, key in enumerate(keys)}
        places = miner._store.add(state["rows"], NO_IMAGE, state["region"])
        miner._store.image[places] = state["image"]
        cuts = {name: np.cumsum(state[f"{name}_count"])[:-1] for name in ("positives", "negatives")}
        parts = {
            name: np.split(state[name], cuts["positives" if "positive" in name else "negatives"])
            for name in ("positives", "negatives", "scores", "positive_alpha", "negative_alpha")
        }
        for k, cache in enumerate(miner._classes):
            for name, values in parts.items():
                setattr(cache, name, values[k].copy())
            miner._store.retain(cache.positives)
            miner._store.retain(cache.negatives)
            cache.weights, cache.bias = state["weights"][k].copy(), float(state["bias"][k])
            cache.added, cache.rounds = int(state["added"][k]), int(state["rounds"][k])
            cache.converged = bool(state["converged"][k])
            if cache.rounds:
                miner._weights[:, k] = cache.weights * miner.scale
                miner._bias[k] = cache.bias
        return miner
