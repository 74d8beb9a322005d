"""AP of the head that is being fine-tuned, on images that it does not learn from.

The scores are the softmax's and the boxes the learned ones, after NMS, as in Fast R-CNN. SVMs,
ridge regression, image context, iterative localization and augmented views are not there yet: the
finished detector is a few points better.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sppdet.backbones.feature_maps import FeatureExtractor
from sppdet.core.boxes import DELTA_STDS, clip, decode_deltas
from sppdet.core.parallel import prefetch
from sppdet.core.progress import Progress
from sppdet.core.types import Dataset, Detections, FloatArray
from sppdet.detection.nms import nms
from sppdet.evaluation.voc_ap import evaluate_voc
from sppdet.training.config import TrainingConfig
from sppdet.training.data import TrainingData, prepare_data
from sppdet.training.finetune import FineTuner

# Measurements of a training: one for so many steps, and so many at most.
STEPS_BETWEEN, MOST_TIMES = 150, 4
# Images of a measurement: one for so many steps, so many at least and at most. One takes about
# half as long as a step: all measurements together take about a tenth of the steps' time.
STEPS_PER_IMAGE, FEWEST_IMAGES, MOST_IMAGES = 20, 20, 100
# Regions of an image, its proposals' first, and Fast R-CNN's score threshold and IoU of NMS.
REGIONS, MIN_SCORE, NMS_IOU = 500, 0.05, 0.3


def measured_steps(steps: int) -> frozenset[int]:
    """The steps after which AP is measured, evenly spaced, the last of them included."""
    times = min(MOST_TIMES, max(1, steps // STEPS_BETWEEN))
    return frozenset(round(steps * (n + 1) / times) for n in range(times)) - {0}


def sample_validation(dataset: Dataset, steps: int) -> Dataset:
    """Take evenly spaced images, as many as suit the number of steps."""
    wanted = min(len(dataset), MOST_IMAGES, max(FEWEST_IMAGES, steps // STEPS_PER_IMAGE))
    chosen = np.linspace(0, len(dataset) - 1, wanted).astype(int)
    return replace(dataset, samples=tuple(dataset.samples[n] for n in chosen))


def prepare_validation(
    config: TrainingConfig,
    dataset: Dataset | None,
    cache: Path,
    extractor: FeatureExtractor,
    progress: Progress,
    *,
    workers: int = 0,
) -> TrainingData | None:
    """Prepare the images that AP is measured on; None where there are none, or no steps.

    Args:
        config: settled settings.
        dataset: of the classes that are trained.
        cache, extractor, progress, workers: as `prepare_data` takes them.

    Raises TrainingError naming images that cannot be used.
    """
    if dataset is None or not len(dataset) or not config.finetune.steps:
        return None
    sample = sample_validation(dataset, config.finetune.steps)
    return prepare_data(
        config, sample, cache, extractor, progress, workers=workers, part="validation "
    )


def validation_ap(tuner: FineTuner, data: TrainingData) -> float:
    """Mean AP at IoU 0.5 (area under the curve) of the tuner's head as it stands, 0 to 1.

    NaN where no object is to be found. Changes nothing that the next step depends on.
    """
    dataset, found = data.dataset, {}
    for index, maps in prefetch(range(len(dataset)), data.load_maps):
        output = tuner.outputs(maps, data.proposals[index][:REGIONS])
        scores = torch.softmax(output.class_logits, dim=1)[:, 1:].cpu().numpy()
        deltas = output.box_deltas.cpu().numpy() * np.array(DELTA_STDS, np.float32)
        sample = dataset.samples[index]
        found[sample.image_id] = to_detections(
            scores, deltas, data.proposals[index][:REGIONS], (sample.width, sample.height), dataset
        )
    return evaluate_voc(dataset, found).map_area


def to_detections(
    scores: FloatArray,
    deltas: FloatArray,
    regions: FloatArray,
    size: tuple[int, int],
    dataset: Dataset,
) -> Detections:
    """Detections of an image: scores `(N, K)`, deltas `(N, K, 4)` from regions `(N, 4)`."""
    boxes, kept_scores, labels = [], [], []
    for label in range(scores.shape[1]):
        above = np.flatnonzero(scores[:, label] > MIN_SCORE)
        moved = clip(decode_deltas(deltas[above, label], regions[above]), *size)
        own = scores[above, label]
        kept = nms(moved, own, NMS_IOU)
        boxes.append(moved[kept])
        kept_scores.append(own[kept])
        labels.append(np.full(len(kept), label, np.int64))
    joined = np.concatenate(kept_scores)
    order = np.argsort(-joined, kind="stable")
    return Detections(
        np.concatenate(boxes)[order], joined[order], np.concatenate(labels)[order], dataset.classes
    )
