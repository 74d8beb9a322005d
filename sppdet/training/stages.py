"""The learning stages but the SVMs': fine-tuning, compression, scenes, box regressors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from sppdet.compression import Responses
from sppdet.config import Config, to_dict
from sppdet.errors import TrainingError
from sppdet.features import FeatureExtractor
from sppdet.files import config_digest, sha256
from sppdet.finetune import FineTuner
from sppdet.finetune_config import images_of_step
from sppdet.head import RegionHead
from sppdet.prefetch import ahead
from sppdet.progress import Progress
from sppdet.region_features import RegionFeatures
from sppdet.regression import BoxRegressors, RidgeCollector
from sppdet.scene import SceneClassifier, fit_scenes
from sppdet.training.altered import View, seen_image
from sppdet.training.data import TrainingData
from sppdet.training.statistics import (
    map_statistics,
    norm_scale,
    sampled_images,
    sampled_maps,
    sampled_regions,
)
from sppdet.training.store import StageStore, as_tensors

# What is fitted to all images at once, and the arrays that it is made of.
Linear = TypeVar("Linear", BoxRegressors, SceneClassifier)
FIELDS = ("weights", "bias", "trained")
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
    begun = store.load("finetune", key, partial=True)
    if begun is not None:
        tuner.load_state(begun)
        progress.say(f"fine-tuning: going on from step {tuner.step}")
    else:
        head.set_statistics(*map_statistics(head, data))
        tuner.measure_inputs(sampled_maps(data))
    _run_steps(tuner, data, store, key, progress)
    tuner.finish()
    store.save("finetune", key, head.state_dict())
    return head


def _run_steps(
    tuner: FineTuner, data: TrainingData, store: StageStore, key: str, progress: Progress
) -> None:
    settings, count = tuner.config, len(data.dataset)
    wanted = (
        View(step * settings.images + slot, image)
        for step in range(tuner.step, settings.steps)
        for slot, image in enumerate(images_of_step(settings, count, step, tuner.seed))
    )
    # Maps of altered images are computed on one thread beside the step's. A thread that torch has
    # not met yet would take that number for its own: this one asks for its number before.
    torch.get_num_threads()
    one_thread = partial(torch.set_num_threads, 1)
    loaded = ahead(wanted, partial(seen_image, data, settings, tuner.seed), one_thread)
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


def compressed_head(
    config: Config,
    data: TrainingData,
    head: RegionHead,
    store: StageStore,
    upstream: str,
    progress: Progress,
) -> RegionHead:
    """The head as it detects: fc6 as two narrow factors, where that saves work.

    SVMs and regressors are trained on it: they see what they will see, and sooner. The head that
    was given stays as it is.
    """
    rank = config.compression.fc6_rank
    if not head.squeeze_saves(rank):
        return head
    key = sha256(upstream, config_digest(to_dict(config.compression)), "compression")
    found = copy.deepcopy(head)
    done = store.load("compression", key)
    if done is not None:
        progress.say("compression: unchanged, taken from the run's folder")
        found.squeeze_fc6(rank)
        found.load_state_dict(done)
        return found
    responses = Responses(head.config.fc6)
    with progress.task("compression", len(sampled_images(data))) as advance:
        for maps, boxes in sampled_regions(data, config.seed):
            with torch.inference_mode():
                responses.add(head.fc6_response(maps, boxes))
            advance(1)
    found.squeeze_fc6(rank, responses)
    store.save("compression", key, found.state_dict())
    return found


def scene_classifier(
    config: Config,
    data: TrainingData,
    head: RegionHead,
    store: StageStore,
    upstream: str,
    progress: Progress,
) -> SceneClassifier:
    """What tells from a whole image which classes it shows."""
    key = sha256(upstream, config_digest(to_dict(config.scene)), "scene")
    fit = partial(_fitted_scenes, config, data, head, progress)
    return _once(SceneClassifier, fit, "scenes", "scene", store, key, progress)


def _fitted_scenes(
    config: Config, data: TrainingData, head: RegionHead, progress: Progress
) -> SceneClassifier:
    count = len(data.dataset)
    scenes = np.zeros((count, head.scene_width()), np.float32)
    shown = np.zeros((count, len(data.dataset.classes)), np.bool_)
    with progress.task("scenes", count) as advance, torch.inference_mode():
        for index, (maps, _) in ahead(range(count), data.load):
            scenes[index] = head.join(maps).scene().numpy()
            shown[index, data.dataset.samples[index].labels] = True
            advance(1)
    return fit_scenes(scenes, shown, config.scene)


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
    fit = partial(_fitted_regressors, config, data, head, progress)
    return _once(BoxRegressors, fit, "box regressors", "regression", store, key, progress)


def _fitted_regressors(
    config: Config, data: TrainingData, head: RegionHead, progress: Progress
) -> BoxRegressors:
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
    return collector.finish()


def _once(
    kind: type[Linear],
    fit: Callable[[], Linear],
    label: str,
    stage: str,
    store: StageStore,
    key: str,
    progress: Progress,
) -> Linear:
    """What was fitted and saved for these inputs before, or what `fit` gives, saved."""
    done = store.load(stage, key)
    if done is not None:
        progress.say(f"{label}: unchanged, taken from the run's folder")
        return kind(**{name: value.numpy() for name, value in done.items()})
    found = fit()
    store.save(stage, key, as_tensors({name: getattr(found, name) for name in FIELDS}))
    return found
