"""Image features from whole-image maps: pyramid pools of a frozen backbone, kept on disk.

The paper's representation (He et al. 2014, sec. 4): one vector an image, from the map of the whole
image at one or several sizes, L2-normalised. A block is one tap pooled in one mode at one pyramid
level; blocks are kept on disk apart, so that other settings find those they share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from safetensors import SafetensorError

from sppdet.backbones import Backbone, load_backbone
from sppdet.backbones.allocator import keep_freed_memory
from sppdet.backbones.efficientnet_lite import VARIANTS, load_efficientnet_lite
from sppdet.classification.inputs import centre_crop, mirrored, resized
from sppdet.errors import ConfigError
from sppdet.files import atomic_write_bytes, sha256
from sppdet.spp import Mode, SpatialPyramidPooling
from sppdet.types import FloatArray, ImageArray

# Changes with the meaning of what is kept: files of another version are never read.
STORE_VERSION = "1"

Blocks = dict[str, FloatArray]


@dataclass(frozen=True)
class RepresentationConfig:
    """Which network sees the image, at which sizes, and how its maps become one vector."""

    # The convolutional network; see `sppdet.backbones.BACKBONES`.
    backbone: str = "efficientnet_lite0"
    # ImageNet weights; without them the network's weights are drawn from the seed.
    pretrained: bool = True
    # Fetch torchvision's weights from the network where this machine does not have them yet.
    download: bool = field(default=False, repr=False)
    # Run EfficientNet-Lite at stride 16 to the end, as the detector does, and not at its own 32:
    # four times as many cells of the last maps, for twice the time.
    dilated: bool = False
    # The network's maps that are pooled; `head` is EfficientNet's last 1x1 layer.
    taps: tuple[str, ...] = ("head",)
    # Pyramid levels of every map: n means n x n bins.
    levels: tuple[int, ...] = (1,)
    # How a bin is pooled; both give both.
    modes: tuple[Mode, ...] = ("mean",)
    # Short sides in pixels that the image is resized to; the features of several are averaged.
    scales: tuple[int, ...] = (448,)
    # Side in pixels of the square cut out of the middle of the resized image; 0 for all of it.
    crop: int = 0
    # Also average the features of the mirror image.
    mirror: bool = False
    # Every feature becomes its power of this exponent, its sign kept, before normalisation; the
    # paper has none (1).
    power: float = 0.5
    # Windows a side: n x n bins of the maps, each a small image to the SVMs, the best of which
    # counts besides the whole; 0 for none, as in the paper. Needs levels of 1 alone.
    windows: int = 2
    # Weight of the best window's score, the whole image's being 1.
    window_weight: float = 0.5

    def __post_init__(self) -> None:
        if not (self.taps and self.levels and self.modes and self.scales):
            raise ConfigError(
                "taps, levels, modes and scales must each have a value", mend="give at least one"
            )
        if min(self.levels) < 1 or min(self.scales) < 1:
            raise ConfigError("levels and scales must be positive", mend="give 1 or more")
        if self.crop < 0 or self.crop > min(self.scales):
            raise ConfigError(
                f"crop is {self.crop}", mend="give 0, or at most the least of the scales"
            )
        if not self.power > 0:
            raise ConfigError(f"power is {self.power}", mend="give a number above 0, such as 0.5")
        if self.windows < 0 or self.window_weight < 0:
            raise ConfigError(
                "windows and window_weight may not be negative", mend="give 0 or more"
            )
        if self.windows and self.levels != (1,):
            raise ConfigError(
                f"windows are pooled at level 1, not at levels {list(self.levels)}",
                mend="set windows to 0, or levels to [1]",
            )

    @property
    def blocks(self) -> tuple[str, ...]:
        """The names of the blocks of the whole image's vector, in order."""
        return tuple(
            f"{tap}/{mode}/{level}"
            for tap in self.taps
            for mode in self.modes
            for level in self.levels
        )

    @property
    def window_blocks(self) -> tuple[str, ...]:
        """The names of the blocks that hold all windows' vectors, in the order of `blocks`."""
        if not self.windows:
            return ()
        return tuple(f"{tap}/{mode}/{self.windows}" for tap in self.taps for mode in self.modes)

    @property
    def views(self) -> int:
        """Vectors an image has: the whole, and its windows."""
        return 1 + self.windows**2


