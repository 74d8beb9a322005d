"""The learning stages: fine-tuning, SVMs with hard negatives, box regressors. Each resumes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sppdet.config import Config, to_dict
from sppdet.detector import RegionFeatures
from sppdet.errors import TrainingError
from sppdet.features import FeatureExtractor, FeatureMaps
from sppdet.files import config_digest, sha256
from sppdet.finetune import FineTuner, images_of_step
from sppdet.head import RegionHead
from sppdet.mining import HardNegativeMiner
from sppdet.prefetch import ahead
from sppdet.progress import Progress
from sppdet.regression import BoxRegressors, RidgeCollector
from sppdet.sampling import Candidates
from sppdet.svm import LinearSvms, SvmConfig, feature_scale
from sppdet.training.data import TrainingData, class_overlaps
from sppdet.training.store import StageStore, as_tensors
from sppdet.types import FloatArray, IntArray

# Images whose maps give the channels' mean and deviation, and the features' mean norm (release:
# 200 images, at most 200 regions of each).
STATISTICS_IMAGES = 200
STATISTICS_REGIONS = 200
# Images between two saves of the SVM stage.
SAVE_EVERY = 500
# Steps between two lines about the loss.
REPORT_EVERY = 250


def fine_tuned_head(
    config: Config,
    data: TrainingData,
    extractor: FeatureExtractor,
    store: StageStore,
    key: str,
    progress: Progress,
) -> RegionHead:
    """The head with its fully connected layers trained (paper sec. 4.1), on the CPU."""
    head = RegionHead(config.head, extractor, len(data.dataset.classes), seed=config.seed)
    done = store.load("finetune", key)
    if done is not None:
        progress.say("fine-tuning: unchanged, taken from the run's folder")
        head.load_state_dict(done)
        return head
    tuner = FineTuner(head, config.finetune, config.seed)
    partial = store.load("finetune", key, partial=True)
    if partial is not None:
        tuner.load_state(partial)
        progress.say(f"fine-tuning: going on from step {tuner.step}")
    else:
        head.set_statistics(*map_statistics(head, data))
        tuner.measure_inputs(_sampled_maps(data))
    _run_steps(tuner, data, store, key, progress)
    tuner.finish()
    store.save("finetune", key, head.state_dict())
    return head


def _run_steps(
    tuner: FineTuner, data: TrainingData, store: StageStore, key: str, progress: Progress
) -> None:
    settings, count = tuner.config, len(data.dataset)
    wanted = (
        image
        for step in range(tuner.step, settings.steps)
        for image in images_of_step(settings, count, step, tuner.seed)
    )
    loaded = ahead(wanted, data.load)
    losses = []
    with progress.task("fine-tuning", settings.steps) as advance:
        advance(tuner.step)
        while tuner.step < settings.steps:
            try:
                losses.append(tuner.run_step(count, lambda _: next(loaded)[1]))
            except TrainingError:
                store.save("finetune", key, tuner.state(), partial=True)
                raise
            advance(1)
            if tuner.step % REPORT_EVERY == 0:
                mean = np.mean(losses, axis=0)
                progress.say(
                    f"step {tuner.step}: loss {mean[0]:.3f}, classification {mean[1]:.3f}, "
                    f"box {mean[2]:.3f}, objects classified right {mean[3]:.3f}"
                )
                losses.clear()
            if tuner.step % settings.save_every == 0:
                store.save("finetune", key, tuner.state(), partial=True)


@torch.no_grad()
def map_statistics(head: RegionHead, data: TrainingData) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `(C,)` of the head's map channels over evenly spaced images."""
    total = squares = torch.zeros(())
    cells = 0
    for maps, _ in _sampled_maps(data):
        for scaled in maps.scaled:
            values = head.joined(scaled.map)[0].double().flatten(0, 1)
            total = total + values.sum(dim=0)
            squares = squares + values.square().sum(dim=0)
            cells += len(values)
    mean = total / cells
    variance = (squares / cells - mean.square()).clamp_min(1e-6)
    return mean.float(), variance.sqrt().float()


def _sampled_maps(data: TrainingData) -> Iterator[tuple[FeatureMaps, Candidates]]:
    count = len(data.dataset)
    chosen = np.unique(np.linspace(0, count - 1, min(count, STATISTICS_IMAGES)).astype(int))
    for _, loaded in ahead([int(index) for index in chosen], data.load):
        yield loaded


def norm_scale(head: RegionHead, layer: str, data: TrainingData, norm: float, seed: int) -> float:
    """What features of `layer` are multiplied by so that their mean L2 norm is `norm`."""
    norms = []
    for number, (maps, found) in enumerate(_sampled_maps(data)):
        rng = np.random.default_rng([seed, 3, number])
        chosen = rng.permutation(len(found.boxes))[:STATISTICS_REGIONS]
        features = RegionFeatures(head, maps, found.boxes[chosen]).layer(layer)
        norms.append(np.linalg.norm(features, axis=1))
    return feature_scale(np.concatenate(norms), norm)


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


def ridge_regressors(
    config: Config,
    data: TrainingData,
    head: RegionHead,
    store: StageStore,
    upstream: str,
    progress: Progress,
) -> BoxRegressors:
    """One box regressor a class, on regions that overlap an object well (release)."""
    key = sha256(upstream, config_digest(to_dict(config.regression)), "regression")
    done = store.load("regression", key)
    if done is not None:
        progress.say("box regressors: unchanged, taken from the run's folder")
        return BoxRegressors(**{name: value.numpy() for name, value in done.items()})
    settings, count = config.regression, len(data.dataset)
    scale = norm_scale(head, settings.layer, data, settings.feature_norm, config.seed)
    dim = head.layer_width(settings.layer)
    collector = RidgeCollector(len(data.dataset.classes), dim, settings, scale)
    with progress.task("box regressors", count) as advance:
        for index, (maps, found) in ahead(range(count), data.load):
            near = np.flatnonzero(found.overlap > settings.min_iou)
            if len(found.objects) and len(near):
                boxes, match = found.boxes[near], found.match[near]
                features = RegionFeatures(head, maps, boxes).layer(settings.layer)
                image_id = data.dataset.samples[index].image_id
                targets, labels = found.objects[match], found.labels[match]
                collector.add(features, boxes, targets, labels, where=image_id)
            advance(1)
    regressors = collector.finish()
    fields = ("weights", "bias", "trained")
    store.save("regression", key, as_tensors({n: getattr(regressors, n) for n in fields}))
    return regressors
