"""A view of an image whose regions' scores and boxes are given, in place of a model's."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from sppdet.core.types import FloatArray, IntArray
from sppdet.detection.scoring import ClassGroup, ClassRefiner
from sppdet.heads.head import RegionFeatures

Refine = Callable[[IntArray, IntArray], FloatArray]


class ScoredView:
    """A `RegionView` of regions that are all known."""

    def __init__(
        self, scores: FloatArray, size: tuple[int, int], refine: Refine | None = None
    ) -> None:
        self.size, self.move = size, refine
        scorer: Any = SimpleNamespace(score=lambda regions: scores.copy())
        refiner: Any = SimpleNamespace(moves_boxes=refine is not None)
        self.groups = (ClassGroup(scorer, refiner, np.arange(scores.shape[1])),)

    def regions(self, boxes: FloatArray) -> RegionFeatures:
        """Keep the boxes only."""
        return RegionFeatures(boxes, self.size, {}, np.zeros(0, np.float32))

    def refine(
        self, refiner: ClassRefiner, regions: RegionFeatures, rows: IntArray, labels: IntArray
    ) -> FloatArray:
        """Move as the test says."""
        assert self.move is not None
        return self.move(rows, labels)
