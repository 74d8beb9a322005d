"""From scored regions to detections: threshold, box regression, (soft-)NMS, box voting, cap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sppdet import boxes as geometry
from sppdet.errors import ConfigError
from sppdet.suppression import nms, soft_nms, vote
from sppdet.types import Detections, FloatArray, IntArray

# (region index, class) pairs -> boxes moved by each class's regressor.
Refine = Callable[[IntArray, IntArray], FloatArray]


REGRESSORS = ("both", "ridge", "learned")
COMBINATIONS = ("mean", "union")


@dataclass(frozen=True)
class DetectionConfig:
    """What is kept of an image's scored regions. `configs/release.toml` has the release's rules."""

    # A region's score for a class is its SVM margin plus this much of the logarithm of the
    # probability that fine-tuning's softmax gives the class; 0: the margin alone (release).
    softmax_weight: float = 0.5
    # And this much of the logarithm of the probability that the scene classifier gives the class in
    # the image as a whole; 0: nothing (release).
    scene_weight: float = 0.15
    # A region is kept for a class when its score is above this (release, margins alone: -1.5).
    score_threshold: float = -4.0
    # At most this many regions of a class, the best, are looked at in an image.
    max_candidates: int = 400
    # Boxes lower the scores of others of their class by IoU^2 over this, where the IoU is above
    # 0.2 (soft-NMS, Bodla et al. 2017); 0: greedy NMS instead.
    soft_nms: float = 0.3
    # Of two boxes of a class whose IoU exceeds this, the lower-scored one is dropped: after
    # soft-NMS and voting, and instead of soft-NMS where that is 0 (release: 0.3).
    nms_iou: float = 0.6
    # A kept box becomes the mean, weighted by exp(score), of the class's boxes that overlap it by
    # at least this IoU ("box voting", Gidaris and Komodakis 2015); 0: boxes stay as they are.
    vote_iou: float = 0.55
    # At most this many boxes of a class are kept in an image.
    max_per_class: int = 100
    # Move the regions with the box regressors before NMS.
    box_regression: bool = True
    # So many of an image's boxes, the best of all classes as they have been moved, are regions once
    # more: scored and moved again, they join the others before NMS (iterative localization, Gidaris
    # and Komodakis 2015); 0: none (release).
    second_look: int = 300
    # Which: the ridge regressors (release), those that fine-tuning learned, or the mean of both.
    regressors: str = "both"
    # An image is looked at once at each of these times `features.scales`, and the mirror image too
    # where `mirror` says so: a region's scores and boxes are the means of what it has in all views.
    # Each view takes about as long as a detection with one. Networks do best on images somewhat
    # larger than those that they were trained on (Touvron et al. 2019).
    zooms: tuple[float, ...] = (1.2,)
    mirror: bool = False
    # At these times `features.scales` the mirror image is looked at.
    mirror_zooms: tuple[float, ...] = (1.0,)
    # Of several models as one, those after the first look at the image at these times their scales
    # instead, and at the mirror image at those: different views help as different models do. Both
    # empty: all look alike.
    partner_zooms: tuple[float, ...] = ()
    partner_mirror_zooms: tuple[float, ...] = ()
    # Of several models as one: a region's scores and boxes are the means of theirs, or all of
    # theirs go into NMS together (union: the paper, sec. 4.4).
    combination: str = "mean"
    # Boxes scored below this are not drawn or printed unless the user asks.
    display_threshold: float = -0.5

    def __post_init__(self) -> None:
        for name, known in (("regressors", REGRESSORS), ("combination", COMBINATIONS)):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"detection.{name} is {getattr(self, name)!r}",
                    mend=f"use one of {', '.join(known)}",
                )
        for name in ("nms_iou", "vote_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"detection.{name} is {getattr(self, name)}", mend="give a number in [0, 1]"
                )
        for name, least in (
            ("zooms", 1),
            ("mirror_zooms", 1),
            ("partner_zooms", 0),
            ("partner_mirror_zooms", 0),
        ):
            zooms = getattr(self, name)
            if len(zooms) < least or min(zooms, default=1) <= 0:
                wanted = "one number above 0 or more" if least else "numbers above 0, or none"
                raise ConfigError(f"detection.{name} is {list(zooms)}", mend=f"give {wanted}")
        for name in ("max_candidates", "max_per_class"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"detection.{name} is {getattr(self, name)}", mend="give 1 or more"
                )
        for name in ("softmax_weight", "scene_weight", "soft_nms", "second_look"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"detection.{name} is {getattr(self, name)}", mend="give 0 or more"
                )

    def views(self, *, partner: bool = False) -> list[tuple[float, bool]]:
        """How an image is looked at: each view's zoom, and whether it is of the mirror image.

        With `partner` by a model that is combined with the one whose settings these are.
        """
        plain, turned = self.zooms, self.mirror_zooms if self.mirror else ()
        if partner and (self.partner_zooms or self.partner_mirror_zooms):
            plain, turned = self.partner_zooms, self.partner_mirror_zooms
        return [*((zoom, False) for zoom in plain), *((zoom, True) for zoom in turned)]


class Found(NamedTuple):
    """Boxes that may be objects, each of one class.

    Attributes:
        boxes: `float32 (M, 4)`, moved by the regressors and clipped to the image.
        scores: `float32 (M,)`.
        labels: `int64 (M,)`.
    """

    boxes: FloatArray
    scores: FloatArray
    labels: IntArray


def candidates(
    boxes: FloatArray,
    scores: FloatArray,
    size: tuple[int, int],
    config: DetectionConfig,
    refine: Refine | None = None,
) -> Found:
    """The regions that pass the threshold; one that may be of two classes is there twice.

    Args:
        boxes: `float32 (N, 4)` proposals, original-image pixels.
        scores: `float32 (N, K)`; a class without an SVM scores -inf.
        size: the image's width and height in pixels.
        config: thresholds and caps.
        refine: the box regressors; None keeps the proposals' own boxes.

    Scores are the proposals', as in the release: the regressor moves a box, it does not judge it.
    """
    regions, labels = _above(scores, config)
    moved = boxes[regions] if refine is None or not len(regions) else refine(regions, labels)
    moved, margins = geometry.clip(moved, *size), scores[regions, labels]
    inside = (geometry.areas(moved) > 0).nonzero()[0]
    return Found(moved[inside], margins[inside], labels[inside])


def select(found: Sequence[Found], classes: tuple[str, ...], config: DetectionConfig) -> Detections:
    """The detections of one image, best score first, from what one model found or several.

    (Soft-)NMS, voting and the cap, each class by itself, on the union of the models' boxes with
    their scores (paper sec. 4.4). Soft-NMS lowers scores.
    """
    moved, margins, labels = (np.concatenate(part) for part in zip(*found, strict=True))
    parts = [
        _distinct(moved[own], margins[own], int(label), config)
        for label in np.unique(labels)
        for own in [np.flatnonzero(labels == label)]
    ]
    out_boxes = np.concatenate([np.zeros((0, 4), np.float32), *(part[0] for part in parts)])
    out_scores = np.concatenate([np.zeros(0, np.float32), *(part[1] for part in parts)])
    out_labels = np.concatenate([np.zeros(0, np.int64), *(part[2] for part in parts)])
    order = np.argsort(-out_scores, kind="stable")
    return Detections(out_boxes[order], out_scores[order], out_labels[order], classes)


def _distinct(
    boxes: FloatArray, scores: FloatArray, label: int, config: DetectionConfig
) -> tuple[FloatArray, FloatArray, IntArray]:
    """One class's boxes after NMS, voting and the cap, with their scores and labels."""
    most = config.max_per_class
    if config.soft_nms:
        floor = config.score_threshold
        best, kept_scores = soft_nms(boxes, scores, config.soft_nms, floor, most)
    else:
        best = nms(boxes, scores, config.nms_iou)[:most]
        kept_scores = scores[best]
    kept = boxes[best]
    if config.vote_iou:
        kept = vote(kept, boxes, scores, config.vote_iou)
    if config.vote_iou or config.soft_nms:
        # Voting may bring two boxes together, and soft-NMS has dropped none.
        apart = nms(kept, kept_scores, config.nms_iou)
        kept, kept_scores = kept[apart], kept_scores[apart]
    return kept, kept_scores, np.full(len(kept), label, dtype=np.int64)


def _above(scores: FloatArray, config: DetectionConfig) -> tuple[IntArray, IntArray]:
    """Region indices and class labels above the threshold; of each class the best so many."""
    regions = [np.zeros(0, np.int64)]
    labels = [np.zeros(0, np.int64)]
    for label in range(scores.shape[1]):
        above = np.flatnonzero(scores[:, label] > config.score_threshold)
        best = np.argsort(-scores[above, label], kind="stable")[: config.max_candidates]
        above = above[np.sort(best)]
        regions.append(above)
        labels.append(np.full(len(above), label, dtype=np.int64))
    return np.concatenate(regions), np.concatenate(labels)
