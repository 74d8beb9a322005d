"""Recall of proposals, average best overlap (ABO) and its mean over classes (MABO)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sppdet.core.boxes import box_iou
from sppdet.core.errors import EvaluationError
from sppdet.core.types import Dataset, FloatArray, Sample

DEFAULT_THRESHOLDS = (0.5, 0.7)


@dataclass(frozen=True, slots=True)
class ProposalRecall:
    """Recall and overlap of a data set's proposals.

    Attributes:
        limit: proposals used per image, or None for all.
        n_images, n_objects: what the figures were taken over.
        mean_proposals: mean number of proposals per image, after the limit.
        thresholds: IoU thresholds.
        recall: per threshold, the share of objects whose best IoU reaches it.
        abo: mean of the best IoU over all objects.
        class_abo: that mean per class; nan where a class has no objects.
        mabo: mean of `class_abo` over the classes that have objects (Uijlings et al. 2013, 5).
    """

    limit: int | None
    n_images: int
    n_objects: int
    mean_proposals: float
    thresholds: tuple[float, ...]
    recall: tuple[float, ...]
    abo: float
    class_abo: tuple[float, ...]
    mabo: float


def best_overlaps(sample: Sample, proposals: FloatArray, *, limit: int | None = None) -> FloatArray:
    """Highest IoU of each object with a proposal, `float32 (n_objects,)`; 0 where none.

    Args:
        sample: the image's objects, difficult ones included.
        proposals: `float32 (N, 4)`, half-open original-image pixels, best first.
        limit: use only the first `limit` proposals.

    Invariant: no larger limit gives a smaller overlap.
    """
    best: FloatArray = box_iou(sample.boxes, proposals[:limit]).max(axis=1, initial=0.0)
    return best


def proposal_recall(
    dataset: Dataset,
    proposals: Mapping[str, FloatArray],
    *,
    thresholds: Sequence[float] = DEFAULT_THRESHOLDS,
    limit: int | None = None,
    difficult: bool = False,
) -> ProposalRecall:
    """Compute recall, ABO and MABO of `proposals` (by image id) on every image of `dataset`.

    Difficult objects count only with `difficult=True`. Without any object, the figures are nan.

    Raises:
        EvaluationError: an image of the data set has no proposals entry, or `limit` is negative.
    """
    if limit is not None and limit < 0:
        raise EvaluationError(f"a limit of {limit} proposals", hint="give 0 or more")
    overlaps = [np.zeros(0, np.float32)]
    labels = [np.zeros(0, np.int64)]
    used = 0
    for sample in dataset:
        if sample.image_id not in proposals:
            raise EvaluationError(
                f"no proposals for image {sample.image_id}",
                path=dataset.name,
                hint="propose on every image of the data set first",
            )
        boxes = proposals[sample.image_id]
        counted = ~sample.difficult | difficult
        overlaps.append(best_overlaps(sample, boxes, limit=limit)[counted])
        labels.append(sample.labels[counted])
        used += len(boxes[:limit])
    best, label = np.concatenate(overlaps), np.concatenate(labels)
    class_abo = tuple(_mean(best[label == k]) for k in range(len(dataset.classes)))
    return ProposalRecall(
        limit=limit,
        n_images=len(dataset),
        n_objects=len(best),
        mean_proposals=used / len(dataset) if len(dataset) else float("nan"),
        thresholds=tuple(float(t) for t in thresholds),
        # Compared in float32, so that an IoU of exactly 7/10 reaches 0.7.
        recall=tuple(_mean(best >= np.float32(t)) for t in thresholds),
        abo=_mean(best),
        class_abo=class_abo,
        mabo=_mean(np.array([abo for abo in class_abo if not np.isnan(abo)])),
    )


def _mean(values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> float:
    """Mean in double precision; nan, without a warning, of nothing."""
    return float(values.astype(np.float64).mean()) if values.size else float("nan")
