"""The fully connected layers over pooled regions: fc6, fc7, class scores and box deltas."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sppdet.backbones.feature_maps import FeatureExtractor, FeatureMaps
from sppdet.core.boxes import DELTA_STDS, decode_deltas
from sppdet.core.model_file import check_shapes
from sppdet.core.types import FloatArray, IntArray
from sppdet.heads.config import HeadConfig
from sppdet.heads.prepared_maps import PreparedMaps
from sppdet.heads.region_averages import averages_of_pooled, has_averages, region_averages
from sppdet.heads.region_pooler import RegionPooler

Layer = TypeVar("Layer", bound=nn.Module)


class HeadOutput(NamedTuple):
    """The head's output for N regions.

    Attributes:
        class_logits: `(N, K + 1)`, background first.
        box_deltas: `(N, K, 4)` per class, in units of `boxes.DELTA_STDS`.
    """

    class_logits: Tensor
    box_deltas: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class RegionFeatures:
    """The features of an image's regions: one row per box, independent of the other boxes.

    Attributes:
        boxes: the regions `float32 (N, 4)`.
        size: the image's width and height in pixels.
        layers: `float32 (N, D)` by layer: `fc6` and `fc7` after ReLU, `pool` where the head's SVMs
            or regressors read it. Raw, not scaled to the SVMs' norm.
        image_vector: `float32 (C,)`, the mean of all cells of the maps; None where no map shows
            the whole image.
        average: takes weights `float32 (C, A)` to `(N, A)`: the channels of the backbone's
            pretrained 1x1 head averaged over each region, times the weights, or all C for None;
            None where the backbone has no such head, or the head does not read it.
    """

    boxes: FloatArray
    size: tuple[int, int]
    layers: Mapping[str, FloatArray]
    image_vector: FloatArray | None
    average: Callable[[Tensor | None], Tensor] | None = None


class _Linear(nn.Linear):
    """A layer without torch's own initial weights: `RegionHead` draws them, or a file has them."""

    def reset_parameters(self) -> None:
        """Draw nothing, which takes a while."""


