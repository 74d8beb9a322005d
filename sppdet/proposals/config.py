"""Settings of the proposal stage."""

from __future__ import annotations

from dataclasses import dataclass

from sppdet.errors import ConfigError

# Each engine, and the shortest side of a box that it gives unless told otherwise.
OWN_MIN_SIDE = {
    "selective-search": 12,
    "selective-search-quality": 6,
    "opencv-fast": 1,
    "opencv-quality": 1,
}
ENGINES = tuple(OWN_MIN_SIDE)


@dataclass(frozen=True)
class ProposalConfig:
    """Which boxes of an image are looked at."""

    # Who proposes: our engine in one of its two modes, or OpenCV's in one of its two.
    engine: str = "selective-search"
    # Only the first so many proposals of an image are used; 0 for all of them.
    max_proposals: int = 2000
    # Boxes narrower or lower than this many pixels are left out. 0 is the engine's own: 12 for our
    # fast mode, 6 for our quality mode, 1 (all boxes) for OpenCV's, which have no such filter.
    min_side: int = 0
    # Adds the paper's texture similarity (our engine only; OpenCV's always has it).
    texture: bool = False
    # Steers the random part of the proposals' order.
    seed: int = 0

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ConfigError(
                f"unknown proposal engine {self.engine!r}", mend=f"use one of {', '.join(ENGINES)}"
            )
        for name in ("max_proposals", "min_side", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"proposals.{name} is {getattr(self, name)}",
                    mend="give 0 or a positive whole number",
                )
        if self.seed >= 2**32:
            raise ConfigError(f"proposals.seed is {self.seed}", mend="give a number below 2**32")
        if self.texture and self.engine.startswith("opencv"):
            raise ConfigError(
                "proposals.texture is a setting of our own engine; OpenCV's always uses texture",
                mend="set proposals.texture to false",
            )

    def shortest_side(self) -> int:
        """`min_side`, or the engine's own where that is 0; pixels."""
        return self.min_side or OWN_MIN_SIDE[self.engine]
