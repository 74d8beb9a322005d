"""Fully connected layers in 8-bit integers, for weights that nothing trains any more.

A row of inputs is rounded to 255 steps over its own range, a row of weights to 63 steps either way;
the sums of their products are whole numbers, and exact. Processors that multiply bytes take a
quarter of the time for them or less.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from sppdet.backbones.onnx_graph import IR_VERSION, OPSET
from sppdet.backbones.onnx_session import make_session
from sppdet.backbones.quantization import STEPS, WEIGHT_STEPS
from sppdet.core.jit import jit
from sppdet.core.parallel import parallel_for
from sppdet.core.types import FloatArray, Int32Array, UInt8Array

# Rows that are worked on at once: what they take fits into a core's own cache.
ROWS = 128


class QuantizedLinear:
    """`rows @ weight.T + bias` with the weights as they are now: later changes are not seen.

    Args:
        weight: `(N, K)`, numbers that are finite.
        bias: `(N,)`.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        exact = weight.detach().double().numpy()
        largest = np.abs(exact).max(axis=1, initial=0.0)
        step = np.where(largest > 0, largest, 1.0) / WEIGHT_STEPS
        whole = np.round(exact / step[:, None]).astype(np.int8)
        self._step, self._bias = step.astype(np.float32), bias.detach().float().numpy().copy()
        self._total = whole.sum(axis=1, dtype=np.int32)
        self._products = _products(np.ascontiguousarray(whole.T))

    def __call__(self, rows: Tensor, *, relu: bool = False) -> Tensor:
        """`float32 (n, N)` of `float32 (n, K)` on the CPU, negative values cut off with `relu`.

        Invariant: a row's result depends on that row alone, to the last bit, on any number of
            threads.
        """
        values: FloatArray = rows.detach().contiguous().numpy()
        out = np.empty((len(values), len(self._bias)), np.float32)

        def work(part: slice) -> None:
            for start in range(part.start, part.stop, ROWS):
                chunk = slice(start, min(start + ROWS, part.stop))
                self._run(values[chunk], relu, out[chunk])

        parallel_for(len(values), work, out.size + values.size)
        return torch.from_numpy(out)

    def _run(self, values: FloatArray, relu: bool, out: FloatArray) -> None:
        # 0 is among the values, so that it is exact: half of what a ReLU gives is 0.
        low = values.min(axis=1, initial=0.0)
        step = (values.max(axis=1, initial=0.0) - low) / np.float32(STEPS)
        step[step == 0] = 1
        zero = np.rint(-low / step)
        whole = np.empty(values.shape, np.uint8)
        round_rows(values, step, zero, whole)
        (sums,) = self._products.run(None, {"rows": whole})
        finish_rows(sums, step, zero, self._step, self._total, self._bias, relu, out)

    def __deepcopy__(self, memo: dict[int, Any]) -> QuantizedLinear:
        """Itself: nothing can change it."""
        return self


def _warm_up() -> None:
    QuantizedLinear(torch.ones(2, 3), torch.zeros(2))(torch.ones(2, 3))


@jit(warm_up=_warm_up)
def round_rows(values: FloatArray, step: FloatArray, zero: FloatArray, whole: UInt8Array) -> None:
    """Values as the bytes nearest to `value / step + zero`, with a step and a zero a row."""
    for i in range(values.shape[0]):
        row, out = values[i], whole[i]
        scale, shift = np.float32(1) / step[i], zero[i] + np.float32(0.5)
        for c in range(row.size):
            # UInt8Array are cut off, not rounded: hence the half in `shift`.
            out[c] = np.uint8(min(row[c] * scale + shift, np.float32(255)))


@jit()
def finish_rows(
    sums: Int32Array,
    step: FloatArray,
    zero: FloatArray,
    weight_step: FloatArray,
    total: Int32Array,
    bias: FloatArray,
    relu: bool,
    out: FloatArray,
) -> None:
    """What sums of products of bytes stand for, by the steps that they are counted in."""
    floor = np.float32(0) if relu else np.float32(-np.inf)
    for i in range(sums.shape[0]):
        row, found, own, shift = sums[i], out[i], step[i], np.int32(zero[i])
        for o in range(row.size):
            value = np.float32(row[o] - shift * total[o]) * (own * weight_step[o]) + bias[o]
            found[o] = max(value, floor)


def _products(weight: NDArray[np.int8]) -> Any:
    """UInt8Array `(n, K)` times weights `(K, N)`, as whole numbers, on the thread that asks."""
    rows = helper.make_tensor_value_info("rows", TensorProto.UINT8, ["n", weight.shape[0]])
    sums = helper.make_tensor_value_info("sums", TensorProto.INT32, ["n", weight.shape[1]])
    node = helper.make_node("MatMulInteger", ["rows", "weight"], ["sums"])
    constant = numpy_helper.from_array(weight, "weight")
    graph = helper.make_graph([node], "products", [rows], [sums], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    return make_session(model.SerializeToString(), 1)
