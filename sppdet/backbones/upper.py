"""The deep stages of an EfficientNet-Lite as a part that can be trained on maps of a lower tap."""

from __future__ import annotations

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sppdet.backbones.onnx_graphs import InvertedResidual
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

    def __init__(self, source: str, output: str, stages: nn.Sequential, channels: int) -> None:
        super().__init__()
        self.source, self.output, self.channels = source, output, channels
        self.stages = copy.deepcopy(stages).requires_grad_(True)
        self.stages.to(memory_format=torch.channels_last)
        self._frozen: OnnxStages | None = None

    def freeze(self) -> None:
        """The weights stay as they are now, and the forward pass takes a good deal less time."""
        if self._frozen is None:
            stages = [list(stage.children()) for stage in self.stages]
            blocks = cast("list[list[InvertedResidual]]", stages)
            self._frozen = OnnxStages(None, blocks, [len(stages) - 1])
        self.requires_grad_(False)

    def forward(self, values: Tensor) -> Tensor:
        """`(ceil(h / 2), ceil(w / 2), channels)` of a map `(h, w, C)`.

        Cell (i, j) has its centre on cell (2 i + 1, 2 j + 1) of the map that went in.
        """
        height, width = values.shape[:2]
        # EfficientNet's convolutions expect maps mirrored along both axes (see `SameConv`).
        x = values.permute(2, 0, 1)[None].flip((2, 3))
        x = F.pad(x, (width % 2, 0, height % 2, 0))
        if self._frozen is not None:
            (x,) = self._frozen(x)
        else:
            x = self.stages(x.contiguous(memory_format=torch.channels_last))
        out: Tensor = x.flip((2, 3))[0].permute(1, 2, 0)
        return out
