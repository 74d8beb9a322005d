"""The deep stages of an EfficientNet-Lite as a part that can be trained on maps of a lower tap."""

from __future__ import annotations

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sppdet.backbones.onnx_graphs import (
    TUNED_REACH,
    InvertedResidual,
    Rounding,
    Spread,
    Steps,
)
from sppdet.backbones.onnx_stages import OnnxStages


class UpperStages(nn.Module):
    """The stages above a tap, at half its resolution as ImageNet training knew them.

    They are cheap enough to be fine-tuned on a CPU, while everything below the tap stays frozen
    and is computed once an image. Weights and biases are trainable; batch norm is folded in.

    Attributes:
        source: the tap whose map goes in.
        output: the tap of the whole network that comes out.
        channels: the number of channels that come out.
    """

    def __init__(
        self,
        source: str,
        output: str,
        stages: nn.Sequential,
        channels: int,
        spread: Spread | None = None,
    ) -> None:
        """`spread` is that of the map that goes in, by which both it and stages are rounded."""
        super().__init__()
        self.source, self.output, self.channels = source, output, channels
        self.stages = copy.deepcopy(stages).requires_grad_(True)
        self.stages.to(memory_format=torch.channels_last)
        self._spread = spread
        # In floats and in 8-bit integers, each made when it is first asked for.
        self._frozen: dict[bool, OnnxStages] | None = None

    def freeze(self) -> None:
        """The weights stay as they are now, and the forward pass takes a good deal less time."""
        if self._frozen is None:
            self._frozen = {}
        self.requires_grad_(False)

    def forward(self, values: Tensor, *, eight_bits: bool = False) -> Tensor:
        """`(ceil(h / 2), ceil(w / 2), channels)` of a map `(h, w, C)`.

        Cell (i, j) has its centre on cell (2 i + 1, 2 j + 1) of the map that went in. With
        `eight_bits` frozen stages whose ranges are known are computed in 8-bit integers.
        """
        height, width = values.shape[:2]
        # EfficientNet's convolutions expect maps mirrored along both axes (see `SameConv`).
        x = values.permute(2, 0, 1)[None].flip((2, 3))
        x = F.pad(x, (width % 2, 0, height % 2, 0))
        if self._frozen is not None:
            (x,) = self._run(self._frozen, eight_bits and self._spread is not None)(x)
        else:
            x = self.stages(x.contiguous(memory_format=torch.channels_last))
        out: Tensor = x.flip((2, 3))[0].permute(1, 2, 0)
        return out

    def _run(self, known: dict[bool, OnnxStages], eight_bits: bool) -> OnnxStages:
        if eight_bits not in known:
            stages = [list(stage.children()) for stage in self.stages]
            blocks = cast("list[list[InvertedResidual]]", stages)
            rounding = None
            if eight_bits and self._spread is not None:
                steps = Steps.over(*self._spread.range())
                rounding = Rounding(steps, self._spread, TUNED_REACH)
            known[eight_bits] = OnnxStages(None, blocks, [len(stages) - 1], rounding=rounding)
        return known[eight_bits]
