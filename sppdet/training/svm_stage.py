"""The stage of the SVMs: positives, then one pass of hard negatives over all images. Resumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sppdet.config import to_dict
from sppdet.files import config_digest, sha256
from sppdet.head import RegionHead
from sppdet.mining import HardNegativeMiner
from sppdet.prefetch import ahead
from sppdet.region_features import RegionFeatures
from sppdet.svm import LinearSvms, SvmConfig
from sppdet.training.data import class_overlaps
from sppdet.training.job import Job
from sppdet.training.overview import Overview
from sppdet.training.statistics import norm_scale
from sppdet.training.store import StageStore, as_tensors
from sppdet.types import FloatArray, IntArray

# Images between two saves of the stage.
SAVE_EVERY = 500


@dataclass(eq=False)
class _Mining:
    """One set of SVMs on its way: its settings, its key, and where it is."""

    settings: SvmConfig
    key: str
    miner: HardNegativeMiner
    next_image: int

    def add(self, index: int, image_id: str, features: RegionFeatures, at_hand: _AtHand) -> None:
        """Feeds the miner the image's regions that its settings want, unless it had them."""
        if index < self.next_image:
            return
        rows = slice(at_hand.objects + self.settings.proposals if self.settings.proposals else None)
        values = features.layer(self.settings.layer)[rows]
        self.miner.add_image(image_id, values, at_hand.overlaps[rows], at_hand.groups[rows])
        self.next_image = index + 1

    def save(self, store: StageStore) -> None:
        """Saves the state on the way."""
        state = as_tensors(self.miner.state())
        store.save(
            "svm", self.key, {**state, "next_image": torch.tensor(self.next_image)}, partial=True
        )


@dataclass(frozen=True, eq=False)
class _AtHand:
    """What all miners want to know of an image: see `HardNegativeMiner.add_image`."""

    objects: int
    overlaps: FloatArray
    groups: IntArray


class SvmStage:
    """One SVM a class: positives from one look over all images, hard negatives from another.

    `variants` are trained in the same passes, to be found in the store when a run with those
    settings asks for them.
    """

    def __init__(
        self, job: Job, head: RegionHead, upstream: str, variants: Sequence[SvmConfig] = ()
    ) -> None:
        self._job, self._head = job, head
        wanted = [job.config.svm, *variants]
        keys = [sha256(upstream, config_digest(to_dict(one)), "svm") for one in wanted]
        self._key = keys[0]
        self._fresh: list[_Mining] = []
        self._begun: list[_Mining] = []
        for key, settings in zip(keys, wanted, strict=True):
            if job.store.load("svm", key) is None:
                self._begin(key, settings)
        if not self._begun + self._fresh:
            job.progress.say("SVMs: unchanged, taken from the run's folder")

    def _begin(self, key: str, settings: SvmConfig) -> None:
        """A mining as it was saved, or a fresh one."""
        job = self._job
        state = job.store.load("svm", key, partial=True)
        if state is not None:
            start = int(state.pop("next_image"))
            job.progress.say(f"SVMs on {settings.layer}: going on from image {start}")
            arrays = {name: value.numpy() for name, value in state.items()}
            miner = HardNegativeMiner.from_state(arrays, settings)
            self._begun.append(_Mining(settings, key, miner, start))
            return
        layer, norm = settings.layer, settings.feature_norm
        scale = norm_scale(self._head, layer, job.data, norm, job.config.seed)
        n_classes, width = len(job.data.dataset.classes), self._head.layer_width(layer)
        miner = HardNegativeMiner(n_classes, width, settings, scale)
        self._fresh.append(_Mining(settings, key, miner, 0))

    @property
    def needed(self) -> bool:
        """Whether a mining has no positives yet."""
        return bool(self._fresh)

    def see(self, seen: Overview) -> None:
        """Takes the image's objects as positives."""
        count = len(seen.near.objects)
        if count:
            for one in self._fresh:
                features = seen.features.rows(one.settings.layer, np.arange(count))
                one.miner.add_positives(features, seen.near.labels)

    def finish(self) -> None:
        """Saves the positives."""
        for one in self._fresh:
            one.save(self._job.store)
        self._begun, self._fresh = self._begun + self._fresh, []

    def mined(self) -> LinearSvms:
        """The SVMs, hard negatives mined in one pass over the images (release spp_train)."""
        if self._begun:
            _mine(self._begun, self._job, self._head)
            self._begun = []
        found = self._job.store.load("svm", self._key)
        assert found is not None
        return LinearSvms(**{name: value.numpy() for name, value in found.items()})


def _mine(minings: list[_Mining], job: Job, head: RegionHead) -> None:
    """One pass over the images for all of `minings`; saves their SVMs at the end."""
    data, store = job.data, job.store
    start, count = min(one.next_image for one in minings), len(data.dataset)
    limits = [one.settings.proposals for one in minings]
    with job.progress.task("hard negatives", count) as advance:
        advance(start)
        for index, (maps, every) in ahead(range(start, count), data.load):
            found = every.first(max(limits) if all(limits) else 0)
            features = RegionFeatures(head, maps, found.boxes)
            at_hand = _AtHand(
                len(found.objects),
                class_overlaps(found, len(data.dataset.classes)),
                head.window_groups(maps, found.boxes),
            )
            for one in minings:
                one.add(index, data.dataset.samples[index].image_id, features, at_hand)
            advance(1)
            if (index + 1) % SAVE_EVERY == 0 and index + 1 < count:
                for one in minings:
                    one.save(store)
    for one in minings:
        svms = one.miner.finish()
        fields = ("weights", "bias", "trained", "converged")
        store.save("svm", one.key, as_tensors({name: getattr(svms, name) for name in fields}))
