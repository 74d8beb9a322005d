"""Settings of the proposal stage."""

from __future__ import annotations

from dataclasses import dataclass

from sppdet.errors import ConfigError

ENGINES = ("selective-search", "selective-search-quality", "opencv-fast", "opencv-quality")


@dataclass(frozen=True)
class ProposalConfig:
    """Which boxes of an image are looked at."""

    # Who proposes: our engine in one of its two modes, or OpenCV's in one of its two.
    engine: str = "selective-search"
    # Only the first so many proposals of an image are used; 0 for all of them.
    max_proposals: int = 2000
    # Boxes narrower or lower than this many pixels are left out; 6 gives a little more recall.
    min_side: int = 12
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
