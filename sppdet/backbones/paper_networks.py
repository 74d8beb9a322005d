"""The conv layers of the SPP-net paper's networks (He et al. 2014, table 1).

ZF-5 follows the authors' release, whose paddings give the 13x13 map at 224 and the constants
16 and 21 of the detector. The release has no Overfeat network, but its constants for one (stride
12, offset 15, 18x18 cells at 224) leave only the paddings below; the map after the first pooling
is then 37x37, where the paper's table says 36x36. Convnet* gives the table's 55, 27 and 13.

No weights of these networks exist to load. They start from He et al. (2015): the release's start
(standard deviation 0.01, some biases 1) needs a schedule of ImageNet's length to get going.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sppdet.backbones.sequential import SequentialBackbone

PIXEL_MEAN = 128.0


class WithinChannelLRN(nn.Module):
    """Local response normalization inside each channel, as the release's Caffe fork has it.

    `x * (1 + alpha / size^2 * sum of x^2 over the size x size window) ^ -0.75`, the window clipped
    at the borders.
    """

    def __init__(self, size: int = 3, alpha: float = 5e-5) -> None:
        super().__init__()
        self.size, self.alpha = size, alpha

    def forward(self, x: Tensor) -> Tensor:
        # With padding counted, the average is the clipped sum over size^2.
        energy = F.avg_pool2d(x * x, self.size, 1, self.size // 2, count_include_pad=True)
        # Two roots are faster than a power, forwards and backwards (docs/speed.md).
        root = (1 + self.alpha * energy).rsqrt()
        return x * root * root.sqrt()


def _conv(cin: int, cout: int, kernel: int, stride: int = 1, padding: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(cin, cout, kernel, stride, padding), nn.ReLU(inplace=True)]


def _pool(kernel: int, stride: int, ceil: bool = True) -> list[nn.Module]:
    return [nn.MaxPool2d(kernel, stride, ceil_mode=ceil)]


def _channels(count: int, width: float) -> int:
    """Number of channels times `width`, to the nearest multiple of 8 (`count` itself at 1)."""
    return max(8, round(count * width / 8) * 8)


def _zf5(width: float) -> list[nn.Module]:
    c96, c256, c384 = (_channels(count, width) for count in (96, 256, 384))
    return [
        *_conv(3, c96, 7, 2, 1),
        WithinChannelLRN(),
        *_pool(3, 2),
        *_conv(c96, c256, 5, 2, 0),
        WithinChannelLRN(),
        *_pool(3, 2),
        *_conv(c256, c384, 3),
        *_conv(c384, c384, 3),
        *_conv(c384, c256, 3),
    ]


def _convnet5(width: float) -> list[nn.Module]:
    c96, c256, c384 = (_channels(count, width) for count in (96, 256, 384))
    return [
        *_conv(3, c96, 11, 4, 2),
        WithinChannelLRN(),
        *_conv(c96, c256, 5, 1, 2),
        WithinChannelLRN(),
        *_pool(3, 2, ceil=False),
        *_conv(c256, c384, 3),
        *_pool(3, 2, ceil=False),
        *_conv(c384, c384, 3),
        *_conv(c384, c256, 3),
    ]


def _overfeat(convs: int, width: float) -> list[nn.Module]:
    c96, c256, c512 = (_channels(count, width) for count in (96, 256, 512))
    layers = [
        *_conv(3, c96, 7, 2, 0),
        *_pool(3, 3),
        WithinChannelLRN(),
        *_conv(c96, c256, 5, 1, 1),
        *_pool(2, 2),
    ]
    for index in range(convs - 2):
        layers += _conv(c256 if index == 0 else c512, c512, 3)
    return layers


PAPER_NETWORKS: dict[str, Callable[[float], list[nn.Module]]] = {
    "zf5": _zf5,
    "convnet5": _convnet5,
    "overfeat5": lambda width: _overfeat(5, width),
    "overfeat7": lambda width: _overfeat(7, width),
}


def paper_network(
    name: str, seed: int = 0, *, width: float = 1.0, pixel_scale: float = 1.0
) -> SequentialBackbone:
    """Build the conv part of a network of the paper, trainable, weights drawn from `seed`.

    The layer `conv` ends with the last ReLU: no pooling follows, the pyramid takes its place.
    `width` multiplies every layer's channels. `pixel_scale` multiplies the pixels after 128 is
    taken off; the paper leaves them at 1.
    """
    layers = nn.Sequential(*PAPER_NETWORKS[name](width))
    init_he(layers, seed)
    mean, scale = (PIXEL_MEAN,) * 3, (pixel_scale,) * 3
    return SequentialBackbone(name, layers, {"conv": len(layers)}, mean=mean, scale=scale, bgr=True)


def init_he(module: nn.Module, seed: int) -> None:
    """Draw He et al.'s (2015) normal weights of all convolutions and linear layers; biases 0."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
