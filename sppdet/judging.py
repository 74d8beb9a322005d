"""What trained models say of an image's regions: their scores, and where their objects are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sppdet.boxes import flip_horizontal
from sppdet.config import Config
from sppdet.detection import DetectionConfig, Found, Refine, candidates
from sppdet.region_features import RegionFeatures
from sppdet.regression import BoxRegressors
from sppdet.scene import SceneClassifier
from sppdet.svm import LinearSvms
from sppdet.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class RegionJudge:
    """The last stages of a model: what it makes of features that are computed.

    Attributes:
        config: what the model was trained with.
        svms: one a class.
        regressors: one a class, None where none were trained.
        scene: what judges the image as a whole, None where none was trained.
    """

    config: Config
    svms: LinearSvms
    regressors: BoxRegressors | None
    scene: SceneClassifier | None = None

    def scores(self, features: RegionFeatures, rules: DetectionConfig) -> FloatArray:
        """`float32 (N, K)`: what SVMs say of the regions, and in part softmax and whole image."""
        scores = self.svms.scores(features.layer(self.config.svm.layer))
        if rules.softmax_weight:
            scores += np.float32(rules.softmax_weight) * features.log_probabilities
        if rules.scene_weight and self.scene is not None and features.scene is not None:
            scores += np.float32(rules.scene_weight) * self.scene.log_probabilities(features.scene)
        return scores

    def refiner(self, features: RegionFeatures, rules: DetectionConfig) -> Refine | None:
        """What moves boxes: the regressors that `rules` ask for, as far as they were trained."""
        regressors, tuned = self.regressors, self.config.finetune
        learned = rules.regressors != "ridge" and tuned.steps != 0 and tuned.box_loss > 0
        if rules.regressors == "learned" or regressors is None:
            return features.learned_boxes if learned else None

        def refine(regions: IntArray, labels: IntArray) -> FloatArray:
            chosen, back = np.unique(regions, return_inverse=True)
            layer = features.rows(self.config.regression.layer, chosen)
            moved = regressors.refine(layer, features.boxes[chosen], back, labels)
            if not learned:
                return moved
            both = (moved + features.learned_boxes(regions, labels)) / 2
            return both.astype(np.float32)

        return refine


@dataclass(frozen=True, slots=True, eq=False)
class RegionView:
    """An image's regions as one model sees them.

    Attributes:
        judge: the model's.
        features: of the regions; all views of an image have the same, in the same order.
        mirrored: whether they are of the mirror image.
    """

    judge: RegionJudge
    features: RegionFeatures
    mirrored: bool = False

    @property
    def boxes(self) -> FloatArray:
        """The regions `(N, 4)`, in coordinates of the image as it is."""
        boxes = self.features.boxes
        return flip_horizontal(boxes, self.features.size[0]) if self.mirrored else boxes

    def at(self, boxes: FloatArray) -> RegionView:
        """Other regions `(N, 4)` in the same view, boxes in coordinates of the image as it is."""
        own = flip_horizontal(boxes, self.features.size[0]) if self.mirrored else boxes
        return replace(self, features=self.features.at(own))

    def refiner(self, rules: DetectionConfig) -> Refine | None:
        """What moves boxes, in coordinates of the image as it is."""
        refine = self.judge.refiner(self.features, rules) if rules.box_regression else None
        if refine is None or not self.mirrored:
            return refine
        moved, width = refine, self.features.size[0]

        def back(regions: IntArray, labels: IntArray) -> FloatArray:
            return flip_horizontal(moved(regions, labels), width)

        return back


def judged(rules: DetectionConfig, models: Sequence[Sequence[RegionView]]) -> list[Found]:
    """The regions that may be objects, scored and moved: detections but for (soft-)NMS.

    Args:
        rules: how scores are made, views and models put together, and what is kept.
        models: the views of each model. A model's are averaged in any case.

    What is found at second looks comes after what is found at first ones. Where nothing moves
    boxes, there are none.
    """
    if rules.combination == "mean":
        models = [[view for views in models for view in views]]
    found = [first_look(rules, views) for views in models]
    if not rules.second_look:
        return found
    again = [
        second_look(rules, views, seen)
        for views, seen in zip(models, found, strict=True)
        if _mover(rules, views) is not None
    ]
    return [*found, *again]


def first_look(rules: DetectionConfig, views: Sequence[RegionView]) -> Found:
    """What may be objects among the regions of views, by the means of their scores and boxes."""
    first = views[0]
    scores, mover = _scores(rules, views), _mover(rules, views)
    return candidates(first.boxes, scores, first.features.size, rules, mover)


def second_look(rules: DetectionConfig, views: Sequence[RegionView], seen: Found) -> Found:
    """The best of what the views' first look found, as regions of their own.

    Each is scored for the class that it was found to be of, and moved for it once more.
    """
    best = np.argsort(-seen.scores, kind="stable")[: rules.second_look]
    boxes, rows, labels = seen.boxes[best], np.arange(len(best)), seen.labels[best]
    again = [view.at(boxes) for view in views]
    found = _scores(rules, again)
    scores = np.full_like(found, -np.inf)
    scores[rows, labels] = found[rows, labels]
    return candidates(boxes, scores, views[0].features.size, rules, _mover(rules, again))


def _scores(rules: DetectionConfig, views: Sequence[RegionView]) -> FloatArray:
    """`float32 (N, K)`: the means of the views' scores."""
    scores = views[0].judge.scores(views[0].features, rules)
    for view in views[1:]:
        scores += view.judge.scores(view.features, rules)
    scores /= np.float32(len(views))
    return scores


def _mover(rules: DetectionConfig, views: Sequence[RegionView]) -> Refine | None:
    """Moves boxes to the means of where the views move them; None where none does."""
    refiners = [refine for refine in (view.refiner(rules) for view in views) if refine]

    def mean(regions: IntArray, labels: IntArray) -> FloatArray:
        moved = refiners[0](regions, labels)
        for refine in refiners[1:]:
            moved = moved + refine(regions, labels)
        return moved / np.float32(len(refiners))

    return mean if refiners else None
