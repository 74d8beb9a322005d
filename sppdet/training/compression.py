"""The compression stage: fc6 as two narrow factors that keep its responses to training regions.

Singular vectors of the weights alone (Fast R-CNN, sec. 3.1) treat every input as likely as every
other, where the pooled bins of neighboring cells and of nested levels go together closely.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from sppdet.heads.head import RegionHead
from sppdet.training.checkpoints import TrainingContext
from sppdet.training.statistics import sampled_images, sampled_regions


class ResponsePca:
    """PCA of a layer's responses `(n, width)`, whose mean and covariance are summed in float64."""

    def __init__(self, width: int) -> None:
        self._count = 0
        self._sum = torch.zeros(width, dtype=torch.float64)
        self._products = torch.zeros(width, width, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Take rows into account."""
        wide = rows.double()
        self._count += len(wide)
        self._sum += wide.sum(dim=0)
        self._products += wide.T @ wide

    def principal(self, rank: int) -> tuple[Tensor, Tensor]:
        """Orthonormal directions `float32 (width, rank)` and the mean `float32 (width,)`.

        Invariant: of all affine spaces of that dimension, the one through the mean along the
        directions is the nearest to the rows, by the sum of squares. Raises ValueError before any
        row.
        """
        if not self._count:
            raise ValueError("no rows were added")
        mean = self._sum / self._count
        covariance = self._products / self._count - torch.outer(mean, mean)
        # Eigenvalues come in rising order.
        vectors = torch.linalg.eigh(covariance).eigenvectors[:, -rank:].flip(1)
        return vectors.float().contiguous(), mean.float()


def compress_head(context: TrainingContext, head: RegionHead) -> RegionHead:
    """Factorize fc6 where that saves work; the head that was given stays as it is.

    SVMs and regressors are trained on the result: they see what they will see, and sooner.
    """
    config, data = context.config, context.data
    rank = config.head.fc6_rank
    if not head.factorization_saves_work(rank):
        return head
    compressed = copy.deepcopy(head)
    done = context.find_result("compression", "compression")
    if done is not None:
        compressed.make_factors(rank)
        compressed.load_state_dict(done)
        return compressed
    responses = ResponsePca(head.config.fc6)
    with context.progress.task("compression", len(sampled_images(data))) as advance:
        for maps, boxes in sampled_regions(data, config.seed):
            with torch.inference_mode():
                responses.add(head.fc6_response(head.prepare(maps), boxes))
            advance(1)
    compressed.factorize_fc6(*responses.principal(rank))
    context.store.save("compression", compressed.state_dict())
    return compressed
