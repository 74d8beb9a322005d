"""Which regions of the training images go into a model's bank of negatives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sppdet.core.types import FloatArray
from sppdet.detection.added.regions import available_features, region_features
from sppdet.heads.added.negative_bank import NegativeBank
from sppdet.heads.head import RegionFeatures, RegionHead

# Of so many images, evenly spaced: the background region that looks most like an object, some of
# the next, and one of any kind, so that a new class is kept from what is easy too; and an object.
IMAGES, HARDEST, HARD, AMONG, RANDOM, OBJECTS = 180, 1, 2, 40, 1, 1
BACKGROUND_IOU = 0.3


class BankCollector:
    """Gathers a bank of negatives while the training images go by.

    Invariant: the result is a function of the images; one that was given another's `state` goes on
    where that one was.
    """

    def __init__(self, head: RegionHead, n_images: int, seed: int) -> None:
        chosen = np.linspace(0, n_images - 1, min(IMAGES, n_images)).astype(int)
        self._head, self._images, self._seed = head, {int(one) for one in chosen}, seed
        self._names = available_features(head)
        self._rows: dict[str, list[NDArray[Any]]] = {name: [] for name in self._names}

    def add(self, image: int, regions: RegionFeatures, max_iou: FloatArray, n_objects: int) -> None:
        """Take some regions of an image, if it is one of those that are looked at.

        Args:
            image: its number.
            regions: its objects, then proposals.
            max_iou: `float32 (N,)`, the highest IoU with an object.
            n_objects: how many of the regions are objects.
        """
        if image not in self._images:
            return
        rng = np.random.default_rng([self._seed, 6, image])
        looks = self._head.class_log_probabilities(regions).max(axis=1)
        background = np.flatnonzero(max_iou < BACKGROUND_IOU)
        best = background[np.argsort(-looks[background], kind="stable")][:AMONG]
        parts = (
            best[:HARDEST],
            rng.permutation(best[HARDEST:])[:HARD],
            rng.permutation(background)[:RANDOM],
            rng.permutation(n_objects)[:OBJECTS],
        )
        rows = np.concatenate(parts).astype(np.int64)
        for name, values in region_features(self._head, regions, self._names).items():
            self._rows[name].append(values[rows])

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what was gathered, as arrays."""
        return {f"bank.{name}": self._join(name) for name in self._names}

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what was gathered."""
        self._rows = {name: [state[f"bank.{name}"]] for name in self._names}

    def bank(self) -> NegativeBank:
        """Make the bank."""
        return NegativeBank.of({name: self._join(name) for name in self._names})

    def _join(self, name: str) -> NDArray[Any]:
        rows = self._rows[name]
        return np.concatenate(rows) if rows else np.zeros((0, 0), np.float16)
