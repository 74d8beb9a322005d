"""The seam: a `Proposer` turns an image into boxes; `make_proposer` builds one from settings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol

import numpy as np

from sppdet.compiled import all_ready
from sppdet.proposals import selective
from sppdet.proposals.config import ProposalConfig
from sppdet.proposals.opencv import opencv_search
from sppdet.types import FloatArray, ImageArray

# Raised whenever the same settings give other boxes than before, so that caches forget them.
FORMAT_VERSION = 3


class Proposer(Protocol):
    """A source of proposals.

    `key` names everything but the image that decides the boxes: caches are keyed by it.
    Calls from several threads may run side by side.
    """

    @property
    def key(self) -> str: ...

    def __call__(self, image: ImageArray) -> FloatArray:
        """`float32 (N, 4)`, N >= 1, best first: unique boxes within the image."""
        ...


@dataclasses.dataclass(frozen=True)
class ConfiguredProposer:
    """The engine that `config` names; `executor` lets one image use several threads."""

    config: ProposalConfig
    executor: Executor | None = None

    @property
    def key(self) -> str:
        """The settings and the format version, as text."""
        return json.dumps(
            {"version": FORMAT_VERSION, **dataclasses.asdict(self.config)}, sort_keys=True
        )

    def __call__(self, image: ImageArray) -> FloatArray:
        """`float32 (N, 4)`, N >= 1, best first: unique boxes within the image."""
        config = self.config
        if config.engine.startswith("opencv"):
            return opencv_search(
                image,
                quality=config.engine == "opencv-quality",
                min_side=config.shortest_side(),
                max_proposals=config.max_proposals,
                seed=config.seed,
            )
        quality = config.engine == "selective-search-quality"
        return selective.selective_search(
            image,
            selective.QUALITY if quality else selective.FAST,
            texture=config.texture,
            min_side=config.shortest_side(),
            max_proposals=config.max_proposals,
            seed=config.seed,
            executor=self.executor,
        )


def make_proposer(config: ProposalConfig, executor: Executor | None = None) -> Proposer:
    """The proposal source of `config`; its boxes do not depend on `executor`."""
    return ConfiguredProposer(config, executor)


def is_compiled() -> bool:
    """Whether our engine can start at once, rather than compile first (some 20 seconds)."""
    return all_ready("sppdet.proposals")


def warm_up(announce: Callable[[str], object] | None = None) -> None:
    """Load our engine's machine code, making it first where there is none yet.

    `announce` is called with a line for the user, only if there is something to wait for.
    """
    if announce is not None and not is_compiled():
        announce("compiling selective search, once after installing (about 20 seconds)")
    image = (np.indices((48, 48)).sum(axis=0) % 7 * 36).astype(np.uint8)
    tiny = dataclasses.replace(selective.FAST, area=1000)
    for texture in (False, True):
        selective.selective_search(np.stack([image] * 3, axis=2), tiny, texture=texture)
