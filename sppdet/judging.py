"""What one trained model says of an image's regions: their scores, and where their objects are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sppdet.boxes import flip_horizontal
from sppdet.config import Config
from sppdet.detection import DetectionConfig, Found, Refine, candidates
from sppdet.region_features import RegionFeatures
from sppdet.regression import BoxRegressors
from sppdet.svm import LinearSvms
from sppdet.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class RegionJudge:
    """The last stages of a model, over features that are computed.

    Attributes:
        config: what the model was trained with.
        svms: one a class.
        regressors: one a class, None where none were trained.
    """

    config: Config
    svms: LinearSvms
    regressors: BoxRegressors | None

    def found(
        self, rules: DetectionConfig, features: RegionFeatures, mirror: RegionFeatures | None = None
    ) -> Found:
        """The regions that may be objects, scored and moved: detections but for (soft-)NMS.

        `mirror` has the same regions, in the same order, as the mirror image shows them; scores
        and boxes are then the means of both.
        """
        scores = self._scores(features, rules)
        refine = self._refiner(features, rules) if rules.box_regression else None
        if mirror is not None:
            scores = np.float32(0.5) * (scores + self._scores(mirror, rules))
            other = self._refiner(mirror, rules) if rules.box_regression else None
            if refine is not None and other is not None:
                refine = _both_ways(refine, other, features.size[0])
        return candidates(features.boxes, scores, features.size, rules, refine)

    def _scores(self, features: RegionFeatures, rules: DetectionConfig) -> FloatArray:
        """`float32 (N, K)`: what the SVMs, and in part the softmax, say of the regions."""
        scores = self.svms.scores(features.layer(self.config.svm.layer))
        if rules.softmax_weight:
            scores += np.float32(rules.softmax_weight) * features.log_probabilities
        return scores

    def _refiner(self, features: RegionFeatures, rules: DetectionConfig) -> Refine | None:
        """What moves boxes: the regressors that `rules` ask for, as far as they were trained."""
        regressors, tuned = self.regressors, self.config.finetune
        learned = rules.regressors != "ridge" and tuned.steps > 0 and tuned.box_loss > 0
        if rules.regressors == "learned" or regressors is None:
            return features.learned_boxes if learned else None

        def refine(regions: IntArray, labels: IntArray) -> FloatArray:
            layer = features.rows(self.config.regression.layer, regions)
            moved = regressors.refine(layer, features.boxes[regions], labels)
            if not learned:
                return moved
            both = (moved + features.learned_boxes(regions, labels)) / 2
            return both.astype(np.float32)

        return refine


def _both_ways(refine: Refine, mirror: Refine, width: int) -> Refine:
    """The means of the boxes of an image `width` pixels wide and of those of its mirror image."""

    def mean(regions: IntArray, labels: IntArray) -> FloatArray:
        back = flip_horizontal(mirror(regions, labels), width)
        return ((refine(regions, labels) + back) / 2).astype(np.float32)

    return mean
