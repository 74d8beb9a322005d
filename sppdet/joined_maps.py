"""An image's maps and what the layers below pooling make of them, once for all of its regions."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sppdet.features import FeatureMaps
from sppdet.grids import spread


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """What the layers below pooling make of one map.

    Attributes:
        raw: the map itself `(h, w, C)`, float32.
        deep: what the upper stages make of it `(h', w', C')`, on their coarser grid; None where
            there are none.
        semantic: the pretrained head's map `(h', w', C'')`, on the grid of the deepest map.
    """

    raw: Tensor
    deep: Tensor | None
    semantic: Tensor | None
    _known: dict[Hashable, Tensor] = field(default_factory=dict)

    def once(self, name: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """What `make` gives, kept for the next regions of the map: unless gradients are wanted.

        Weights must stay as they are in between.
        """
        if torch.is_grad_enabled():
            return make()
        if name not in self._known:
            self._known[name] = make()
        return self._known[name]

    def whole(self) -> Tensor:
        """`(h, w, C' + C)`: all channels that the pyramid is made of, on the grid of `raw`."""
        if self.deep is None:
            return self.raw
        return torch.cat([spread(self.deep, *self.raw.shape[:2]), self.raw], dim=2)


class JoinedMaps:
    """The maps of one image and what the layers below pooling make of them, once for each scale.

    Attributes:
        maps: the image's, as the extractor gives them.
    """

    def __init__(self, maps: FeatureMaps, join: Callable[[Tensor], Joined]) -> None:
        self.maps, self._join = maps, join
        self._found: dict[int, Joined] = {}

    def at(self, scale: int) -> Joined:
        """What `RegionPooling.joined` gives for the map of a scale."""
        if scale not in self._found:
            self._found[scale] = self._join(self.maps.scaled[scale].map)
        return self._found[scale]

    def scene(self) -> Tensor:
        """`(C,)`: the pretrained head's channels, or the map's own, averaged over the whole image.

        Each scale counts alike.
        """
        found = [self.at(scale) for scale in range(len(self.maps.scaled))]
        maps = [one.raw if one.semantic is None else one.semantic for one in found]
        return torch.stack([cells.flatten(0, 1).mean(dim=0) for cells in maps]).mean(dim=0)
