"""The SVM stage: one pass of hard-negative mining over all images. Resumes.

On its way it gathers the bank of negatives that classes are added with later.
"""

from __future__ import annotations

import numpy as np

from sppdet.core.parallel import prefetch
from sppdet.detection.added.bank import BankCollector
from sppdet.heads.added.negative_bank import NegativeBank
from sppdet.heads.head import RegionHead
from sppdet.heads.svm import LinearSvms
from sppdet.training.checkpoints import TrainingContext
from sppdet.training.hard_negatives import HardNegativeMiner, class_overlaps

# Images between two saves of the stage.
SAVE_EVERY = 500
# The arrays that the SVMs are made of.
FIELDS = ("weights", "bias", "trained", "converged")


def train_svms(
    context: TrainingContext, head: RegionHead, miner: HardNegativeMiner
) -> tuple[LinearSvms, NegativeBank]:
    """Train one SVM per class on the miner's positives and hard negatives (release spp_train).

    Goes on where it was last saved. Raises TrainingError naming an image whose features are not
    finite.
    """
    store, progress = context.store, context.progress
    done = context.find_result("svm", "SVMs")
    if done is not None:
        arrays = {name: value.numpy() for name, value in done.items()}
        bank = NegativeBank.from_tensors(arrays)
        assert bank is not None
        return LinearSvms(**{name: arrays[name] for name in FIELDS}), bank
    start, n_images = 0, len(context.data.dataset)
    collector = BankCollector(head, n_images, context.config.seed)
    state = store.load("svm", partial=True)
    if state is not None:
        start = int(state.pop("next_image"))
        progress.say(f"hard negatives: going on from image {start}")
        arrays = {name: value.numpy() for name, value in state.items()}
        miner = HardNegativeMiner.from_state(arrays, context.config.svm)
        collector.load_state(arrays)
    _mine(context, head, miner, collector, start)
    svms, bank = miner.finish(), collector.bank()
    store.save("svm", {**{name: getattr(svms, name) for name in FIELDS}, **bank.tensors()})
    return svms, bank


def _mine(
    context: TrainingContext,
    head: RegionHead,
    miner: HardNegativeMiner,
    collector: BankCollector,
    start: int,
) -> None:
    data, config = context.data, context.config
    samples, n_classes = data.dataset.samples, len(data.dataset.classes)
    with context.progress.task("hard negatives", len(samples)) as advance:
        advance(start)
        for index, (maps, every) in prefetch(range(start, len(samples)), data.load):
            targets = every.first(config.svm.proposals_per_image)
            regions = head.regions(head.prepare(maps), targets.boxes)
            miner.mine_image(
                samples[index].image_id,
                regions.layers[config.head.svm_layer],
                class_overlaps(targets, n_classes),
                head.pooler.same_window_ids(maps, targets.boxes),
            )
            collector.add(index, regions, targets.max_iou, len(targets.gt_boxes))
            advance(1)
            if (index + 1) % SAVE_EVERY == 0 and index + 1 < len(samples):
                state = miner.state() | collector.state() | {"next_image": np.array(index + 1)}
                context.store.save("svm", state, partial=True)
