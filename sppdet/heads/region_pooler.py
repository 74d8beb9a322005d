"""From feature maps and boxes to pooled vectors: what the fully connected layers are fed.

The pyramid of the paper ({6,3,2,1}, max) pools a map whose channels a learned 1x1 convolution has
reduced. A pretrained network whose last convolution is 1x1 (EfficientNet's head) offers one thing
more: that layer's channels, averaged over the region and over a larger window around it, keep what
ImageNet training knew and the narrow bottleneck below it hides.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sppdet.backbones.feature_maps import FeatureExtractor, FeatureMap, FeatureMaps
from sppdet.core.boxes import expand
from sppdet.core.errors import ConfigError
from sppdet.core.types import FloatArray, IntArray
from sppdet.heads.config import HeadConfig
from sppdet.heads.prepared_maps import PreparedMap, PreparedMaps
from sppdet.heads.quantized_linear import QuantizedLinear
from sppdet.heads.upsample import upsample2x
from sppdet.spp.projection import project_boxes, select_scale
from sppdet.spp.roi_pooling import Mode, spatial_pyramid_pool

# Windows averaged over the pretrained head are whole: one bin each.
WHOLE = (1,)


class RegionPooler(nn.Module):
    """Pools regions out of feature maps.

    Args:
        config: pyramid, averaged windows, trained top stages.
        features: gives channels, geometry and, where the backbone has it, the pretrained head.

    Raises ConfigError for top stages or a pretrained head that the backbone does not have.

    Attributes:
        dim: the length of a pooled vector.
        pyramid_width: of its first part, the pyramid's bins.
        is_quantized: whether frozen layers are computed in 8-bit integers.
    """

    def __init__(self, config: HeadConfig, features: FeatureExtractor) -> None:
        super().__init__()
        self.config, self.rules = config, features.config
        self.receptive_field = features.receptive_field
        self.top_stages = features.trainable_stages() if config.train_top_stages else None
        self.low_channels = sum(features.channels.values())
        layers = dict(features.channels)
        if self.top_stages is not None:
            layers = {self.top_stages.output: self.top_stages.channels, **layers}
        channels = sum(layers.values())
        self.mean = nn.Buffer(torch.zeros(channels))
        self.std = nn.Buffer(torch.ones(channels))
        self.head_channels = 0
        if config.context_scales:
            self._keep_conv_head(features, layers)
        bins = sum(level * level for level in config.pyramid_levels)
        self.pyramid_width = (config.pyramid_channels or channels) * bins
        self.dim = self.pyramid_width + self.head_channels * len(config.context_scales)
        wanted = config.pyramid_channels
        self.reduce = nn.Linear(channels, wanted) if wanted else None
        # Set by `RegionHead.freeze`; the layers are made when they are first asked for.
        self.is_quantized = False
        self._quantized: dict[str, QuantizedLinear] = {}

    def _keep_conv_head(self, features: FeatureExtractor, layers: dict[str, int]) -> None:
        """Keep the backbone's pretrained 1x1 head as frozen buffers outside the state dict."""
        head = features.backbone.conv_head()
        if head is None or head.source not in layers:
            raise ConfigError(
                f"{self.rules.backbone} has no pretrained 1x1 head on {', '.join(layers)}",
                hint="set head.context_scales to []",
            )
        names = list(layers)
        start = sum(layers[name] for name in names[: names.index(head.source)])
        self.head_source = slice(start, start + layers[head.source])
        self.head_channels = head.weight.shape[1]
        self.head_weight = nn.Buffer(head.weight.clone(), persistent=False)
        self.head_bias = nn.Buffer(head.bias.clone(), persistent=False)
        self.head_limit = head.limit

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Set the per-channel mean and standard deviation that maps are normalized by."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    def image_width(self) -> int:
        """The length of `PreparedMaps.image_vector`."""
        return self.head_channels or self.low_channels

    def pooling_parameters(self) -> list[nn.Parameter]:
        """The parameters that the pooled vectors depend on."""
        layers = [layer for layer in (self.top_stages, self.reduce) if layer is not None]
        return [parameter for layer in layers for parameter in layer.parameters()]

    def quantized_layer(self, name: str, weight: Tensor, bias: Tensor) -> QuantizedLinear:
        """A frozen layer in 8-bit integers, known by its name."""
        if name not in self._quantized:
            self._quantized[name] = QuantizedLinear(weight, bias)
        return self._quantized[name]

    def prepare(self, maps: FeatureMaps, layer: nn.Linear | None = None) -> PreparedMaps:
        """Run what lies below pooling, once per map.

        With `layer`, a linear layer over pooled vectors, `pool_linear` can be called for it.
        """
        return PreparedMaps(maps, tuple(self._prepare(one, layer) for one in maps.maps))

    def _prepare(self, source: FeatureMap, layer: nn.Linear | None) -> PreparedMap:
        low, high = self._stages(source)
        head_features = pyramid = None
        products: tuple[Tensor, ...] = ()
        if self.head_channels:
            head_features = self._head_map(low[..., self.head_source] if high is None else high)
            if layer is not None:
                shares = self._head_shares(layer)
                products = tuple(self._product(*share, head_features, low) for share in shares)
        if self.config.pyramid_levels:
            pyramid = self._pyramid_map(low, high)
        return PreparedMap(source, low, high, head_features, pyramid, products)

    def joined_map(self, source: FeatureMap) -> Tensor:
        """All channels `(h, w, C' + C)` that the pyramid is made of, on the map's own grid."""
        low, high = self._stages(source)
        return low if high is None else torch.cat([self.on_grid(high, low), low], dim=2)

    def _stages(self, source: FeatureMap) -> tuple[Tensor, Tensor | None]:
        low = source.values.to(self.mean.device, torch.float32)
        if self.top_stages is None:
            return low, None
        return low, self.top_stages(low, quantize=self.rules.quantize)

    def _head_map(self, values: Tensor) -> Tensor:
        weight, bias, limit = self.head_weight, self.head_bias, self.head_limit
        if not self.is_quantized:
            return torch.clamp(values @ weight + bias, 0.0, limit)
        cells = self.quantized_layer("conv head", weight.T, bias)(values.flatten(0, 1), relu=True)
        return cells.clamp_(max=limit).reshape(*values.shape[:2], -1)

    def _pyramid_map(self, low: Tensor, high: Tensor | None) -> Tensor:
        """Normalize the map and reduce its channels, in one product per grid.

        What the top stages gave is multiplied before it is upsampled: interpolation is linear, and
        there are four times as many cells and more channels after it.
        """
        if self.reduce is None:
            whole = low if high is None else torch.cat([self.on_grid(high, low), low], dim=2)
            return (whole - self.mean) / self.std
        weight = self.reduce.weight / self.std
        bias = self.reduce.bias - weight @ self.mean
        if high is None:
            return F.linear(low, weight, bias)
        of_high, of_low = torch.tensor_split(weight, [high.shape[2]], dim=1)
        upsampled = self.on_grid(F.linear(high, of_high), low)
        return F.linear(low, of_low, bias) + upsampled

    def on_grid(self, values: Tensor, low: Tensor) -> Tensor:
        """Interpolate a map on the top stages' grid onto that of `low`."""
        return values if self.top_stages is None else upsample2x(values, *low.shape[:2])

    def _head_shares(self, layer: nn.Linear) -> list[tuple[str, Tensor]]:
        """Per averaged window, a name and the weights of `layer` that read it."""
        width = self.head_channels
        starts = range(self.pyramid_width, self.dim, width)
        return [(f"share {start}", layer.weight[:, start : start + width]) for start in starts]

    def _product(self, name: str, share: Tensor, head_features: Tensor, low: Tensor) -> Tensor:
        if not self.is_quantized:
            return self.on_grid(F.linear(head_features, share), low)
        multiply = self.quantized_layer(name, share, torch.zeros(len(share)))
        cells = multiply(head_features.flatten(0, 1))
        return self.on_grid(cells.reshape(*head_features.shape[:2], -1), low)

    def scale_of(self, maps: FeatureMaps, boxes: FloatArray) -> IntArray:
        """`int64 (N,)`: the position of the scale that each box is pooled at."""
        return select_scale(boxes, maps.width, maps.height, maps.scales, self.rules.scale_rule)

    def project(self, source: FeatureMap, boxes: FloatArray) -> IntArray:
        """`int64 (N, 4)` windows of boxes in cells of a map."""
        height, width = source.values.shape[:2]
        return project_boxes(
            boxes,
            source.scale_x,
            source.scale_y,
            self.receptive_field,
            height,
            width,
            self.rules.projection_rule,
        )

    def same_window_ids(self, maps: FeatureMaps, boxes: FloatArray) -> IntArray:
        """`int64 (N,)` numbers; equal for boxes that cover the same cells of the same scale.

        The pyramid cannot tell such boxes apart; the release keeps one of them as a negative.
        """
        chosen = self.scale_of(maps, boxes)
        rows = np.zeros((len(boxes), 5), dtype=np.int64)
        rows[:, 0] = chosen
        for index, source in enumerate(maps.maps):
            mine = np.flatnonzero(chosen == index)
            rows[mine, 1:] = self.project(source, boxes[mine])
        ids: IntArray = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
        return ids

    def pool(self, prepared: PreparedMaps, boxes: FloatArray) -> Tensor:
        """`float32 (N, dim)` pooled vectors of boxes `(N, 4)` in image pixels.

        Invariant: adding a box never changes another box's vector.
        """
        maps, scales = prepared.maps, self.config.context_scales

        def pool_scale(one: PreparedMap, boxes: FloatArray) -> Tensor:
            parts = [] if one.pyramid is None else [self._pool_pyramid(one, boxes)]
            if one.head_features is not None:
                # One call for all windows: it sums the map up once.
                windows = [self._window(one, boxes, scale, maps) for scale in scales]
                values = self.on_grid(one.head_features, one.low)
                averaged = _pool(values, np.concatenate(windows), WHOLE, "mean")
                parts += torch.split(averaged, len(boxes))
            return torch.cat(parts, dim=1)

        return self.by_scale(prepared, boxes, self.dim, pool_scale)

    def pool_linear(self, prepared: PreparedMaps, boxes: FloatArray, layer: nn.Linear) -> Tensor:
        """`(N, out)`: `layer(pool(prepared, boxes))` up to rounding, in half the time.

        What is averaged over windows is multiplied by its share of the layer before: a map has far
        fewer cells than an image has regions. `prepared` must be prepared for `layer`.
        """
        maps, scales = prepared.maps, self.config.context_scales

        def pool_scale(one: PreparedMap, boxes: FloatArray) -> Tensor:
            out = layer.bias.expand(len(boxes), -1)
            if one.pyramid is not None:
                out = self.pyramid_share(layer, self._pool_pyramid(one, boxes))
            for product, scale in zip(one.products, scales, strict=True):
                out = out + _pool(product, self._window(one, boxes, scale, maps), WHOLE, "mean")
            return out

        return self.by_scale(prepared, boxes, layer.out_features, pool_scale)

    def pyramid_share(self, layer: nn.Linear, pyramid: Tensor) -> Tensor:
        """Apply the part of a linear layer that reads the pyramid's bins, with its bias."""
        weight = layer.weight[:, : pyramid.shape[1]]
        if not self.is_quantized:
            return F.linear(pyramid, weight, layer.bias)
        return self.quantized_layer("pyramid", weight, layer.bias)(pyramid)

    def _pool_pyramid(self, one: PreparedMap, boxes: FloatArray) -> Tensor:
        assert one.pyramid is not None
        windows = self.project(one.source, boxes)
        return _pool(one.pyramid, windows, self.config.pyramid_levels, "max")

    def _window(
        self, one: PreparedMap, boxes: FloatArray, scale: float, maps: FeatureMaps
    ) -> IntArray:
        """Windows in cells of boxes expanded by `scale` about their centers."""
        return self.project(one.source, expand(boxes, scale, maps.width, maps.height))

    def by_scale(
        self,
        prepared: PreparedMaps,
        boxes: FloatArray,
        width: int,
        pool_scale: Callable[[PreparedMap, FloatArray], Tensor],
    ) -> Tensor:
        """`(N, width)`: each box pooled from the map of its scale, in the boxes' order."""
        chosen = self.scale_of(prepared.maps, boxes)
        parts, places = [], []
        for index, one in enumerate(prepared.prepared):
            mine = np.flatnonzero(chosen == index)
            if len(mine):
                parts.append(pool_scale(one, boxes[mine]))
                places.append(mine)
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return torch.zeros(0, width)
        order = torch.from_numpy(np.argsort(np.concatenate(places), kind="stable"))
        return torch.cat(parts)[order]


def _pool(values: Tensor, windows: IntArray, levels: tuple[int, ...], mode: Mode) -> Tensor:
    """Pool a map `(h, w, C)`."""
    return spatial_pyramid_pool(values.permute(2, 0, 1), windows, levels, mode)
