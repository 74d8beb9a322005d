"""Conv maps on disk, by content."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes

from sppdet.features import FeatureExtractor, FeatureMaps, ScaledMap
from sppdet.files import atomic_write_bytes, sha256
from sppdet.types import ImageArray

# Changes with the meaning of what is stored: files of another version are never read.
STORE_VERSION = "1"


class MapStore:
    """Feature maps on disk as float16, one file an image.

    A file is named by the image's bytes, the feature config and the backbone's weights, so it can
    never be stale; one that is truncated is computed anew.
    """

    def __init__(self, folder: Path, extractor: FeatureExtractor) -> None:
        self.folder = folder
        self.extractor = extractor
        self._upstream = sha256(STORE_VERSION, extractor.digest())

    def path(self, image_digest: str) -> Path:
        """Where the maps of the image with these bytes are, or will be."""
        return self.folder / f"{sha256(self._upstream, image_digest)[:32]}.maps"

    def has(self, image_digest: str) -> bool:
        """Whether a whole file of maps is there; reads its header only."""
        path = self.path(image_digest)
        if not path.is_file():
            return False
        try:
            with safe_open(path, framework="pt"):
                return True
        except SafetensorError:
            return False

    def compute(self, image_digest: str, image: ImageArray) -> None:
        """Computes and saves the maps of an image."""
        maps = self.extractor(image)
        tensors = {str(i): one.map.half() for i, one in enumerate(maps.scaled)}
        factors = [[one.factor_x, one.factor_y] for one in maps.scaled]
        header = {"size": [maps.width, maps.height], "factors": factors}
        data = save_bytes(tensors, {"maps": json.dumps(header)})
        atomic_write_bytes(self.path(image_digest), data)

    def load(self, image_digest: str) -> FeatureMaps:
        """The saved maps of an image, float16."""
        data = self.path(image_digest).read_bytes()
        tensors = load_bytes(data)
        length = int.from_bytes(data[:8], "little")
        header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["maps"])
        scaled = tuple(
            ScaledMap(tensors[str(i)], fx, fy) for i, (fx, fy) in enumerate(header["factors"])
        )
        return FeatureMaps(scaled, *header["size"])
