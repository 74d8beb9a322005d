"""What the layers make of an image's regions: computed once, when first asked for."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sppdet.boxes import decode
from sppdet.features import FeatureMaps
from sppdet.finetune import OFFSET_SCALE
from sppdet.head import RegionHead
from sppdet.joined_maps import JoinedMaps
from sppdet.types import FloatArray, IntArray


class RegionFeatures:
    """The features of an image's regions, each layer computed when it is first asked for.

    One row a box, independent of the other boxes; raw, not scaled to the SVMs' norm.

    Attributes:
        boxes: the regions `float32 (N, 4)`.
        joined: the image's maps, and what the layers below pooling make of them.
        size: the image's width and height in pixels.
    """

    def __init__(self, head: RegionHead, maps: FeatureMaps | JoinedMaps, boxes: FloatArray) -> None:
        self.boxes = boxes
        self._head, self.joined = head.eval(), head.join(maps)
        self.size = (self.joined.maps.width, self.joined.maps.height)

    def at(self, boxes: FloatArray) -> RegionFeatures:
        """The features of other regions `(N, 4)` of the same image."""
        return RegionFeatures(self._head, self.joined, boxes)

    @cached_property
    def pool(self) -> FloatArray:
        """`float32 (N, dim)`: the spatial pyramid's bins."""
        with torch.inference_mode():
            return np.asarray(self._head.pool(self.joined, self.boxes).numpy())

    def _fc6(self) -> Tensor:
        if "pool" in self.__dict__:
            return self._head.run_fc6(torch.from_numpy(self.pool))
        return self._head.pool_fc6(self.joined, self.boxes)

    def rows(self, name: str, regions: IntArray) -> FloatArray:
        """Some regions' features of a layer; `pool` is computed for those alone."""
        if name != "pool" or "pool" in self.__dict__:
            return self.layer(name)[regions]
        chosen, back = np.unique(regions, return_inverse=True)
        with torch.inference_mode():
            return np.asarray(self._head.pool(self.joined, self.boxes[chosen]).numpy()[back])

    @cached_property
    def fc6(self) -> FloatArray:
        """`float32 (N, fc6)`, after ReLU."""
        with torch.inference_mode():
            return np.asarray(self._fc6().numpy())

    @cached_property
    def fc7(self) -> FloatArray:
        """`float32 (N, fc7)`, after ReLU."""
        with torch.inference_mode():
            return np.asarray(self._head.run_fc7(torch.from_numpy(self.fc6)).numpy())

    @cached_property
    def scene(self) -> FloatArray | None:
        """`float32 (C,)`: the mean of all cells of the maps; None where no map is the image's."""
        with torch.inference_mode():
            return np.asarray(self.joined.scene().numpy())

    @cached_property
    def log_probabilities(self) -> FloatArray:
        """`float32 (N, K)`: logarithms of the fine-tuned softmax's probabilities of the classes."""
        with torch.inference_mode():
            logits = self._head.classify(torch.from_numpy(self.fc7))
            return np.asarray(torch.log_softmax(logits, dim=1)[:, 1:].numpy())

    def learned_boxes(self, regions: IntArray, labels: IntArray) -> FloatArray:
        """`float32 (M, 4)`: some of the boxes, moved as fine-tuning learned for their classes."""
        # A region is asked for once for each class that it may be of.
        chosen, back = np.unique(regions, return_inverse=True)
        with torch.inference_mode():
            offsets = self._head.offset(torch.from_numpy(self.fc7[chosen])).numpy()
        own = offsets.reshape(len(chosen), -1, 4)[back, labels]
        return decode(own * np.array(OFFSET_SCALE, np.float32), self.boxes[regions])

    def layer(self, name: str) -> FloatArray:
        """The features of the layer `pool`, `fc6` or `fc7`."""
        if name == "pool":
            return self.pool
        return self.fc6 if name == "fc6" else self.fc7
