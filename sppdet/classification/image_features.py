"""Image features from whole-image maps of a frozen backbone, kept on disk.

The paper's representation (He et al. 2014, sec. 4): one vector per image, from the map of the whole
image at one or several sizes, L2-normalized; and, besides the paper, one per window of the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sppdet.backbones import load_backbone
from sppdet.classification.config import ImageFeatureConfig
from sppdet.classification.transforms import center_crop, to_input
from sppdet.core.errors import ImageError, SppdetError
from sppdet.core.files import sha256
from sppdet.core.images import MAX_PIXELS, read_image
from sppdet.core.parallel import prefetch
from sppdet.core.progress import Progress
from sppdet.core.tensor_files import TensorCache
from sppdet.core.types import FloatArray, ImageArray
from sppdet.spp import SpatialPyramidPooling

# EfficientNet's last 1x1 layer is pooled; of other networks, their last map.
HEAD_LAYER = "head"
# Features become their powers of this exponent, their sign kept, before normalization (power
# normalization of Perronnin et al., ECCV 2010; the paper has none).
POWER = 0.5

# Changes with the meaning of what is kept: files of another version are never read.
CACHE_VERSION = "2"
_ENTRY = "features"


class ImageFeatureExtractor:
    """Computes the feature vectors of images with a frozen backbone.

    Attributes:
        config: its settings.
        backbone: the network.
        dim: length of a vector.
        weights_digest: SHA-256 of the network's weights.
    """

    def __init__(self, config: ImageFeatureConfig, *, seed: int = 0, device: str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        # At its own stride of 32, and not at the detector's 16, which takes twice the time.
        self.backbone = load_backbone(
            config.backbone, config.pretrained, seed=seed, download=config.download, dilate=False
        ).to(self.device)
        self.weights_digest = self.backbone.weights_digest()
        channels = self.backbone.channels
        self._layer = HEAD_LAYER if HEAD_LAYER in channels else self.backbone.default_layer
        self._forward = self.backbone.compile((self._layer,))
        self.dim = channels[self._layer]

    def digest(self) -> str:
        """Digest of all that an image's vectors depend on besides the image."""
        config = self.config
        return sha256(
            CACHE_VERSION,
            f"{config.backbone} {config.scales} {config.crop} {config.windows}",
            self.weights_digest,
        )

    def __call__(self, image: ImageArray) -> FloatArray:
        """Compute `float32 (views, dim)`, rows of L2 norm 1, of an RGB image `uint8 (H, W, 3)`.

        The first row is the whole image's, the others its windows', row by row. Each scale's
        vectors are normalized, added, and the sums normalized; a vector of zeros stays so.
        """
        total = np.zeros((self.config.views, self.dim), np.float32)
        for scale in self.config.scales:
            total += self._pool(image, scale)
        return _normalize(total)

    @torch.inference_mode()
    def _pool(self, image: ImageArray, scale: int) -> FloatArray:
        x = to_input(self.backbone, image, scale)
        if self.config.crop:
            x = center_crop(x, self.config.crop)
        maps = self._forward(x.to(self.device))[self._layer]
        rows = []
        for level in (1, self.config.windows) if self.config.windows else (1,):
            pooled = SpatialPyramidPooling((level,), "mean")(maps)[0].cpu().numpy()
            # Channels come first in a pooled vector, and bins second.
            rows.append(pooled.reshape(self.dim, level**2).T)
        values = np.concatenate(rows)
        return _normalize((np.sign(values) * np.abs(values) ** POWER).astype(np.float32))


def extract_features(
    paths: Sequence[Path],
    extractor: ImageFeatureExtractor,
    cache_dir: Path | None,
    progress: Progress,
    *,
    max_pixels: int = MAX_PIXELS,
) -> tuple[FloatArray, dict[int, SppdetError]]:
    """Compute `float32 (N, views, dim)` of image files, and the errors of the unreadable ones.

    The rows of unreadable images are zeros. With `cache_dir`, features are kept in that folder and
    found there again.
    """
    cache = None if cache_dir is None else TensorCache(cache_dir, extractor.digest())
    rows = np.zeros((len(paths), extractor.config.views, extractor.dim), np.float32)
    errors: dict[int, SppdetError] = {}

    def read(index: int) -> FloatArray | tuple[str, ImageArray] | SppdetError:
        """Read, on another thread, the cached features, else the image's pixels."""
        try:
            digest = "" if cache is None else sha256(paths[index].read_bytes())
            cached = None if cache is None else cache.load(digest)
            if cached is not None:
                vectors: FloatArray = cached.tensors[_ENTRY]
                return vectors
            return digest, read_image(paths[index], max_pixels=max_pixels)
        except SppdetError as error:
            return error
        except OSError as error:
            return ImageError(
                f"cannot be read ({error.strerror})", path=paths[index], hint="check the path"
            )

    with progress.task("image features", len(paths)) as advance:
        for index, found in prefetch(range(len(paths)), read):
            if isinstance(found, SppdetError):
                errors[index] = found
            elif isinstance(found, tuple):
                digest, image = found
                rows[index] = extractor(image)
                if cache is not None:
                    cache.save(digest, {_ENTRY: rows[index]})
            else:
                rows[index] = found
            advance(1)
    return rows, errors


def _normalize(rows: FloatArray) -> FloatArray:
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    scaled: FloatArray = (rows / np.where(norms == 0, 1, norms)).astype(np.float32)
    return scaled
