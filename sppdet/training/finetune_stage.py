"""The fine-tuning stage: batches in order, steps, checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from sppdet.core.errors import TrainingError
from sppdet.core.parallel import prefetch
from sppdet.heads.head import RegionHead
from sppdet.heads.transfer import take_layers
from sppdet.reports.training_curves import write_curves
from sppdet.training.augmentation import BatchSlot, load_training_image
from sppdet.training.checkpoints import TrainingContext
from sppdet.training.config import FineTuneConfig
from sppdet.training.data import TrainingData
from sppdet.training.finetune import FineTuner
from sppdet.training.statistics import map_statistics, sampled_maps
from sppdet.training.validation.average_precision import measured_steps, validation_ap
from sppdet.training.validation.history import History

# Steps between two lines about the loss.
REPORT_EVERY = 250


def finetune_head(context: TrainingContext, validation: TrainingData | None = None) -> RegionHead:
    """Train the head's layers (paper sec. 4.1) on the extractor's device, or find them trained.

    They start from random ones, or from those of the context's starting model. The head comes back
    on the CPU, for which everything after it is made. What is measured on the images of
    `validation` on the way is told and written, and changes nothing. Raises TrainingError
    when the loss is not finite.
    """
    config, data, store = context.config, context.data, context.store
    extractor = data.maps.extractor
    head = RegionHead(config.head, extractor, len(data.dataset.classes), seed=config.seed)
    history = History(store.folder)
    done = context.find_result("finetune", "fine-tuning")
    if done is not None:
        history.load_state(done)
        history.write()
        write_curves(history.path)
        head.load_state_dict(done)
        return head
    tuner = FineTuner(head.to(extractor.device), config.finetune, config.seed)
    begun = store.load("finetune", partial=True)
    if begun is not None:
        history.load_state(begun)
        tuner.load_state(begun)
        context.progress.say(f"fine-tuning: going on from step {tuner.steps_done}")
    elif context.start is None:
        head.pooler.set_statistics(*map_statistics(head, data))
        tuner.measure_inputs(sampled_maps(data))
    else:
        take_layers(head, data.dataset.classes, context.start.head, context.start.classes)
        tuner.measure_inputs(sampled_maps(data))
        tuner.unfold_normalization()
    _run_steps(tuner, context, history, validation)
    if (peak := history.peak()) is not None:
        context.progress.say(
            f"validation AP was clearly higher at step {peak}: fewer steps may do better "
            f"(--set finetune.steps={peak})"
        )
    tuner.fold_normalization()
    head.cpu()
    store.save("finetune", head.state_dict() | history.state())
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


def _run_steps(
    tuner: FineTuner, context: TrainingContext, history: History, validation: TrainingData | None
) -> None:
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
    measured = frozenset() if validation is None else measured_steps(config.steps)
    with progress.task("fine-tuning", config.steps) as advance:
        advance(tuner.steps_done)
        while tuner.steps_done < config.steps:
            batch = [next(images)[1] for _ in range(config.images_per_step)]
            try:
                history.add(tuner.step(batch))
            except TrainingError:
                store.save("finetune", tuner.state() | history.state(), partial=True)
                raise
            advance(1)
            step = tuner.steps_done
            if validation is not None and step in measured:
                progress.say(history.report(step, validation_ap(tuner, validation)))
                write_curves(history.path)
            elif step % REPORT_EVERY == 0 or step == config.steps:
                progress.say(history.report(step))
                write_curves(history.path)
            if step % config.checkpoint_every == 0:
                store.save("finetune", tuner.state() | history.state(), partial=True)
