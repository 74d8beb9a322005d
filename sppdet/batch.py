"""Detection over a whole data set, with proposals and, if wanted, conv maps kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sppdet.detector import Detector
from sppdet.features import FeatureMaps
from sppdet.files import sha256
from sppdet.images import mirrored, read_image, read_sample
from sppdet.mapstore import MapStore
from sppdet.progress import Progress
from sppdet.proposals import propose_all
from sppdet.types import Dataset, Detections, ImageArray, Sample


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
    stores = None
    if cache_dir is not None:
        stores = [MapStore(cache_dir / "maps", one) for one in detector.extractors]
    paths = [sample.path for sample in dataset]
    found = propose_all(paths, read_image, detector.propose, cache, workers=workers)
    out: dict[str, Detections] = {}
    with progress.task("detecting", len(dataset)) as advance:
        for sample, boxes in zip(dataset, found, strict=True):
            seen = (
                detector.look(read_sample(sample))
                if stores is None
                else _kept(sample, stores, detector.config.detection.mirror)
            )
            out[sample.image_id] = detector.detect_regions(seen, boxes)
            advance(1)
    return out


def _kept(sample: Sample, stores: list[MapStore], mirror: bool) -> tuple[FeatureMaps, ...]:
    """What `Detector.look` gives, from the stores or put there; mirror images are of their own."""
    digest = sha256(sample.path.read_bytes())
    found = tuple(_from_store(store, digest, lambda: read_sample(sample)) for store in stores)
    if not mirror:
        return found
    turned = sha256(digest, "mirrored")
    others = (_from_store(store, turned, lambda: mirrored(read_sample(sample))) for store in stores)
    return tuple(replace(one, mirrored=other) for one, other in zip(found, others, strict=True))


def _from_store(store: MapStore, digest: str, read: Callable[[], ImageArray]) -> FeatureMaps:
    if not store.has(digest):
        store.compute(digest, read())
    return store.load(digest)
