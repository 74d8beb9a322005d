"""Features of hard background and of known objects, kept with a model.

Who adds a class from a few images has few negatives: a photo of an animal on grass says nothing of
streets. These regions of the images that the model was trained on stand for everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sppdet.core.types import FloatArray, UInt8Array

# Values above all but this share of them are cut off: all are spread over 256 steps.
CUT_OFF = 1e-4


def to_bytes(values: NDArray[Any]) -> tuple[UInt8Array, float]:
    """Round features, 0 or more, to whole steps up to 255; also the value of a step."""
    wide = np.asarray(values, np.float32)
    top = float(np.quantile(wide, 1 - CUT_OFF)) if wide.size else 0.0
    step = np.float32(top / 255) if top > 0 else np.float32(1)
    return np.clip(np.rint(wide / step), 0, 255).astype(np.uint8), float(step)


@dataclass(frozen=True, slots=True, eq=False)
class NegativeBank:
    """Regions that an added class is not, with the features that it may read.

    Attributes:
        codes: `uint8 (M, D)` by feature (`added_class.FEATURES`), which are 0 or more.
        steps: by feature, the value of a step.
    """

    codes: Mapping[str, UInt8Array]
    steps: Mapping[str, float]

    def __post_init__(self) -> None:
        if self.codes.keys() != self.steps.keys() or len({len(v) for v in self.codes.values()}) > 1:
            raise ValueError("the arrays of the bank of negatives do not fit together")

    def __len__(self) -> int:
        return len(next(iter(self.codes.values()), ()))

    @classmethod
    def of(cls, features: Mapping[str, NDArray[Any]]) -> NegativeBank:
        """Store features `(M, D)`, 0 or more, by name."""
        stored = {name: to_bytes(values) for name, values in features.items()}
        codes = {name: codes for name, (codes, _) in stored.items()}
        return cls(codes, {name: step for name, (_, step) in stored.items()})

    def features(self) -> dict[str, FloatArray]:
        """`float32 (M, D)` by name, rounded to steps."""
        return {
            name: codes.astype(np.float32) * np.float32(self.steps[name])
            for name, codes in self.codes.items()
        }

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Name its arrays as a model file does."""
        out: dict[str, NDArray[Any]] = {f"bank.{name}": codes for name, codes in self.codes.items()}
        for name, step in self.steps.items():
            out[f"bank.{name}.step"] = np.array([step], np.float32)
        return out

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> NegativeBank | None:
        """Make it of a model file's arrays; None where there is none, ValueError for odd ones."""
        own = {k.removeprefix("bank."): v for k, v in tensors.items() if k.startswith("bank.")}
        if not own:
            return None
        codes = {k: v for k, v in own.items() if not k.endswith(".step")}
        try:
            steps = {name: float(own[f"{name}.step"][0]) for name in codes}
        except (KeyError, IndexError) as error:
            raise ValueError(f"the bank of negatives lacks {error}") from error
        if any(one.dtype != np.uint8 or one.ndim != 2 for one in codes.values()):
            raise ValueError("the bank of negatives is not of bytes")
        return cls(codes, steps)
