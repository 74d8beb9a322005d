"""Sources of proposals: the settings, and the engine that they name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt

from sppdet.core.settings import Settings, to_dict
from sppdet.core.types import FloatArray, ImageArray
from sppdet.proposals.opencv import opencv_search
from sppdet.proposals.selective_search import FAST, QUALITY, selective_search

# Raised whenever the same settings give other boxes than before, so that caches forget them.
FORMAT_VERSION = 3

# Each engine, and the shortest side of a box that it gives by default.
OWN_MIN_SIZE = {
    "selective-search": 12,
    "selective-search-quality": 6,
    "opencv-fast": 1,
    "opencv-quality": 1,
}
ENGINES = tuple(OWN_MIN_SIZE)
Engine = Literal["selective-search", "selective-search-quality", "opencv-fast", "opencv-quality"]


class ProposalConfig(Settings):
    """Engine and number of an image's proposals."""

    section: ClassVar[str] = "proposals"

    engine: Engine = "selective-search"
    """Engine: our selective search in one of its two modes, or OpenCV's in one of its two."""
    max_proposals: NonNegativeInt = 2000
    """Proposals used per image at most, the first ones; 0 for all of them."""
    min_size: NonNegativeInt = 0
    """Boxes narrower or lower than this many pixels are left out. 0 is the engine's own: 12 for our
    fast mode, 6 for our quality mode, 1 (all boxes) for OpenCV's, which have no such filter."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the random part of the proposals' order."""

    def shortest_side(self) -> int:
        """`min_size`, or the engine's own where that is 0; pixels."""
        return self.min_size or OWN_MIN_SIZE[self.engine]


@dataclass(frozen=True)
class Proposer:
    """A source of proposals; calls from several threads may run side by side.

    Attributes:
        key: names everything but the image that decides the boxes: caches are keyed by it.
        search: an image's boxes, `float32 (N, 4)`, N >= 1, best first: unique, within the image.
    """

    key: str
    search: Callable[[ImageArray], FloatArray]

    def __call__(self, image: ImageArray) -> FloatArray:
        """Propose boxes `float32 (N, 4)`, N >= 1, best first: unique, within the image."""
        return self.search(image)


def make_proposer(config: ProposalConfig) -> Proposer:
    """Make the proposal source of `config`; its key is the settings and the format version."""
    key = json.dumps({"version": FORMAT_VERSION, **to_dict(config)}, sort_keys=True)
    min_side, count, seed = config.shortest_side(), config.max_proposals, config.seed
    search: Callable[[ImageArray], FloatArray]
    if config.engine.startswith("opencv"):
        quality = config.engine == "opencv-quality"
        search = partial(
            opencv_search, quality=quality, min_side=min_side, max_proposals=count, seed=seed
        )
    else:
        plan = QUALITY if config.engine == "selective-search-quality" else FAST
        search = partial(
            selective_search, plan=plan, min_side=min_side, max_proposals=count, seed=seed
        )
    return Proposer(key, search)
