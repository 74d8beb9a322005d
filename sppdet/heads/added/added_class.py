"""A class that was added to a trained model: its own SVM and box regressor on the model's features.

Nothing of the model is changed by it, and it shares no product of matrices with the model's other
classes: what those detect stays as it was, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sppdet.core.boxes import decode_deltas
from sppdet.core.parallel import matmul
from sppdet.core.types import FloatArray, IntArray
from sppdet.heads.head import RegionFeatures

# The features that an added class may read, in this order: the outputs of fc6 and fc7, and the
# channels of the pretrained 1x1 head averaged over the region, where the backbone has such a head.
FEATURES = ("fc6", "fc7", "averages")


@dataclass(frozen=True, slots=True, eq=False)
class AddedClass:
    """One class: a linear SVM on region features, and a linear box regressor on fc7.

    Attributes:
        fc6, fc7, averages: `float32 (D,)`, the SVM's weights of raw features; empty where it does
            not read them.
        bias: `float32 (1,)`.
        box_weights: `float32 (fc7, 4)`, to box deltas (`core.boxes.encode_deltas`).
        box_bias: `float32 (4,)`.
        support: `float16 (S, D)`, the SVM's support vectors: raw features that it reads, joined in
            the order of `FEATURES`.
        multipliers: `float32 (S,)`, their signed dual variables. A class is taught more from these.
        scales: `float32 (3,)`, what the SVM's solver multiplied each of `FEATURES` by.
    """

    fc6: FloatArray
    fc7: FloatArray
    averages: FloatArray
    bias: FloatArray
    box_weights: FloatArray
    box_bias: FloatArray
    support: NDArray[np.float16]
    multipliers: FloatArray
    scales: FloatArray

    def __post_init__(self) -> None:
        box, width = self.box_weights.shape, sum(len(getattr(self, one)) for one in FEATURES)
        fits = (
            all(getattr(self, one).ndim == 1 for one in FEATURES)
            and self.bias.shape == (1,)
            and len(box) == 2
            and box[1] == 4
            and self.box_bias.shape == (4,)
            and self.scales.shape == (len(FEATURES),)
            and self.support.shape == (len(self.multipliers), width)
        )
        if not fits:
            raise ValueError("an added class's arrays do not fit together")

    @property
    def features(self) -> tuple[str, ...]:
        """Which of `FEATURES` the SVM reads."""
        return tuple(one for one in FEATURES if len(getattr(self, one)))

    def score(self, regions: RegionFeatures) -> FloatArray:
        """`float32 (N, 1)` margins."""
        margins = np.full((len(regions.boxes), 1), self.bias[0], np.float32)
        for name in self.features:
            weights = getattr(self, name)[:, None]
            if name == "averages":
                assert regions.average is not None
                margins += regions.average(torch.from_numpy(weights)).numpy()
            else:
                margins += matmul(regions.layers[name], weights)
        return margins

    @property
    def moves_boxes(self) -> bool:
        """Always: there is a regressor."""
        return True

    def refine(self, regions: RegionFeatures, rows: IntArray, labels: IntArray) -> FloatArray:
        """`float32 (M, 4)`: the boxes of some of the regions, moved, not clipped."""
        deltas = matmul(regions.layers["fc7"][rows], self.box_weights) + self.box_bias
        return decode_deltas(deltas, regions.boxes[rows])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays by name; `AddedClass(**arrays)` makes the same."""
        return {one.name: getattr(self, one.name) for one in fields(self)}
