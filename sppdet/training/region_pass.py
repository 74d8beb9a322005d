"""One pass over all images for all that is learned from objects and from regions close to them.

What the trained stages make of the maps takes most of such a pass: positives of the SVMs, samples
of the box regressors and whole images take little longer together than any of them alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from sppdet.core.parallel import prefetch
from sppdet.heads.box_regression import BoxRegressionFitter, BoxRegressors
from sppdet.heads.head import RegionHead
from sppdet.heads.image_context import ContextClassifier
from sppdet.training.checkpoints import TrainingContext
from sppdet.training.hard_negatives import HardNegativeMiner
from sppdet.training.statistics import measure_feature_scale

# The stage, as the user is told of it.
LABEL = "positives, box regression, context"


class RegionPass(NamedTuple):
    """Results of the pass.

    Attributes:
        miner: the SVMs' positives, no negative mined yet.
        regressors: one box regressor per class.
        context: the classifier of whole images.
    """

    miner: HardNegativeMiner
    regressors: BoxRegressors
    context: ContextClassifier


# The arrays that a linear model is made of.
FIELDS = ("weights", "bias", "trained")


def collect_regions(context: TrainingContext, head: RegionHead) -> RegionPass:
    """Run the pass, or find its result in the run's folder.

    Raises TrainingError if a feature is not finite.
    """
    done = context.find_result("regions", LABEL)
    if done is not None:
        return _from_tensors(done, context)
    result = _collect(context, head)
    tensors = {f"svm.{name}": value for name, value in result.miner.state().items()}
    for part, model in (("box", result.regressors), ("context", result.context)):
        tensors |= {f"{part}.{name}": getattr(model, name) for name in FIELDS}
    context.store.save("regions", tensors)
    return result


def _collect(context: TrainingContext, head: RegionHead) -> RegionPass:
    data, config = context.data, context.config
    samples, n_classes = data.dataset.samples, len(data.dataset.classes)
    miner, fitter = _make_miner(context, head), _make_fitter(context, head)
    image_vectors = np.zeros((len(samples), head.pooler.image_width()), np.float32)
    shown = np.zeros((len(samples), n_classes), np.bool_)
    with context.progress.task(LABEL, len(samples)) as advance:
        for index, (maps, every) in prefetch(range(len(samples)), data.load):
            near = every.take(every.max_iou > config.regression.min_iou)
            regions = head.regions(head.prepare(maps), near.boxes)
            assert regions.image_vector is not None
            image_vectors[index] = regions.image_vector
            shown[index, samples[index].labels] = True
            if len(near.boxes):
                n_objects = len(near.gt_boxes)
                miner.add_positives(
                    regions.layers[config.head.svm_layer][:n_objects], near.gt_labels
                )
                fitter.add(
                    regions.layers[config.head.regression_layer],
                    near.boxes,
                    near.gt_boxes[near.matched_object],
                    near.gt_labels[near.matched_object],
                    image_id=samples[index].image_id,
                )
            advance(1)
    classifier = ContextClassifier.fit(
        image_vectors, shown, c=config.context.c, max_iterations=config.context.max_iterations
    )
    return RegionPass(miner, fitter.fit(), classifier)


def _make_miner(context: TrainingContext, head: RegionHead) -> HardNegativeMiner:
    config, layer = context.config, context.config.head.svm_layer
    norm = config.svm.feature_norm
    scale = measure_feature_scale(head, layer, context.data, norm, config.seed)
    n_classes = len(context.data.dataset.classes)
    return HardNegativeMiner(n_classes, head.layer_width(layer), config.svm, scale)


def _make_fitter(context: TrainingContext, head: RegionHead) -> BoxRegressionFitter:
    config, layer = context.config, context.config.head.regression_layer
    settings = config.regression
    scale = measure_feature_scale(head, layer, context.data, settings.feature_norm, config.seed)
    return BoxRegressionFitter(
        len(context.data.dataset.classes),
        head.layer_width(layer),
        alpha=settings.alpha,
        min_iou=settings.min_iou,
        max_samples=settings.max_samples,
        seed=settings.seed,
        scale=scale,
    )


def _from_tensors(tensors: dict[str, Tensor], context: TrainingContext) -> RegionPass:
    parts: dict[str, dict[str, np.ndarray]] = {"svm": {}, "box": {}, "context": {}}
    for name, value in tensors.items():
        part, _, field = name.partition(".")
        parts[part][field] = value.numpy()
    return RegionPass(
        HardNegativeMiner.from_state(parts["svm"], context.config.svm),
        BoxRegressors(**parts["box"]),
        ContextClassifier(**parts["context"]),
    )
