"""Inverted residuals written as ONNX graphs, in floats or in 8-bit integers.

In integers every map is rounded to 255 steps of a range that is known before any image is seen.
After a ReLU6 it is 0 to 6. Elsewhere it is where batch norm, whose mean and deviation the network
was trained with, puts nearly all values ("data-free quantization", Nagel et al. 2019, sec. 4.2).
Weights have 127 steps and not 255: the sum of two products then fits 16 bits, which processors
without instructions of their own for it use, and all processors compute the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

# What the oldest onnxruntime that is allowed reads.
OPSET, IR_VERSION = 17, 8
RELU6 = (0.0, 6.0)
# Of a map's 8-bit values, and the largest weight, in steps.
STEPS, WEIGHT_STEPS = 255, 63
# Deviations from the mean that a range reaches to. Maps of EfficientNet-Lite2's stage 5 differ from
# those in floats by 21 % of their norm with 3 to 5 of them, by 24 % with 8.
REACH = 4.0
# The same where layers have been fine-tuned, and so may give more than batch norm saw. There it
# matters less: 10 % of the norm of a model's last map with 4 or 6 of them, 11 % with 8.
TUNED_REACH = 8.0


class Spread(NamedTuple):
    """How the values of a map are spread, channel by channel.

    Attributes:
        mean, variance: `float64 (C,)`.
    """

    mean: Tensor
    variance: Tensor

    def range(self, reach: float = REACH) -> tuple[float, float]:
        """Where nearly all values of all channels are: so many deviations around their means."""
        far = reach * self.variance.sqrt()
        return float((self.mean - far).min()), float((self.mean + far).max())

    def plus(self, other: Spread) -> Spread:
        """Of the sum of two maps, as if they did not depend on each other."""
        return Spread(self.mean + other.mean, self.variance + other.variance)


class Steps(NamedTuple):
    """How the values of a map are made of bytes: `(byte - zero) * step`."""

    zero: int
    step: float

    @classmethod
    def over(cls, low: float, high: float) -> Steps:
        """All bytes over a range; 0 is among the values."""
        low, high = min(low, 0.0), max(high, 0.0)
        step = (high - low) / STEPS
        return cls(round(-low / step), step)


class Rounding(NamedTuple):
    """What must be known to compute in 8-bit integers.

    Attributes:
        steps: of what goes in, which loses nothing by it: an image, or a map that was rounded so.
        spread: of what goes in, where it is a map.
        reach: of the ranges of maps, in deviations.
    """

    steps: Steps
    spread: Spread | None = None
    reach: float = REACH


class InvertedResidual(Protocol):
    """What a block has: convolutions with bias, ReLU6 after the first two, and perhaps a skip."""

    @property
    def expand(self) -> nn.Conv2d | None: ...
    @property
    def depthwise(self) -> nn.Conv2d: ...
    @property
    def project(self) -> nn.Conv2d: ...
    @property
    def skip(self) -> bool: ...
    @property
    def spread(self) -> Spread | None:
        """Of what `project` gives; None where it is not known."""


@dataclass(frozen=True, slots=True)
class Value:
    """A map in a graph.

    Attributes:
        name: the graph's name for it.
        spread: of its values, where that is known.
        step: between neighbouring values; 0 for floats.
    """

    name: str
    spread: Spread | None = None
    step: float = 0.0


class FloatGraph:
    """An ONNX graph being written: nodes and their weights, in floats.

    Attributes:
        image: what goes in.
    """

    def __init__(self) -> None:
        self.image = Value("image")
        self._nodes: list[Any] = []
        self._weights: list[Any] = []

    def model(self, outputs: list[str]) -> bytes:
        """The graph, serialised, that gives these maps."""
        known = [(name, TensorProto.FLOAT, None) for name in dict.fromkeys(outputs)]
        image = helper.make_tensor_value_info(
            "image", TensorProto.FLOAT, ["batch", None, "height", "width"]
        )
        given = [helper.make_tensor_value_info(*one) for one in known]
        graph = helper.make_graph(self._nodes, "stages", [image], given, self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = IR_VERSION
        return bytes(model.SerializeToString())

    def block(self, x: Value, block: InvertedResidual) -> Value:
        """Adds an inverted residual."""
        wide = x if block.expand is None else self.conv(x, block.expand, relu6=True)
        deep = self.conv(wide, block.depthwise, relu6=True)
        out = self.conv(deep, block.project, relu6=False, spread=block.spread)
        return self._sum(out, x) if block.skip else out

    def conv(
        self, x: Value, conv: nn.Conv2d, *, relu6: bool, spread: Spread | None = None
    ) -> Value:
        """Adds a convolution, and ReLU6; without ReLU6, `spread` is that of what it gives."""
        assert conv.bias is not None
        weight, bias = (one.detach().numpy() for one in (conv.weight, conv.bias))
        name = self._conv(x, conv, self._constant(weight), self._constant(bias))
        if relu6:
            bounds = [self._constant(np.float32(bound)) for bound in RELU6]
            name = self._node("Clip", name, *bounds)
        return Value(name)

    def _sum(self, a: Value, b: Value) -> Value:
        return Value(self._node("Add", a.name, b.name))

    def _conv(self, x: Value, conv: nn.Conv2d, weight: str, bias: str) -> str:
        top, left = (int(side) for side in conv.padding)
        return self._node(
            "Conv",
            x.name,
            weight,
            bias,
            kernel_shape=list(conv.kernel_size),
            strides=list(conv.stride),
            dilations=list(conv.dilation),
            pads=[top, left, top, left],
            group=conv.groups,
        )

    def _node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind}{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def _constant(self, values: NDArray[Any] | np.generic) -> str:
        name = f"constant{len(self._weights)}"
        array = np.asarray(values)
        # A number has no memory order, and ascontiguousarray would make a list of it.
        whole = np.ascontiguousarray(array) if array.ndim else array
        self._weights.append(numpy_helper.from_array(whole, name))
        return name


class EightBitGraph(FloatGraph):
    """The same graph in integers: onnxruntime makes one 8-bit operation of a rounded one.

    Every value is written as rounded and made a float again, which onnxruntime then leaves out.
    """

    def __init__(self, rounding: Rounding) -> None:
        super().__init__()
        self._reach = rounding.reach
        self.image = self._rounded("image", rounding.steps, rounding.spread)

    def conv(
        self, x: Value, conv: nn.Conv2d, *, relu6: bool, spread: Spread | None = None
    ) -> Value:
        assert conv.bias is not None
        weight, bias = (one.detach().double().numpy() for one in (conv.weight, conv.bias))
        largest = np.abs(weight).max(axis=(1, 2, 3))
        step = np.where(largest > 0, largest, 1.0) / WEIGHT_STEPS
        whole = np.round(weight / step[:, None, None, None]).astype(np.int8)
        # Products of a weight's step and a value's are the steps that sums are counted in.
        sums = np.clip(np.round(bias / (step * x.step)), -(2.0**31), 2.0**31 - 1)
        name = self._conv(
            x, conv, self._floats(whole, step), self._floats(sums.astype(np.int32), step * x.step)
        )
        if relu6:
            # Rounding cuts off what lies outside the range, as ReLU6 does.
            return self._rounded(name, Steps.over(*RELU6))
        assert spread is not None, "the range of a map is not known"
        return self._in_range(name, spread)

    def _sum(self, a: Value, b: Value) -> Value:
        assert a.spread is not None
        assert b.spread is not None
        return self._in_range(super()._sum(a, b).name, a.spread.plus(b.spread))

    def _in_range(self, name: str, spread: Spread) -> Value:
        return self._rounded(name, Steps.over(*spread.range(self._reach)), spread)

    def _rounded(self, name: str, steps: Steps, spread: Spread | None = None) -> Value:
        grid = [self._constant(np.float32(steps.step)), self._constant(np.uint8(steps.zero))]
        whole = self._node("QuantizeLinear", name, *grid)
        return Value(self._node("DequantizeLinear", whole, *grid), spread, steps.step)

    def _floats(self, whole: NDArray[Any], step: NDArray[np.float64]) -> str:
        """Weights or biases as the floats that they stand for, one step a channel."""
        zeros = np.zeros(len(whole), whole.dtype)
        inputs = (whole, step.astype(np.float32), zeros)
        return self._node("DequantizeLinear", *(self._constant(one) for one in inputs), axis=0)
