"""Settings of the layers over pooled regions: what is pooled, and how wide the layers are."""

from __future__ import annotations

from dataclasses import dataclass

from sppdet.errors import ConfigError


@dataclass(frozen=True)
class HeadConfig:
    """Pyramid and fully connected layers."""

    # Pyramid levels of the max pooling: n means n x n bins (paper: 50 bins a channel).
    levels: tuple[int, ...] = (6, 3, 2, 1)
    # Channels that a learned 1x1 convolution leaves for the pyramid; 0 pools the map's own.
    reduce: int = 64
    # Levels of average pooling over the backbone's pretrained 1x1 head, where it has one.
    semantic_levels: tuple[int, ...] = (1,)
    # Windows around the region, grown by these factors, averaged over the same head.
    context: tuple[float, ...] = (2.0,)
    # Widths of the two fully connected layers (paper: 4096 each).
    fc6: int = 1024
    fc7: int = 1024
    # Chance of dropping a unit after fc6 and fc7 while fine-tuning (paper: 0.5, for 40 times the
    # steps).
    dropout: float = 0.2
    # Whether the backbone's stages above the tap belong to the head, where they are fine-tuned
    # along with the fully connected layers (the paper freezes all convolutions).
    upper: bool = True

    def __post_init__(self) -> None:
        if not self.levels and not self.semantic_levels:
            raise ConfigError("head.levels and head.semantic_levels are both empty")
        if any(level < 1 for level in (*self.levels, *self.semantic_levels)):
            raise ConfigError("a pyramid level is below 1", mend="levels count bins along a side")
        for levels in (self.levels, self.semantic_levels):
            if len(set(levels)) != len(levels):
                raise ConfigError(f"the pyramid {list(levels)} has a level twice")
        if any(factor <= 0 for factor in self.context):
            raise ConfigError("head.context has a factor of 0 or less", mend="give factors above 1")
        if min(self.fc6, self.fc7) < 1 or self.reduce < 0:
            raise ConfigError("head widths must be positive", mend="see head.fc6, fc7 and reduce")
        if not 0 <= self.dropout < 1:
            raise ConfigError("head.dropout is outside [0, 1)")
