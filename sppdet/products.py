"""Matrix products of arrays by torch, so that one pool of threads does all heavy work.

The threads of numpy's own BLAS go on spinning for a tenth of a second after a product, on the cores
that the next image's convolutions need: on two cores these then took half as long again.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Number = TypeVar("Number", bound=np.floating[Any])


def product(a: NDArray[Number], b: NDArray[Number]) -> NDArray[Number]:
    """`a @ b` for matrices `(n, m)` and `(m, k)` of one floating type."""
    with torch.no_grad():
        out: NDArray[Number] = (_tensor(a) @ _tensor(b)).numpy()
    return out


def _tensor(values: NDArray[Any]) -> Tensor:
    # torch wants memory that may be written to, and no negative strides.
    shared = values.flags.writeable and min(values.strides, default=0) >= 0
    return torch.from_numpy(values if shared else values.copy())
