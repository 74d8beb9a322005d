"""The stages that make the head: fine-tuning and compression."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import torch

from sppdet.compression import Responses
from sppdet.config import to_dict
from sppdet.errors import TrainingError
from sppdet.files import config_digest, sha256
from sppdet.finetune import FineTuner
from sppdet.finetune_config import images_of_step
from sppdet.head import RegionHead
from sppdet.prefetch import ahead
from sppdet.training.altered import View, seen_image
from sppdet.training.job import Job
from sppdet.training.statistics import (
    map_statistics,
    sampled_images,
    sampled_maps,
    sampled_regions,
)

# Steps between two lines about the loss.
REPORT_EVERY = 250


def fine_tuned_head(job: Job, key: str) -> RegionHead:
    """The head with its fully connected layers trained (paper sec. 4.1) on the extractor's device.

    It comes back on the CPU, for which everything after it is made.
    """
    config, data, store, extractor = job.config, job.data, job.store, job.data.maps.extractor
    head = RegionHead(config.head, extractor, len(data.dataset.classes), seed=config.seed)
    done = store.load("finetune", key)
    if done is not None:
        job.progress.say("fine-tuning: unchanged, taken from the run's folder")
        head.load_state_dict(done)
        return head
    tuner = FineTuner(head.to(extractor.device), config.finetune, config.seed)
    begun = store.load("finetune", key, partial=True)
    if begun is not None:
        tuner.load_state(begun)
        job.progress.say(f"fine-tuning: going on from step {tuner.step}")
    else:
        head.set_statistics(*map_statistics(head, data))
        tuner.measure_inputs(sampled_maps(data))
    _run_steps(tuner, job, key)
    tuner.finish()
    head.cpu()
    store.save("finetune", key, head.state_dict())
    return head


def _run_steps(tuner: FineTuner, job: Job, key: str) -> None:
    data, store, progress = job.data, job.store, job.progress
    settings, count = tuner.config, len(data.dataset)
    wanted = (
        View(step * settings.images + slot, image)
        for step in range(tuner.step, settings.steps)
        for slot, image in enumerate(images_of_step(settings, count, step, tuner.seed))
    )
    # Maps of altered images are computed on one thread beside the step's, or on one an image where
    # a GPU takes the step. A thread that torch has not met yet would take that number for its own:
    # this one asks for its number before.
    torch.get_num_threads()
    one_thread = partial(torch.set_num_threads, 1)
    workers = 1 if tuner.device.type == "cpu" else settings.images
    loaded = ahead(
        wanted, partial(seen_image, data, settings, tuner.seed), one_thread, workers=workers
    )
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


def compressed_head(job: Job, head: RegionHead, upstream: str) -> RegionHead:
    """The head as it detects: fc6 as two narrow factors, where that saves work.

    SVMs and regressors are trained on it: they see what they will see, and sooner. The head that
    was given stays as it is.
    """
    config, data, store, progress = job.config, job.data, job.store, job.progress
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
