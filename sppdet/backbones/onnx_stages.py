"""Frozen inverted residuals run by onnxruntime: the same convolutions in two thirds of the time.

torch runs a convolution, its ReLU6 and its skip as three passes over the map; onnxruntime makes
one of them, in a memory layout of its own. It has no gradients: this is for layers that are frozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

# What the oldest onnxruntime that is allowed reads.
OPSET, IR_VERSION = 17, 8
SILENT = 3


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


@dataclass
class _Graph:
    """An ONNX graph being written: nodes and their weights."""

    nodes: list[Any] = field(default_factory=list)
    weights: list[Any] = field(default_factory=list)

    def constant(self, name: str, values: Tensor) -> str:
        array = np.ascontiguousarray(values.detach().numpy())
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def conv(self, x: str, conv: nn.Conv2d, *, relu6: bool) -> str:
        """Adds a convolution; returns the name of what comes out."""
        name = f"conv{len(self.nodes)}"
        inputs = [x, self.constant(f"{name}.weight", conv.weight)]
        assert conv.bias is not None
        inputs.append(self.constant(f"{name}.bias", conv.bias))
        top, left = (int(side) for side in conv.padding)
        self.nodes.append(
            helper.make_node(
                "Conv",
                inputs,
                [name],
                kernel_shape=list(conv.kernel_size),
                strides=list(conv.stride),
                dilations=list(conv.dilation),
                pads=[top, left, top, left],
                group=conv.groups,
            )
        )
        if not relu6:
            return name
        self.nodes.append(helper.make_node("Clip", [name, "zero", "six"], [f"{name}.relu6"]))
        return f"{name}.relu6"

    def block(self, x: str, block: InvertedResidual) -> str:
        wide = x if block.expand is None else self.conv(x, block.expand, relu6=True)
        out = self.conv(self.conv(wide, block.depthwise, relu6=True), block.project, relu6=False)
        if not block.skip:
            return out
        self.nodes.append(helper.make_node("Add", [out, x], [f"{out}.sum"]))
        return f"{out}.sum"


class OnnxStages:
    """A stem and stages of inverted residuals, as they are now: later changes are not seen.

    Args:
        stem: a convolution with ReLU6 before the stages; None where there is none.
        stages: blocks, stage by stage.
        wanted: the stages whose maps are asked for, by position; the head's comes after the last.
        head: a convolution with ReLU6 after the stages.
    """

    def __init__(
        self,
        stem: nn.Conv2d | None,
        stages: Sequence[Sequence[InvertedResidual]],
        wanted: Sequence[int],
        head: nn.Conv2d | None = None,
    ) -> None:
        graph = _Graph()
        graph.constant("zero", torch.tensor(0.0))
        graph.constant("six", torch.tensor(6.0))
        name, maps = "image", {}
        if stem is not None:
            name = graph.conv(name, stem, relu6=True)
        for position, stage in enumerate(stages[: max(wanted) + 1]):
            for block in stage:
                name = graph.block(name, block)
            maps[position] = name
        if head is not None and max(wanted) == len(stages):
            maps[len(stages)] = graph.conv(name, head, relu6=True)
        self._outputs = [maps[position] for position in wanted]
        shape = ["batch", None, "height", "width"]
        model = helper.make_model(
            helper.make_graph(
                graph.nodes,
                "stages",
                [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
                [
                    helper.make_tensor_value_info(one, TensorProto.FLOAT, None)
                    for one in dict.fromkeys(self._outputs)
                ],
                graph.weights,
            ),
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
        model.ir_version = IR_VERSION
        self._model: bytes = model.SerializeToString()
        self._sessions: dict[int, onnxruntime.InferenceSession] = {}

    def __call__(self, x: Tensor) -> list[Tensor]:
        """The wanted maps `float32 (B, C', h', w')` of `float32 (B, C, h, w)`.

        On as many threads as torch uses; their number does not change a bit.
        """
        array = x.contiguous().numpy()
        found = self._session(torch.get_num_threads()).run(self._outputs, {"image": array})
        return [torch.from_numpy(one) for one in found]

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxStages:
        """Itself: nothing can change it."""
        return self

    def _session(self, threads: int) -> onnxruntime.InferenceSession:
        if threads not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            options.log_severity_level = SILENT
            # Threads that wait by spinning take the cores from torch's, which come next.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            self._sessions[threads] = onnxruntime.InferenceSession(
                self._model, options, providers=["CPUExecutionProvider"]
            )
        return self._sessions[threads]
