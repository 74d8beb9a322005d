"""Quantized convolutions: graphs in 8-bit integers, with ranges known without running any image.

A map is rounded to 255 steps of a range. After a ReLU6 that is 0 to 6. Elsewhere it is where batch
norm, whose mean and deviation the network was trained with, puts nearly all values ("data-free
quantization", Nagel et al. 2019, sec. 4.2).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from sppdet.backbones.onnx_graph import RELU6, ChannelStats, FloatGraph, GraphValue

# Steps of a map's 8-bit range, and the largest weight in steps. Weights have 127 of them and not
# 255: the sum of two products then fits 16 bits, which processors without instructions of their
# own for it use, and all processors compute the same.
STEPS, WEIGHT_STEPS = 255, 63
# Deviations from the mean that a range reaches to, of pretrained and of fine-tuned layers, which
# may give more than batch norm saw. What others lose: docs/speed.md, "8-bit integers".
REACH = 4.0
TUNED_REACH = 8.0


class QuantParams(NamedTuple):
    """Affine quantization of a map: a value is `(byte - zero_point) * scale`."""

    zero_point: int
    scale: float

    @classmethod
    def for_range(cls, low: float, high: float) -> QuantParams:
        """Spread all bytes over a range, widened so that 0 is in it."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / STEPS
        return cls(round(-low / scale), scale)


class QuantConfig(NamedTuple):
    """Settings of a quantized graph.

    Attributes:
        params: of the input, which loses nothing by it: an image, or a map that was rounded so.
        stats: of the input, where it is a map.
        reach: of the ranges of maps, in deviations.
    """

    params: QuantParams
    stats: ChannelStats | None = None
    reach: float = REACH


class QuantizedGraph(FloatGraph):
    """Builder of the same graph in 8-bit integers.

    Every value is written as rounded and made a float again; onnxruntime makes one 8-bit operation
    of it.
    """

    def __init__(self, config: QuantConfig) -> None:
        super().__init__()
        self._reach = config.reach
        self.image = self._quantize("image", config.params, config.stats)

    def conv(
        self, x: GraphValue, conv: nn.Conv2d, *, relu6: bool, stats: ChannelStats | None = None
    ) -> GraphValue:
        assert conv.bias is not None
        weight, bias = (one.detach().double().numpy() for one in (conv.weight, conv.bias))
        largest = np.abs(weight).max(axis=(1, 2, 3))
        scale = np.where(largest > 0, largest, 1.0) / WEIGHT_STEPS
        whole = np.round(weight / scale[:, None, None, None]).astype(np.int8)
        # Sums are counted in steps that are products of a weight's and a value's.
        sum_scale = scale * x.scale
        sums = np.clip(np.round(bias / sum_scale), -(2.0**31), 2.0**31 - 1).astype(np.int32)
        name = self._conv(
            x, conv, self._dequantize(whole, scale), self._dequantize(sums, sum_scale)
        )
        if relu6:
            # Rounding cuts off what lies outside the range, as ReLU6 does.
            return self._quantize(name, QuantParams.for_range(*RELU6))
        assert stats is not None, "the range of a map is not known"
        return self._quantize_by_stats(name, stats)

    def _sum(self, a: GraphValue, b: GraphValue) -> GraphValue:
        assert a.stats is not None
        assert b.stats is not None
        return self._quantize_by_stats(super()._sum(a, b).name, a.stats.plus(b.stats))

    def _quantize_by_stats(self, name: str, stats: ChannelStats) -> GraphValue:
        return self._quantize(name, QuantParams.for_range(*stats.range(self._reach)), stats)

    def _quantize(
        self, name: str, params: QuantParams, stats: ChannelStats | None = None
    ) -> GraphValue:
        grid = [
            self._constant(np.float32(params.scale)),
            self._constant(np.uint8(params.zero_point)),
        ]
        whole = self._node("QuantizeLinear", name, *grid)
        return GraphValue(self._node("DequantizeLinear", whole, *grid), stats, params.scale)

    def _dequantize(self, whole: NDArray[Any], scale: NDArray[np.float64]) -> str:
        """Append weights or biases as the floats that they stand for, one scale per channel."""
        zeros = np.zeros(len(whole), whole.dtype)
        inputs = (whole, scale.astype(np.float32), zeros)
        return self._node("DequantizeLinear", *(self._constant(one) for one in inputs), axis=0)
