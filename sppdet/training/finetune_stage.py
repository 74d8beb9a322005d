"""The fine-tuning stage: batches in order, steps, checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from sppdet.core.errors import TrainingError
from sppdet.core.parallel import prefetch
from sppdet.heads.head import RegionHead
from sppdet.training.augmentation import BatchSlot, load_training_image
from sppdet.training.checkpoints import TrainingContext
from sppdet.training.config import FineTuneConfig
from sppdet.training.finetune import FineTuner
from sppdet.training.statistics import map_statistics, sampled_maps

# Steps between two lines about the loss.
REPORT_EVERY = 250


def finetune_head(context: TrainingContext) -> RegionHead:
    """Train the head's layers (paper sec. 4.1) on the extractor's device, or find them trained.

    The head comes back on the CPU, for which everything after it is made. Raises TrainingError
    when the loss is not finite.
    """
    config, data, store = context.config, context.data, context.store
    extractor = data.maps.extractor
    head = RegionHead(config.head, extractor, len(data.dataset.classes), seed=config.seed)
    done = context.find_result("finetune", "fine-tuning")
    if done is not None:
        head.load_state_dict(done)
        return head
    tuner = FineTuner(head.to(extractor.device), config.finetune, config.seed)
    begun = store.load("finetune", partial=True)
    if begun is not None:
        tuner.load_state(begun)
        context.progress.say(f"fine-tuning: going on from step {tuner.steps_done}")
    else:
        head.pooler.set_statistics(*map_statistics(head, data))
        tuner.measure_inputs(sampled_maps(data))
    _run_steps(tuner, context)
    tuner.fold_normalization()
    head.cpu()
    store.save("finetune", head.state_dict())
    return head


def batch_slots(
    config: FineTuneConfig, n_images: int, seed: int, start: int = 0
) -> Iterator[BatchSlot]:
    """Yield the images of all steps from `start` on: each epoch is a seeded order of all images.

    A function of the step alone, so that resumed training goes on with the same images.
    """
    for position in range(start * config.images_per_step, config.steps * config.images_per_step):
        epoch, place = divmod(position, n_images)
        order = np.random.default_rng([seed, 1, epoch]).permutation(n_images)
        yield BatchSlot(position, int(order[place]))


def _run_steps(tuner: FineTuner, context: TrainingContext) -> None:
    data, store, progress = context.data, context.store, context.progress
    config = tuner.config
    slots = batch_slots(config, len(data.dataset), tuner.seed, tuner.steps_done)
    # Maps of augmented images are computed on one thread beside the step's, or on one per image
    # where a GPU takes the step. A thread that torch has not met yet would take that number for its
    # own: this one asks for its number before.
    torch.get_num_threads()
    workers = 1 if tuner.device.type == "cpu" else config.images_per_step
    load = partial(load_training_image, data, config, tuner.seed)
    images = prefetch(slots, load, initializer=partial(torch.set_num_threads, 1), workers=workers)
    losses = []
    with progress.task("fine-tuning", config.steps) as advance:
        advance(tuner.steps_done)
        while tuner.steps_done < config.steps:
            batch = [next(images)[1] for _ in range(config.images_per_step)]
            try:
                losses.append(tuner.step(batch))
            except TrainingError:
                store.save("finetune", tuner.state(), partial=True)
                raise
            advance(1)
            if tuner.steps_done % REPORT_EVERY == 0:
                mean = np.mean(losses, axis=0)
                progress.say(
                    f"step {tuner.steps_done}: loss {mean[0]:.3f}, classification {mean[1]:.3f}, "
                    f"box {mean[2]:.3f}, objects classified right {mean[3]:.3f}"
                )
                losses.clear()
            if tuner.steps_done % config.checkpoint_every == 0:
                store.save("finetune", tuner.state(), partial=True)