class ImageFeatures:
    """Computes the feature vectors of images with a frozen backbone.

    Attributes:
        config: what it was made with.
        backbone: the network.
        dim: length of a vector.
        weights_digest: SHA-256 of the network's weights.
    """

    def __init__(self, config: RepresentationConfig, *, seed: int = 0, device: str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self.backbone = _backbone(config, seed).to(self.device)
        self.weights_digest = self.backbone.weights_digest()
        unknown = [tap for tap in config.taps if tap not in self.backbone.channels]
        if unknown:
            raise ConfigError(
                f"{config.backbone} has no map {unknown[0]!r}",
                mend=f"taps may name {', '.join(self.backbone.channels)}",
            )
        self._forward = self.backbone.for_inference(config.taps)
        bins = len(config.modes) * sum(level * level for level in config.levels)
        self.dim = bins * sum(self.backbone.channels[tap] for tap in config.taps)

    @property
    def wanted(self) -> tuple[str, ...]:
        """The names of all blocks that a pass must give."""
        return tuple(dict.fromkeys((*self.config.blocks, *self.config.window_blocks)))

    @property
    def passes(self) -> tuple[tuple[int, bool], ...]:
        """The forward passes an image takes: short side, and whether mirrored."""
        mirrors = (False, True) if self.config.mirror else (False,)
        return tuple((scale, mirror) for scale in self.config.scales for mirror in mirrors)

    def pass_digest(self, scale: int, mirror: bool) -> str:
        """What the blocks of a pass depend on besides the image, as text."""
        return (
            f"{self.config.backbone} dilated={self.config.dilated} crop={self.config.crop} "
            f"scale={scale} mirror={mirror} {self.weights_digest}"
        )

    def __call__(self, image: ImageArray) -> FloatArray:
        """`float32 (views, dim)`, rows of L2 norm 1, from an RGB image `uint8 (H, W, 3)`.

        The first row is the whole image's, the others its windows', row by row.
        """
        return self.combined([self.blocks(image, *each) for each in self.passes])

    @torch.inference_mode()
    def blocks(self, image: ImageArray, scale: int, mirror: bool) -> Blocks:
        """The blocks of one pass, `float32 (channels * level^2,)` each, not normalised."""
        x = resized(self.backbone, image, scale)
        if self.config.crop:
            x = centre_crop(x, self.config.crop)
        if mirror:
            x = mirrored(x)
        maps = self._forward(x.to(self.device))
        found: Blocks = {}
        for name in self.wanted:
            tap, mode, level = name.split("/")
            pooled = _pooling(int(level), mode)(maps[tap])
            found[name] = np.asarray(pooled[0].cpu().numpy(), np.float32)
        return found

    def combined(self, passes: Sequence[Blocks]) -> FloatArray:
        """`float32 (views, dim)` from the blocks of every pass.

        Each block of a pass gets L2 norm 1, blocks are joined, passes averaged, and the sum gets
        norm 1; a block of zeros stays so.
        """
        total = np.zeros((self.config.views, self.dim), np.float32)
        for (_, mirror), found in zip(self.passes, passes, strict=True):
            total[:1] += self._joined(found, self.config.blocks, 0)
            if self.config.windows:
                windows = self._joined(found, self.config.window_blocks, self.config.windows)
                grid = windows.reshape(self.config.windows, self.config.windows, self.dim)
                total[1:] += (grid[:, ::-1] if mirror else grid).reshape(-1, self.dim)
        return _unit(total)

    def _joined(self, found: Blocks, names: Sequence[str], windows: int) -> FloatArray:
        """`(1 or windows^2, dim)`: blocks as rows, normalised each and side by side."""
        parts = []
        for name in names:
            block = _powered(found[name], self.config.power)
            # Inside a block, channels come first and bins second.
            rows = block.reshape(-1, windows**2).T if windows else block[None]
            parts.append(_unit(rows))
        return np.concatenate(parts, axis=1)


class FeatureStore:
    """The blocks of images on disk, one file an image and pass.

    A file is named by the image's bytes and all that a pass depends on, so it can never be stale.
    One that is damaged, or lacks a block, is computed anew; blocks it has are kept.
    """

    def __init__(self, folder: Path, features: ImageFeatures) -> None:
        self.folder, self.features = folder, features
        self._upstream = {
            each: sha256(STORE_VERSION, features.pass_digest(*each)) for each in features.passes
        }

    def path(self, image_digest: str, scale: int, mirror: bool) -> Path:
        """Where the blocks of a pass over the image with these bytes are, or will be."""
        name = sha256(self._upstream[scale, mirror], image_digest)[:32]
        return self.folder / name[:2] / f"{name}.safetensors"

    def load(self, image_digest: str) -> FloatArray | None:
        """`float32 (views, dim)` if all blocks of the image are there, else None."""
        found = []
        for each in self.features.passes:
            blocks = self._read(self.path(image_digest, *each))
            if any(name not in blocks for name in self.features.wanted):
                return None
            found.append(blocks)
        return self.features.combined(found)

    def compute(self, image_digest: str, image: ImageArray) -> FloatArray:
        """`float32 (views, dim)` of an image; passes that are not on disk yet are kept there."""
        found = []
        for each in self.features.passes:
            path = self.path(image_digest, *each)
            blocks = self._read(path)
            if any(name not in blocks for name in self.features.wanted):
                blocks |= self.features.blocks(image, *each)
                atomic_write_bytes(path, safetensors.numpy.save(blocks))
            found.append(blocks)
        return self.features.combined(found)

    @staticmethod
    def _read(path: Path) -> Blocks:
        try:
            return dict(safetensors.numpy.load(path.read_bytes()))
        except (FileNotFoundError, SafetensorError):
            return {}


def _backbone(config: RepresentationConfig, seed: int) -> Backbone:
    if config.backbone in VARIANTS and config.pretrained:
        keep_freed_memory()
        return load_efficientnet_lite(config.backbone, dilate=config.dilated)
    return load_backbone(config.backbone, config.pretrained, seed=seed, download=config.download)


def _pooling(level: int, mode: str) -> SpatialPyramidPooling:
    return SpatialPyramidPooling((level,), "max" if mode == "max" else "mean")


def _powered(values: FloatArray, exponent: float) -> FloatArray:
    if exponent == 1:
        return values
    powered: FloatArray = (np.sign(values) * np.abs(values) ** exponent).astype(np.float32)
    return powered


def _unit(rows: FloatArray) -> FloatArray:
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    scaled: FloatArray = (rows / np.where(norms == 0, 1, norms)).astype(np.float32)
    return scaled
