"""Detection over a whole data set, with proposals and, if wanted, feature maps kept on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sppdet.backbones.feature_maps import FeatureMapCache, FeatureMaps
from sppdet.core.errors import ImageError, SppdetError
from sppdet.core.files import sha256
from sppdet.core.images import read_image, read_sample
from sppdet.core.progress import Progress
from sppdet.core.types import Dataset, Detections, Sample
from sppdet.detection.augmentation import MapRequest
from sppdet.detection.detector import Detector
from sppdet.detection.ensemble import Ensemble
from sppdet.proposals.proposal_cache import attempt_all


def detect_dataset(
    detector: Detector | Ensemble,
    dataset: Dataset,
    cache_dir: Path | None,
    progress: Progress,
    *,
    workers: int = 0,
) -> dict[str, Detections]:
    """Detect the objects of every image: detections by image id, in the data set's order.

    Arguments as for `attempt_dataset`. Raises the first image's error: a figure over a part of a
    data set would be wrong.
    """
    out: dict[str, Detections] = {}
    with progress.task("detecting", len(dataset)) as advance:
        for sample, outcome in attempt_dataset(detector, dataset, cache_dir, workers=workers):
            if isinstance(outcome, SppdetError):
                raise outcome
            out[sample.image_id] = outcome
            advance(1)
    return out


def attempt_dataset(
    detector: Detector | Ensemble,
    dataset: Dataset,
    cache_dir: Path | None,
    *,
    workers: int = 0,
) -> Iterator[tuple[Sample, Detections | SppdetError]]:
    """Yield each image with its detections, or the error of one that cannot be read, in order.

    With `cache_dir`, proposals and feature maps are kept there: evaluating another model of the
    same backbone then takes a fraction of the time. Proposals are computed on `workers` threads
    (0: one per core).
    """
    proposals = None if cache_dir is None else cache_dir / "proposals"
    paths = [sample.path for sample in dataset]
    found = attempt_all(paths, read_image, detector.propose, proposals, workers=workers)
    for sample, (_, boxes) in zip(dataset, found, strict=True):
        if isinstance(boxes, SppdetError):
            yield sample, boxes
            continue
        try:
            if cache_dir is None:
                maps = detector.extract(read_sample(sample))
            else:
                maps = _cached_maps(sample, detector.requests, cache_dir / "maps")
        except ImageError as error:
            yield sample, error
            continue
        yield sample, detector.detect_regions(maps, boxes)


def _cached_maps(
    sample: Sample, requests: tuple[MapRequest, ...], folder: Path
) -> tuple[FeatureMaps, ...]:
    """What `extract` gives, from the cache or put there."""
    digest = sha256(sample.path.read_bytes())
    found = []
    for request in requests:
        cache = FeatureMapCache(folder, request.extractor, request.scales, flipped=request.flip)
        if not cache.has(digest):
            cache.save(digest, request.compute(read_sample(sample)))
        found.append(cache.load(digest))
    return tuple(found)
