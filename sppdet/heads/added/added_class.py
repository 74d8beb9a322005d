"""A class that was added to a trained model: its own SVM and box regressor on the model's features.

Nothing of the model is changed by it, and it shares no product of matrices with the model's other
classes: what those detect stays as it was, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sppdet.core.boxes import decode_deltas
from sppdet.core.parallel import matmul
from sppdet.core.types import Float64Array, FloatArray, IntArray, UInt8Array
from sppdet.heads.added.negative_bank import to_bytes
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
        support: `uint8 (S, D)`, the SVM's support vectors: raw features that it reads, joined in
            the order of `FEATURES`, in whole steps.
        steps: `float32 (3,)`, the value of a step of each of `FEATURES`.
        multipliers: `float32 (S,)`, their signed dual variables. A class is taught more from these.
        scales: `float32 (3,)`, what the SVM's solver multiplied each of `FEATURES` by.
    """

    fc6: FloatArray
    fc7: FloatArray
    averages: FloatArray
    bias: FloatArray
    box_weights: FloatArray
    box_bias: FloatArray
    support: UInt8Array
    steps: FloatArray
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
            and self.scales.shape == self.steps.shape == (len(FEATURES),)
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

    def support_features(self) -> FloatArray:
        """`float32 (S, D)`: the support vectors as raw features."""
        widths = [len(getattr(self, name)) for name in FEATURES]
        return self.support.astype(np.float32) * np.repeat(self.steps, widths)

    def with_svm(
        self, weights: FloatArray, bias: float, support: FloatArray, multipliers: Float64Array
    ) -> AddedClass:
        """Return it with another SVM of the same features.

        Args:
            weights: `float32 (D,)`, of raw features.
            bias: of the margins.
            support: `float32 (S, D)`, raw features, rounded here.
            multipliers: `(S,)`, signed.
        """
        ends = np.cumsum([len(getattr(self, name)) for name in FEATURES])[:-1]
        stored = [to_bytes(part) for part in np.split(support, ends, axis=1)]
        return replace(
            self,
            **dict(zip(FEATURES, np.split(weights, ends), strict=True)),
            bias=np.array([bias], np.float32),
            support=np.concatenate([codes for codes, _ in stored], axis=1),
            steps=np.array([step for _, step in stored], np.float32),
            multipliers=multipliers.astype(np.float32),
        )

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
