"""A data set as training sees it: readable images with digests, proposals and conv maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sppdet.boxes import iou_matrix
from sppdet.errors import SppdetError, TrainingError
from sppdet.features import FeatureMaps
from sppdet.files import array_digest, sha256
from sppdet.mapstore import MapStore
from sppdet.sampling import Candidates, candidates
from sppdet.types import Dataset, FloatArray

# How many broken images an error names.
NAMED = 5


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """Everything about the images but their pixels.

    Attributes:
        dataset: the annotated images.
        digests: SHA-256 of each image file's bytes.
        proposals: `float32 (N, 4)` an image.
        maps: where the conv maps are.
    """

    dataset: Dataset
    digests: tuple[str, ...]
    proposals: tuple[FloatArray, ...]
    maps: MapStore

    def load(self, index: int) -> tuple[FeatureMaps, Candidates]:
        """An image's conv maps and candidate regions."""
        return self.maps.load(self.digests[index]), self.candidates(index)

    def candidates(self, index: int) -> Candidates:
        """An image's candidate regions: its objects, then its proposals."""
        return candidates(self.dataset.samples[index], self.proposals[index])

    def key(self) -> str:
        """Digest of images, annotations and proposals."""
        parts = [*self.dataset.classes]
        for sample, digest, proposals in zip(
            self.dataset, self.digests, self.proposals, strict=True
        ):
            parts += [digest, array_digest(sample.boxes), array_digest(sample.labels)]
            parts.append(array_digest(proposals))
        return sha256(*parts)


def class_overlaps(found: Candidates, n_classes: int) -> FloatArray:
    """`float32 (N, K)`: each region's highest IoU with an object of each class; 0 for none."""
    out = np.zeros((len(found.boxes), n_classes), dtype=np.float32)
    overlaps = iou_matrix(found.boxes, found.objects)
    for index, label in enumerate(found.labels):
        np.maximum(out[:, label], overlaps[:, index], out=out[:, label])
    return out


def refuse(errors: list[SppdetError]) -> None:
    """Raises one TrainingError that names the images that cannot be used, if there are any."""
    if errors:
        named = "; ".join(str(error) for error in errors[:NAMED])
        more = f"; and {len(errors) - NAMED} more" if len(errors) > NAMED else ""
        raise TrainingError(
            f"{len(errors)} images cannot be used: {named}{more}",
            mend="mend them or take them out of the split",
        )
