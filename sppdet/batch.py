"""Detection over a whole data set, with proposals and, if wanted, conv maps kept on disk."""

from __future__ import annotations

from pathlib import Path

from sppdet.detector import Detector
from sppdet.features import FeatureMaps
from sppdet.files import sha256
from sppdet.images import read_image, read_sample
from sppdet.mapstore import MapStore
from sppdet.progress import Progress
from sppdet.proposals import propose_all
from sppdet.types import Dataset, Detections, Sample


def detect_dataset(
    detector: Detector,
    dataset: Dataset,
    cache_dir: Path | None,
    progress: Progress,
    *,
    workers: int = 0,
) -> dict[str, Detections]:
    """Every image's detections by image id, in the data set's order.

    With `cache_dir`, proposals and conv maps are kept there: evaluating another model of the same
    backbone then takes a fraction of the time. Proposals are computed on `workers` threads (0: one
    a core). Raises the first image's error: a figure over a
    part of a data set would be wrong.
    """
    cache = None if cache_dir is None else cache_dir / "proposals"
    maps = None if cache_dir is None else MapStore(cache_dir / "maps", detector.extractor)
    paths = [sample.path for sample in dataset]
    found = propose_all(paths, read_image, detector.propose, cache, workers=workers)
    out: dict[str, Detections] = {}
    with progress.task("detecting", len(dataset)) as advance:
        for sample, boxes in zip(dataset, found, strict=True):
            out[sample.image_id] = detector.detect_regions(_maps(detector, sample, maps), boxes)
            advance(1)
    return out


def _maps(detector: Detector, sample: Sample, store: MapStore | None) -> FeatureMaps:
    if store is None:
        return detector.extractor(read_sample(sample))
    digest = sha256(sample.path.read_bytes())
    if not store.has(digest):
        store.compute(digest, read_sample(sample))
    return store.load(digest)
