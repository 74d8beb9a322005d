"""The stage of the SVMs: positives, then one pass of hard negatives over all images. Resumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from sppdet.config import Config, to_dict
from sppdet.files import config_digest, sha256
from sppdet.head import RegionHead
from sppdet.mining import HardNegativeMiner
from sppdet.prefetch import ahead
from sppdet.progress import Progress
from sppdet.region_features import RegionFeatures
from sppdet.svm import LinearSvms, SvmConfig
from sppdet.training.data import TrainingData, class_overlaps
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


def mined_svms(
    config: Config,
    data: TrainingData,
    head: RegionHead,
    store: StageStore,
    upstream: str,
    progress: Progress,
    variants: Sequence[SvmConfig] = (),
) -> LinearSvms:
    """One SVM a class, hard negatives mined in one pass over the images (release spp_train).

    `variants` are trained in the same pass, to be found in the store when a run with those
    settings asks for them.
    """
    wanted = [config.svm, *variants]
    keys = [sha256(upstream, config_digest(to_dict(one)), "svm") for one in wanted]
    missing = {key: one for key, one in zip(keys, wanted, strict=True) if not _done(store, key)}
    if missing:
        minings = _minings(config, missing, data, head, store, progress)
        _mine(minings, data, head, store, progress)
    else:
        progress.say("SVMs: unchanged, taken from the run's folder")
    found = store.load("svm", keys[0])
    assert found is not None
    return LinearSvms(**{name: value.numpy() for name, value in found.items()})


def _done(store: StageStore, key: str) -> bool:
    return store.load("svm", key) is not None


def _mine(
    minings: list[_Mining],
    data: TrainingData,
    head: RegionHead,
    store: StageStore,
    progress: Progress,
) -> None:
    """One pass over the images for all of `minings`; saves their SVMs at the end."""
    start, count = min(one.next_image for one in minings), len(data.dataset)
    limits = [one.settings.proposals for one in minings]
    with progress.task("hard negatives", count) as advance:
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


def _minings(
    config: Config,
    missing: Mapping[str, SvmConfig],
    data: TrainingData,
    head: RegionHead,
    store: StageStore,
    progress: Progress,
) -> list[_Mining]:
    """A mining for each settings: as it was saved, or fresh with all positives."""
    minings, fresh = [], []
    n_classes = len(data.dataset.classes)
    for key, settings in missing.items():
        state = store.load("svm", key, partial=True)
        if state is not None:
            start = int(state.pop("next_image"))
            progress.say(f"SVMs on {settings.layer}: going on from image {start}")
            arrays = {name: value.numpy() for name, value in state.items()}
            miner = HardNegativeMiner.from_state(arrays, settings)
            minings.append(_Mining(settings, key, miner, start))
            continue
        scale = norm_scale(head, settings.layer, data, settings.feature_norm, config.seed)
        miner = HardNegativeMiner(n_classes, head.layer_width(settings.layer), settings, scale)
        fresh.append(_Mining(settings, key, miner, 0))
    if fresh:
        _add_positives(fresh, data, head, progress)
    return minings + fresh


def _add_positives(
    minings: list[_Mining], data: TrainingData, head: RegionHead, progress: Progress
) -> None:
    count = len(data.dataset)
    with progress.task("positives", count) as advance:
        for _, (maps, found) in ahead(range(count), data.load):
            if len(found.objects):
                features = RegionFeatures(head, maps, found.objects)
                for one in minings:
                    one.miner.add_positives(features.layer(one.settings.layer), found.labels)
            advance(1)
