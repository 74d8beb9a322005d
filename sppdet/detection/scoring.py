"""From regions to candidates: score every region, select, and regress the boxes of those selected.

The stages after the fully connected layers (paper sec. 4.1), averaged over test-time augmentations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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


class ClassScorer(Protocol):
    """What scores regions for the classes of a group."""

    def score(self, regions: RegionFeatures) -> FloatArray:
        """`float32 (N, K)` scores per region and class."""
        ...


class ClassRefiner(Protocol):
    """What moves regions for the classes of a group."""

    @property
    def moves_boxes(self) -> bool:
        """Whether it moves any."""
        ...

    def refine(self, regions: RegionFeatures, rows: IntArray, labels: IntArray) -> FloatArray:
        """`float32 (M, 4)`: the boxes of some regions, moved for some classes, not clipped."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ClassGroup:
    """Classes that are detected apart from all others.

    Invariant: what a group detects does not depend on the other groups, to the last bit: no product
    of matrices and no number of boxes is shared with them.

    Attributes:
        scorer, refiner: of its classes, numbered from 0.
        labels: `int64 (K,)`, the detector's number of each class; -1 for one that is not shown.
        limits: settings of detection that it has values of its own for.
    """

    scorer: ClassScorer
    refiner: ClassRefiner
    labels: IntArray
    limits: Mapping[str, float] = field(default_factory=dict)

    def rules(self, rules: DetectionConfig) -> DetectionConfig:
        """Put settings of detection under the group's own."""
        return rules.replace(**self.limits) if self.limits else rules


class RegionView(Protocol):
    """One model's view of an image; boxes go in and come out in pixels of the image as it is."""

    @property
    def groups(self) -> tuple[ClassGroup, ...]:
        """The model's classes; their refiners work in coordinates of the view's own."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image in pixels."""
        ...

    def regions(self, boxes: FloatArray) -> RegionFeatures:
        """Compute the features of regions `(N, 4)`."""
        ...

    def refine(
        self, refiner: ClassRefiner, regions: RegionFeatures, rows: IntArray, labels: IntArray
    ) -> FloatArray:
        """`float32 (M, 4)`: the boxes of some of the regions, moved for some classes of a group."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class AugmentedImage:
    """An image under one augmentation, to one model.

    Attributes:
        head, groups: the model's.
        maps: of the augmented image, prepared by the head.
        augmentation: how it is shown.
    """

    head: RegionHead
    groups: tuple[ClassGroup, ...]
    maps: PreparedMaps
    augmentation: Augmentation

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image in pixels."""
        return self.maps.size

    def regions(self, boxes: FloatArray) -> RegionFeatures:
        """Pool regions `(N, 4)` and run the fully connected layers on them."""
        return self.head.regions(self.maps, self.augmentation.boxes(boxes, self.size[0]))

    def refine(
        self, refiner: ClassRefiner, regions: RegionFeatures, rows: IntArray, labels: IntArray
    ) -> FloatArray:
        """`float32 (M, 4)`: the boxes of some of the regions, moved for some classes of a group."""
        return self.augmentation.boxes(refiner.refine(regions, rows, labels), self.size[0])


def predict(
    views: Sequence[RegionView],
    boxes: FloatArray,
    rules: DetectionConfig,
    labels: IntArray | None = None,
    *,
    group: int = 0,
    regions: Sequence[RegionFeatures] | None = None,
) -> Candidates:
    """Score and regress regions `(N, 4)` for the classes of a group: means over the views.

    With `labels (N,)` each region is scored for that class alone. `regions` are the boxes' features
    in each view, where they are known.
    """
    if regions is None:
        regions = [view.regions(boxes) for view in views]
    groups = [view.groups[group] for view in views]
    scores = groups[0].scorer.score(regions[0])
    for own, one in zip(groups[1:], regions[1:], strict=True):
        scores += own.scorer.score(one)
    scores /= np.float32(len(views))
    rows, labels = select_candidates(scores, rules, labels)
    moved = boxes[rows]
    refiners = [own.refiner for own in groups]
    movers = [n for n, refiner in enumerate(refiners) if refiner.moves_boxes]
    if movers and len(rows):
        first, *others = movers
        moved = views[first].refine(refiners[first], regions[first], rows, labels)
        for n in others:
            moved = moved + views[n].refine(refiners[n], regions[n], rows, labels)
        moved = moved / np.float32(len(movers))
    moved = geometry.clip(moved, *views[0].size)
    inside = np.flatnonzero(geometry.areas(moved) > 0)
    return Candidates(moved[inside], scores[rows, labels][inside], labels[inside])


def detect_candidates(
    views: Sequence[RegionView], boxes: FloatArray, rules: DetectionConfig
) -> Candidates:
    """Predict from proposals `(N, 4)`, and again from the best boxes as they have been moved.

    The second time is iterative localization (Gidaris and Komodakis 2015): each box is scored for
    its class, and moved for it once more; both results join. Each group of classes has its own.
    """
    regions = [view.regions(boxes) for view in views]
    numbers = range(len(views[0].groups))
    return Candidates.concat([_detect_group(views, boxes, rules, n, regions) for n in numbers])


def _detect_group(
    views: Sequence[RegionView],
    boxes: FloatArray,
    rules: DetectionConfig,
    number: int,
    regions: Sequence[RegionFeatures],
) -> Candidates:
    """Detect the classes of one group, numbered as the detector numbers them."""
    groups = [view.groups[number] for view in views]
    refines, rules = bool(rules.refine_top), groups[0].rules(rules)
    found = predict(views, boxes, rules, group=number, regions=regions)
    if refines and any(group.refiner.moves_boxes for group in groups):
        top = found.top(rules.refine_top)
        if len(top.boxes):
            again = predict(views, top.boxes, rules, top.labels, group=number)
            found = Candidates.concat([found, again])
    labels = groups[0].labels[found.labels]
    shown = np.flatnonzero(labels >= 0)
    return Candidates(found.boxes[shown], found.scores[shown], labels[shown])
