"""Principal directions of a layer's responses: what a narrower layer may leave out.

Singular vectors of the weights alone treat every input as likely as every other, where the pooled
bins of neighbouring cells and of nested levels go together closely.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sppdet.errors import ConfigError


@dataclass(frozen=True)
class CompressionConfig:
    """What is made smaller once the head is fine-tuned."""

    # Numbers that stand between the two factors of fc6; 0 leaves it whole, as does a number that
    # would save no work.
    fc6_rank: int = 192

    def __post_init__(self) -> None:
        if self.fc6_rank < 0:
            raise ConfigError(
                f"compression.fc6_rank is {self.fc6_rank}", mend="give 0 or a positive whole number"
            )


class Responses:
    """Mean and covariance of rows `(n, width)`, added up in float64."""

    def __init__(self, width: int) -> None:
        self._count = 0
        self._sum = torch.zeros(width, dtype=torch.float64)
        self._products = torch.zeros(width, width, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Takes rows into account."""
        wide = rows.double()
        self._count += len(wide)
        self._sum += wide.sum(dim=0)
        self._products += wide.T @ wide

    def principal(self, rank: int) -> tuple[Tensor, Tensor]:
        """Orthonormal directions `float32 (width, rank)` and the mean `float32 (width,)`.

        Law: of all affine spaces of that dimension, the one through the mean along the directions
        is the nearest to the rows, by the sum of squares. Raises ValueError before any row.
        """
        if not self._count:
            raise ValueError("no rows were added")
        mean = self._sum / self._count
        covariance = self._products / self._count - torch.outer(mean, mean)
        # Eigenvalues come in rising order.
        vectors = torch.linalg.eigh(covariance).eigenvectors[:, -rank:].flip(1)
        return vectors.float().contiguous(), mean.float()
