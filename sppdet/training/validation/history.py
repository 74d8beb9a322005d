"""The history of fine-tuning: losses and validation AP by step, in a table in the run's folder."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sppdet.core.files import atomic_write_text
from sppdet.training.finetune import Losses

HISTORY_FILE = "history.csv"
COLUMNS = ("step", *Losses._fields, "validation_ap")
# By less than this, AP on some dozens of images differs by chance.
CLEARLY = 0.03
# In the files of the stage: the rows so far, and the losses of the steps since the last of them.
ROWS, PENDING = "history.rows", "history.pending"


class History:
    """Mean losses between reported steps, and the validation AP of those where it is measured.

    A row holds no time: the table of a resumed training is that of an unbroken one, byte for byte.

    Args:
        folder: of the run; the table is written there anew with each row.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / HISTORY_FILE
        self.rows: list[tuple[float, ...]] = []
        self._pending: list[tuple[float, ...]] = []

    def add(self, losses: Losses) -> None:
        """Add the losses of a step."""
        self._pending.append(tuple(losses))

    def report(self, step: int, ap: float = math.nan) -> str:
        """Add and write the row of a step, NaN where AP was not measured; return it in words."""
        means = [float(one) for one in np.mean(self._pending, axis=0)]
        self.rows.append((float(step), *means, ap))
        self._pending = []
        self.write()
        measured = "" if math.isnan(ap) else f", validation AP {100 * ap:.1f}"
        return (
            f"step {step}: loss {means[0]:.3f}, classification {means[1]:.3f}, "
            f"box {means[2]:.3f}, objects classified right {means[3]:.3f}{measured}"
        )

    def write(self) -> None:
        """Write the table, if it has rows and is not there already."""
        lines = [",".join(COLUMNS)]
        for step, *values in self.rows:
            lines.append(",".join([str(int(step)), *map(_cell, values)]))
        text = "\n".join(lines) + "\n"
        if self.rows and not (self.path.is_file() and self.path.read_bytes() == text.encode()):
            atomic_write_text(self.path, text)

    def peak(self) -> int | None:
        """The step of the best AP, where the last is clearly lower; else None."""
        measured = [(row[-1], int(row[0])) for row in self.rows if not math.isnan(row[-1])]
        if not measured:
            return None
        best, step = max(measured, key=lambda one: one[0])
        return step if best - measured[-1][0] > CLEARLY else None

    def state(self) -> dict[str, Tensor]:
        """Everything that a later `load_state` needs to go on."""
        rows = torch.tensor(self.rows, dtype=torch.float64)
        pending = torch.tensor(self._pending, dtype=torch.float64)
        return {
            ROWS: rows.reshape(-1, len(COLUMNS)),
            PENDING: pending.reshape(-1, len(Losses._fields)),
        }

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take the state out of a stage's tensors; without one, there is none."""
        rows, pending = tensors.pop(ROWS, None), tensors.pop(PENDING, None)
        self.rows = [] if rows is None else [tuple(row) for row in rows.tolist()]
        self._pending = [] if pending is None else [tuple(row) for row in pending.tolist()]


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"
