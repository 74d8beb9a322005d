"""Inverted residuals written as ONNX graphs, in floats; `quantization` has 8-bit integers."""

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


class ChannelStats(NamedTuple):
    """Mean and variance of a map's values, per channel.

    Attributes:
        mean, variance: `float64 (C,)`.
    """

    mean: Tensor
    variance: Tensor

    def range(self, reach: float) -> tuple[float, float]:
        """Bounds of nearly all values of all channels: `reach` deviations around their means."""
        far = reach * self.variance.sqrt()
        return float((self.mean - far).min()), float((self.mean + far).max())

    def plus(self, other: ChannelStats) -> ChannelStats:
        """Statistics of the sum of two maps, taken for independent."""
        return ChannelStats(self.mean + other.mean, self.variance + other.variance)


class InvertedResidual(Protocol):
    """A block of convolutions with bias, ReLU6 after the first two, and perhaps a skip."""

    @property
    def expand(self) -> nn.Conv2d | None: ...
    @property
    def depthwise(self) -> nn.Conv2d: ...
    @property
    def project(self) -> nn.Conv2d: ...
    @property
    def skip(self) -> bool: ...
    @property
    def output_stats(self) -> ChannelStats | None:
        """Statistics of what `project` gives; None where they are not known."""


@dataclass(frozen=True, slots=True)
class GraphValue:
    """A map in a graph.

    Attributes:
        name: the graph's name for it.
        stats: of its values, where they are known.
        scale: step between neighboring values; 0 for floats.
    """

    name: str
    stats: ChannelStats | None = None
    scale: float = 0.0


class FloatGraph:
    """Builder of an ONNX graph in floats: its nodes and their weights.

    Attributes:
        image: the graph's input.
    """

    def __init__(self) -> None:
        self.image = GraphValue("image")
        self._nodes: list[Any] = []
        self._weights: list[Any] = []

    def model(self, outputs: list[str]) -> bytes:
        """Serialize the graph that gives these maps."""
        known = [(name, TensorProto.FLOAT, None) for name in dict.fromkeys(outputs)]
        image = helper.make_tensor_value_info(
            "image", TensorProto.FLOAT, ["batch", None, "height", "width"]
        )
        given = [helper.make_tensor_value_info(*one) for one in known]
        graph = helper.make_graph(self._nodes, "stages", [image], given, self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = IR_VERSION
        return bytes(model.SerializeToString())

    def block(self, x: GraphValue, block: InvertedResidual) -> GraphValue:
        """Append an inverted residual."""
        wide = x if block.expand is None else self.conv(x, block.expand, relu6=True)
        deep = self.conv(wide, block.depthwise, relu6=True)
        out = self.conv(deep, block.project, relu6=False, stats=block.output_stats)
        return self._sum(out, x) if block.skip else out

    def conv(
        self, x: GraphValue, conv: nn.Conv2d, *, relu6: bool, stats: ChannelStats | None = None
    ) -> GraphValue:
        """Append a convolution, and ReLU6; without ReLU6, `stats` are those of its output."""
        assert conv.bias is not None
        weight, bias = (one.detach().numpy() for one in (conv.weight, conv.bias))
        name = self._conv(x, conv, self._constant(weight), self._constant(bias))
        if relu6:
            bounds = [self._constant(np.float32(bound)) for bound in RELU6]
            name = self._node("Clip", name, *bounds)
        return GraphValue(name)

    def _sum(self, a: GraphValue, b: GraphValue) -> GraphValue:
        return GraphValue(self._node("Add", a.name, b.name))

    def _conv(self, x: GraphValue, conv: nn.Conv2d, weight: str, bias: str) -> str:
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
