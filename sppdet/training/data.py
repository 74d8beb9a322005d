"""A data set as training sees it: readable images with digests, proposals and feature maps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sppdet.backbones.feature_maps import FeatureExtractor, FeatureMapCache, FeatureMaps
from sppdet.core.errors import SppdetError, raise_for_images
from sppdet.core.files import array_digest, sha256
from sppdet.core.images import read_image, read_sample
from sppdet.core.jit import warm_up
from sppdet.core.progress import Progress
from sppdet.core.types import Dataset, FloatArray, Sample
from sppdet.proposals import make_proposer
from sppdet.proposals.proposal_cache import attempt_all
from sppdet.training.config import TrainingConfig
from sppdet.training.region_sampling import RegionTargets, match_regions


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """Training images with their proposals and cached feature maps.

    Attributes:
        dataset: the annotated images.
        digests: SHA-256 of each image file's bytes.
        proposals: `float32 (N, 4)` per image.
        maps: where the feature maps are.
    """

    dataset: Dataset
    digests: tuple[str, ...]
    proposals: tuple[FloatArray, ...]
    maps: FeatureMapCache

    def load(self, index: int) -> tuple[FeatureMaps, RegionTargets]:
        """Load an image's feature maps, with its regions."""
        return self.load_maps(index), self.targets(index)

    def load_maps(self, index: int) -> FeatureMaps:
        """Load an image's feature maps, float16, at every scale."""
        return self.maps.load(self.digests[index])

    def targets(self, index: int) -> RegionTargets:
        """Match an image's regions, its objects and then its proposals, to the objects."""
        return match_regions(self.dataset.samples[index], self.proposals[index])

    def key(self) -> str:
        """Digest of images, annotations and proposals, and of all that decides the maps."""
        parts = [self.maps.extractor.key, *self.dataset.classes]
        for sample, digest, proposals in zip(
            self.dataset, self.digests, self.proposals, strict=True
        ):
            parts += [digest, array_digest(sample.boxes), array_digest(sample.labels)]
            parts.append(array_digest(proposals))
        return sha256(*parts)


def dataset_key(dataset: Dataset) -> str:
    """Digest of images and annotations; SppdetError naming the images that cannot be read."""
    parts = [*dataset.classes]
    for sample, digest in zip(dataset, image_digests(dataset), strict=True):
        arrays = (sample.boxes, sample.labels, sample.difficult)
        parts += [digest, *(array_digest(array) for array in arrays)]
    return sha256(*parts)


def prepare_data(
    config: TrainingConfig,
    dataset: Dataset,
    cache: Path,
    extractor: FeatureExtractor,
    progress: Progress,
    *,
    workers: int = 0,
    part: str = "",
) -> TrainingData:
    """Compute the proposals and feature maps of a data set, or find them in the cache.

    Proposals are computed on `workers` threads (0: one per core). `part` begins the stages' names.

    Raises TrainingError naming the images that cannot be read or are of another size than stated.
    """
    digests = image_digests(dataset)
    warm_up()
    proposals = _propose(config, dataset, cache / "proposals", progress, workers, part)
    maps, errors = FeatureMapCache(cache / "maps", extractor), []
    with progress.task(f"{part}feature maps", len(dataset)) as advance:
        for sample, digest in zip(dataset, digests, strict=True):
            try:
                if not maps.has(digest):
                    maps.save(digest, extractor(read_sample(sample)))
            except SppdetError as error:
                errors.append(error)
            advance(1)
    raise_for_images(errors, len(dataset))
    return TrainingData(dataset, tuple(digests), tuple(proposals), maps)


def _propose(
    config: TrainingConfig,
    dataset: Dataset,
    folder: Path,
    progress: Progress,
    workers: int,
    part: str,
) -> list[FloatArray]:
    paths = [sample.path for sample in dataset]
    proposer = make_proposer(config.proposals)
    errors, proposals = [], []
    with progress.task(f"{part}proposals", len(paths)) as advance:
        for _, found in attempt_all(paths, read_image, proposer, folder, workers=workers):
            if isinstance(found, SppdetError):
                errors.append(found)
            else:
                proposals.append(found)
            advance(1)
    raise_for_images(errors, len(dataset))
    return proposals


def image_digests(dataset: Dataset) -> list[str]:
    """SHA-256 of each image file's bytes; TrainingError naming those that cannot be read."""

    def digest(sample: Sample) -> str | SppdetError:
        try:
            return sha256(sample.path.read_bytes())
        except OSError as error:
            return SppdetError(f"cannot be read: {error.strerror}", path=sample.path)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(digest, dataset))
    raise_for_images([one for one in found if not isinstance(one, str)], len(dataset))
    return [one for one in found if isinstance(one, str)]