class RegionHead(nn.Module):
    """Pools regions out of feature maps and runs the fully connected layers on them.

    Args:
        config: widths and levels.
        features: gives channels, geometry and, where the backbone has it, the pretrained head.
        n_classes: K, background not counted.
        seed: draws the initial weights; None: they are left as they come, to be loaded.
        arrays: those that will be loaded; ValueError where they are of other shapes.
    """

    def __init__(
        self,
        config: HeadConfig,
        features: FeatureExtractor,
        n_classes: int,
        *,
        seed: int | None = 0,
        arrays: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.pooler = RegionPooler(config, features)
        if arrays is not None:
            check_shapes(arrays, self._shapes(n_classes, arrays))
        # The first factor of fc6, set by `factorize_fc6` once fine-tuning is over.
        self.fc6_in: nn.Linear | None = None
        self.fc6: nn.Linear = _Linear(self.pooler.dim, config.fc6)
        self.fc7 = _Linear(config.fc6, config.fc7)
        self.cls_score: nn.Linear = _Linear(config.fc7, n_classes + 1)
        self.bbox_pred: nn.Linear = _Linear(config.fc7, n_classes * 4)
        if seed is not None:
            self._initialize(seed)

    @classmethod
    def from_arrays(
        cls,
        config: HeadConfig,
        features: FeatureExtractor,
        n_classes: int,
        arrays: Mapping[str, NDArray[Any]],
    ) -> RegionHead:
        """Make a head of stored weights, whose names are those of its state.

        Its layers have no memory before the arrays have shown that they are of the settings' size.
        Raises ValueError or RuntimeError where they are not.
        """
        head = cls(config, features, n_classes, seed=None, arrays=arrays)
        if "fc6_in.weight" in arrays:
            head.make_factors(len(arrays["fc6_in.weight"]))
        head.load_state_dict({name: torch.from_numpy(one) for name, one in arrays.items()})
        return head

    def _shapes(
        self, n_classes: int, arrays: Mapping[str, NDArray[Any]]
    ) -> dict[str, tuple[int, ...]]:
        """Shapes of the stored weights of all layers, with fc6 factorized or not."""
        fc6, fc7, dim = self.config.fc6, self.config.fc7, self.pooler.dim
        rest = {"fc7.weight": (fc7, fc6), "cls_score.weight": (n_classes + 1, fc7)}
        rest["bbox_pred.weight"] = (4 * n_classes, fc7)
        if "fc6_in.weight" not in arrays:
            return {"fc6.weight": (fc6, dim), **rest}
        rank = len(arrays["fc6_in.weight"])
        return {"fc6_in.weight": (rank, dim), "fc6.weight": (fc6, rank), **rest}

    def _initialize(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        reduce = self.pooler.reduce
        for layer, std in (
            (reduce, None),
            (self.fc6, None),
            (self.fc7, None),
            (self.cls_score, 0.01),
            (self.bbox_pred, 0.001),
        ):
            if layer is None:
                continue
            # He et al. 2015 for what a ReLU follows; the linear reduction keeps unit variance.
            gain = 1.0 if layer is reduce else 2.0
            deviation = std if std is not None else (gain / layer.in_features) ** 0.5
            nn.init.normal_(layer.weight, 0.0, deviation, generator=generator)
            nn.init.zeros_(layer.bias)

    def freeze(self, *, quantize: bool) -> RegionHead:
        """A copy that shares these weights, which nothing may train any more: it is faster.

        With `quantize` its layers are computed in 8-bit integers.
        """
        self.eval().requires_grad_(False)
        if self.pooler.top_stages is not None:
            self.pooler.top_stages.freeze()
        # A module's shallow copy would share its table of layers.
        head, head.pooler = _shallow_copy(self), _shallow_copy(self.pooler)
        head.pooler.rules = self.pooler.rules.replace(quantize=quantize)
        head.pooler.is_quantized = quantize
        return head

    def layer_width(self, layer: str) -> int:
        """The length of the features of `pool`, `fc6` or `fc7`."""
        widths = {"pool": self.pooler.dim, "fc6": self.config.fc6, "fc7": self.config.fc7}
        return widths[layer]

    def prepare(self, maps: FeatureMaps) -> PreparedMaps:
        """Run what lies below the regions' own layers, once per image."""
        return self.pooler.prepare(maps, self._first_layer())

    @torch.inference_mode()
    def regions(self, prepared: PreparedMaps, boxes: FloatArray) -> RegionFeatures:
        """Compute the features of regions `(N, 4)` in image pixels."""
        image_vector = prepared.image_vector().numpy()
        if "pool" in (self.config.svm_layer, self.config.regression_layer):
            pooled = self.pooler.pool(prepared, boxes)
            return self.regions_from_pooled(pooled, boxes, prepared.size, image_vector)
        fc6 = F.relu(self.fc6_response(prepared, boxes))
        layers = {"fc6": fc6.numpy(), "fc7": self.fc7_from_fc6(fc6).numpy()}
        average = None
        if has_averages(self.pooler):
            average = partial(region_averages, self.pooler, prepared, boxes)
        return RegionFeatures(boxes, prepared.size, layers, image_vector, average)

    @torch.inference_mode()
    def regions_from_pooled(
        self,
        pooled: Tensor,
        boxes: FloatArray,
        size: tuple[int, int],
        image_vector: FloatArray | None = None,
    ) -> RegionFeatures:
        """Compute the features of regions whose pooled vectors `(N, dim)` are known."""
        fc6 = self.fc6_from_pooled(pooled)
        layers = {"pool": pooled, "fc6": fc6, "fc7": self.fc7_from_fc6(fc6)}
        arrays = {name: values.numpy() for name, values in layers.items()}
        average = None
        if has_averages(self.pooler):
            average = partial(averages_of_pooled, self.pooler, pooled)
        return RegionFeatures(boxes, size, arrays, image_vector, average)

    def fc6_response(self, prepared: PreparedMaps, boxes: FloatArray) -> Tensor:
        """`(N, fc6)` before ReLU."""
        first = self._first_layer()
        response = self.pooler.pool_linear(prepared, boxes, first)
        return response if first is self.fc6 else self._linear("fc6", self.fc6, response)

    def fc6_from_pooled(self, pooled: Tensor) -> Tensor:
        """`(N, fc6)` after ReLU."""
        first, pooler = self._first_layer(), self.pooler
        out: Tensor
        if not (pooler.is_quantized and pooler.pyramid_width):
            out = first(pooled)
        else:
            # What is averaged is a hundred times as large as the bins: apart from them, in floats.
            bins, averaged = torch.tensor_split(pooled, [pooler.pyramid_width], dim=1)
            share = first.weight[:, pooler.pyramid_width :]
            out = pooler.pyramid_share(first, bins) + F.linear(averaged, share)
        return F.relu(out if first is self.fc6 else self._linear("fc6", self.fc6, out))

    def fc7_from_fc6(self, fc6: Tensor) -> Tensor:
        """`(N, fc7)` after ReLU."""
        return self._linear("fc7", self.fc7, fc6, relu=True)

    def _first_layer(self) -> nn.Linear:
        """The layer that reads pooled vectors: fc6 or its first factor."""
        return self.fc6 if self.fc6_in is None else self.fc6_in

    def _linear(self, name: str, layer: nn.Linear, rows: Tensor, *, relu: bool = False) -> Tensor:
        if not self.pooler.is_quantized:
            out: Tensor = layer(rows)
            return F.relu(out) if relu else out
        return self.pooler.quantized_layer(name, layer.weight, layer.bias)(rows, relu=relu)

    @torch.inference_mode()
    def class_log_probabilities(self, regions: RegionFeatures) -> FloatArray:
        """`float32 (N, K)`: logarithms of the fine-tuned softmax's probabilities per class."""
        logits = self.cls_score(torch.from_numpy(regions.layers["fc7"]))
        return np.asarray(torch.log_softmax(logits, dim=1)[:, 1:].numpy())

    @torch.inference_mode()
    def predict_boxes(
        self, regions: RegionFeatures, rows: IntArray, labels: IntArray
    ) -> FloatArray:
        """`float32 (M, 4)`: some of the regions, moved by the learned deltas of their classes."""
        # A region is asked for once for each class that it may be of.
        chosen, back = np.unique(rows, return_inverse=True)
        deltas = self.bbox_pred(torch.from_numpy(regions.layers["fc7"][chosen]))
        own = deltas.unflatten(1, (-1, 4)).numpy()[back, labels]
        return decode_deltas(own * np.array(DELTA_STDS, np.float32), regions.boxes[rows])

    def factorization_saves_work(self, rank: int) -> bool:
        """Tell whether `factorize_fc6` would leave less work; never for a rank of 0."""
        dim, fc6 = self.pooler.dim, self.config.fc6
        return 0 < rank * (dim + fc6) < dim * fc6

    @torch.no_grad()
    def factorize_fc6(self, directions: Tensor, mean: Tensor) -> None:
        """Replace fc6 by two factors that keep its response along some directions.

        The truncated SVD of Fast R-CNN (sec. 3.1), but of fc6's responses to regions that occur
        and not of its weights.

        Args:
            directions: `(fc6, rank)`, orthonormal (see `ResponsePca`).
            mean: `(fc6,)` of `fc6_response`.
        """
        rank = directions.shape[1]
        weight, bias = directions.T @ self.fc6.weight, directions.T @ (self.fc6.bias - mean)
        self.make_factors(rank)
        assert self.fc6_in is not None
        self.fc6_in.weight.copy_(weight)
        self.fc6_in.bias.copy_(bias)
        self.fc6.weight.copy_(directions)
        self.fc6.bias.copy_(mean)

    def make_factors(self, rank: int) -> None:
        """Give fc6 the shapes of its two factors, for weights to be loaded into."""
        self.fc6_in = _Linear(self.pooler.dim, rank)
        self.fc6 = _Linear(rank, self.config.fc6)

    def forward(self, pooled: Tensor) -> HeadOutput:
        """Fine-tuning's forward pass: pooled vectors `(N, dim)` to class logits and box deltas."""
        fc6 = F.dropout(self.fc6_from_pooled(pooled), self.config.dropout, self.training)
        fc7 = F.dropout(self.fc7_from_fc6(fc6), self.config.dropout, self.training)
        return HeadOutput(self.cls_score(fc7), self.bbox_pred(fc7).unflatten(1, (-1, 4)))


def _shallow_copy(module: Layer) -> Layer:
    out = copy.copy(module)
    out._modules = dict(module._modules)
    return out
