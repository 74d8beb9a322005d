"""Frozen inverted residuals run by onnxruntime, for which `onnx_graph` writes the graphs.

torch runs a convolution, its ReLU6 and its skip as three passes over the map; onnxruntime makes
one of them, in a memory layout of its own, but has no gradients (docs/speed.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sppdet.backbones.onnx_graph import FloatGraph, InvertedResidual
from sppdet.backbones.onnx_session import make_session
from sppdet.backbones.quantization import QuantConfig, QuantizedGraph


class OnnxModel:
    """A stem and stages of inverted residuals with the weights that they have now.

    Args:
        stem: a convolution with ReLU6 before the stages; None where there is none.
        stages: blocks, stage by stage.
        wanted: the stages whose maps are asked for, by position; the head's comes after the last.
        head: a convolution with ReLU6 after the stages.
        quantization: computes in 8-bit integers so; None: in floats.
    """

    def __init__(
        self,
        stem: nn.Conv2d | None,
        stages: Sequence[Sequence[InvertedResidual]],
        wanted: Sequence[int],
        head: nn.Conv2d | None = None,
        quantization: QuantConfig | None = None,
    ) -> None:
        graph = FloatGraph() if quantization is None else QuantizedGraph(quantization)
        value, maps = graph.image, {}
        if stem is not None:
            value = graph.conv(value, stem, relu6=True)
        for position, stage in enumerate(stages[: max(wanted) + 1]):
            for block in stage:
                value = graph.block(value, block)
            maps[position] = value
        if head is not None and max(wanted) == len(stages):
            maps[len(stages)] = graph.conv(value, head, relu6=True)
        self._outputs = [maps[position].name for position in wanted]
        self._model = graph.model(self._outputs)
        self._sessions: dict[int, Any] = {}

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Compute the wanted maps `float32 (B, C', h', w')` of `float32 (B, C, h, w)`.

        Runs on as many threads as torch uses; their number does not change a bit.
        """
        array = x.contiguous().numpy()
        found = self._session(torch.get_num_threads()).run(self._outputs, {"image": array})
        return [torch.from_numpy(one) for one in found]

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxModel:
        """Return itself: nothing can change it."""
        return self

    def _session(self, threads: int) -> Any:
        if threads not in self._sessions:
            self._sessions[threads] = make_session(self._model, threads)
        return self._sessions[threads]
