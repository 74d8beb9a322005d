"""From regions to candidates: score every region, select, and regress the boxes of those selected.

The stages after the fully connected layers (paper sec. 4.1), averaged over test-time augmentations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sppdet.core import boxes as geometry
from sppdet.core.types import FloatArray, IntArray
from sppdet.detection.augmentation import Augmentation
from sppdet.detection.config import DetectionConfig
from sppdet.detection.postprocess import Candidates, select_candidates
from sppdet.heads.box_regression import BoxRegressors
from sppdet.heads.head import RegionFeatures, RegionHead
from sppdet.heads.image_context import ContextClassifier
from sppdet.heads.prepared_maps import PreparedMaps
from sppdet.heads.svm import LinearSvms


@dataclass(frozen=True, slots=True, eq=False)
class RegionScorer:
    """Scores regions: SVM margin, plus shares of the softmax's and the image context's.

    Attributes:
        head: gives the softmax.
        svms: one per class.
        context: scores the image as a whole; None where none was trained.
        rules: the weights of the shares.
    """

    head: RegionHead
    svms: LinearSvms
    context: ContextClassifier | None
    rules: DetectionConfig

    def score(self, regions: RegionFeatures) -> FloatArray:
        """`float32 (N, K)` scores per region and class; -inf for an untrained class."""
        scores = self.svms.decision_function(regions.layers[self.head.config.svm_layer])
        softmax, context = self.rules.softmax_weight, self.rules.context_weight
        if softmax:
            scores += np.float32(softmax) * self.head.class_log_probabilities(regions)
        if context and self.context is not None and regions.image_vector is not None:
            shown = self.context.log_probabilities(regions.image_vector)
            scores += np.float32(context) * shown
        return scores


@dataclass(frozen=True, slots=True, eq=False)
class BoxRefiner:
    """Regresses boxes: with the ridge regressors, the deltas that fine-tuning learned, or both.

    Attributes:
        head: gives the learned deltas.
        regressors: one per class; None where none were trained.
        rules: which of them are wanted.
    """

    head: RegionHead
    regressors: BoxRegressors | None
    rules: DetectionConfig

    @property
    def _learned(self) -> bool:
        return self.rules.box_regression in ("mean", "learned") and self.head.config.learned_boxes

    @property
    def _ridge(self) -> BoxRegressors | None:
        return self.regressors if self.rules.box_regression in ("mean", "ridge") else None

    @property
    def moves_boxes(self) -> bool:
        """Whether any of what is wanted was trained."""
        return self._learned or self._ridge is not None

    def refine(self, regions: RegionFeatures, rows: IntArray, labels: IntArray) -> FloatArray:
        """`float32 (M, 4)`: the boxes of some regions, moved for some classes, not clipped."""
        ridge = self._ridge
        if ridge is None:
            return self.head.predict_boxes(regions, rows, labels)
        chosen, back = np.unique(rows, return_inverse=True)
        features = regions.layers[self.head.config.regression_layer][chosen]
        moved = ridge.predict(features, regions.boxes[chosen], back, labels)
        if not self._learned:
            return moved
        mean = (moved + self.head.predict_boxes(regions, rows, labels)) / 2
        return mean.astype(np.float32)


class RegionView(Protocol):
    """One model's view of an image; boxes go in and come out in pixels of the image as it is."""

    @property
    def scorer(self) -> RegionScorer:
        """Scores the regions."""
        ...

    @property
    def refiner(self) -> BoxRefiner:
        """Moves them, in coordinates of its own."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image in pixels."""
        ...

    def regions(self, boxes: FloatArray) -> RegionFeatures:
        """Compute the features of regions `(N, 4)`."""
        ...

    def refine(self, regions: RegionFeatures, rows: IntArray, labels: IntArray) -> FloatArray:
        """`float32 (M, 4)`: the boxes of some of the regions, moved for some classes."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class AugmentedImage:
    """An image under one augmentation, to one model.

    Attributes:
        head, scorer, refiner: the model's.
        maps: of the augmented image, prepared by the head.
        augmentation: how it is shown.
    """

    head: RegionHead
    scorer: RegionScorer
    refiner: BoxRefiner
    maps: PreparedMaps
    augmentation: Augmentation

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image in pixels."""
        return self.maps.size

    def regions(self, boxes: FloatArray) -> RegionFeatures:
        """Pool regions `(N, 4)` and run the fully connected layers on them."""
        return self.head.regions(self.maps, self.augmentation.boxes(boxes, self.size[0]))

    def refine(self, regions: RegionFeatures, rows: IntArray, labels: IntArray) -> FloatArray:
        """`float32 (M, 4)`: the boxes of some of the regions, moved for some classes."""
        moved = self.refiner.refine(regions, rows, labels)
        return self.augmentation.boxes(moved, self.size[0])


def predict(
    views: Sequence[RegionView],
    boxes: FloatArray,
    rules: DetectionConfig,
    labels: IntArray | None = None,
) -> Candidates:
    """Score and regress regions `(N, 4)`: means over the views.

    With `labels (N,)` each region is scored for that class alone.
    """
    regions = [view.regions(boxes) for view in views]
    scores = views[0].scorer.score(regions[0])
    for view, one in zip(views[1:], regions[1:], strict=True):
        scores += view.scorer.score(one)
    scores /= np.float32(len(views))
    rows, labels = select_candidates(scores, rules, labels)
    moved = boxes[rows]
    movers = [pair for pair in zip(views, regions, strict=True) if pair[0].refiner.moves_boxes]
    if movers and len(rows):
        moved = movers[0][0].refine(movers[0][1], rows, labels)
        for view, one in movers[1:]:
            moved = moved + view.refine(one, rows, labels)
        moved = moved / np.float32(len(movers))
    moved = geometry.clip(moved, *views[0].size)
    inside = np.flatnonzero(geometry.areas(moved) > 0)
    return Candidates(moved[inside], scores[rows, labels][inside], labels[inside])


def detect_candidates(
    views: Sequence[RegionView], boxes: FloatArray, rules: DetectionConfig
) -> Candidates:
    """Predict from proposals `(N, 4)`, and again from the best boxes as they have been moved.

    The second time is iterative localization (Gidaris and Komodakis 2015): each box is scored for
    its class, and moved for it once more; both results join.
    """
    found = predict(views, boxes, rules)
    if not rules.refine_top or not any(view.refiner.moves_boxes for view in views):
        return found
    top = found.top(rules.refine_top)
    return Candidates.concat([found, predict(views, top.boxes, rules, top.labels)])
