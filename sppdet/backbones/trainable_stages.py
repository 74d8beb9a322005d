"""The top stages of an EfficientNet-Lite, trainable on the maps of a lower layer."""

from __future__ import annotations

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sppdet.backbones.onnx_graph import ChannelStats, InvertedResidual
from sppdet.backbones.onnx_runner import OnnxModel
from sppdet.backbones.quantization import REACH, TUNED_REACH, QuantConfig, QuantParams


class TrainableStages(nn.Module):
    """The stages above a layer, at half its resolution as in ImageNet training.

    They are cheap enough to be fine-tuned on a CPU, while everything below the layer stays frozen
    and is computed once per image. Weights and biases are trainable; batch norm is folded in.

    Attributes:
        source: the layer whose map goes in.
        output: the layer of the whole network that comes out.
        channels: the number of channels that come out.
    """

    def __init__(
        self,
        source: str,
        output: str,
        stages: nn.Sequential,
        channels: int,
        stats: ChannelStats | None = None,
    ) -> None:
        """`stats` are those of the input map, by which it and all that follow are quantized."""
        super().__init__()
        self.source, self.output, self.channels = source, output, channels
        self.stages = copy.deepcopy(stages).requires_grad_(True)
        self.stages.to(memory_format=torch.channels_last)
        self._stats = stats
        # In floats and in 8-bit integers, each made when it is first asked for.
        self._frozen: dict[bool, OnnxModel] | None = None

    def freeze(self) -> None:
        """Keep the weights as they are now, which makes the forward pass a good deal faster."""
        if self._frozen is None:
            self._frozen = {}
        self.requires_grad_(False)

    def forward(self, values: Tensor, *, quantize: bool = False) -> Tensor:
        """Compute the map `(ceil(h / 2), ceil(w / 2), channels)` of a map `(h, w, C)`.

        Cell (i, j) has its center on cell (2 i + 1, 2 j + 1) of the map that went in. With
        `quantize` frozen stages whose ranges are known are computed in 8-bit integers.
        """
        height, width = values.shape[:2]
        # EfficientNet's convolutions expect maps flipped along both axes (`FlippedSameConv`).
        x = values.permute(2, 0, 1)[None].flip((2, 3))
        x = F.pad(x, (width % 2, 0, height % 2, 0))
        if self._frozen is not None:
            (x,) = self._compiled(self._frozen, quantize and self._stats is not None)(x)
        else:
            x = self.stages(x.contiguous(memory_format=torch.channels_last))
        out: Tensor = x.flip((2, 3))[0].permute(1, 2, 0)
        return out

    def _compiled(self, known: dict[bool, OnnxModel], quantize: bool) -> OnnxModel:
        if quantize not in known:
            stages = [list(stage.children()) for stage in self.stages]
            blocks = cast("list[list[InvertedResidual]]", stages)
            config = None
            if quantize and self._stats is not None:
                params = QuantParams.for_range(*self._stats.range(REACH))
                config = QuantConfig(params, self._stats, TUNED_REACH)
            known[quantize] = OnnxModel(None, blocks, [len(stages) - 1], quantization=config)
        return known[quantize]
