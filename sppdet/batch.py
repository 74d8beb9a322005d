"""Detection over a whole data set, with proposals and, if wanted, conv maps kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sppdet.detector import Detector
from sppdet.features import FeatureMaps, ImageView
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
    stores = None if cache_dir is None else _Stores(cache_dir / "maps", detector.views)
    paths = [sample.path for sample in dataset]
    found = propose_all(paths, read_image, detector.propose, cache, workers=workers)
    out: dict[str, Detections] = {}
    with progress.task("detecting", len(dataset)) as advance:
        for sample, boxes in zip(dataset, found, strict=True):
            seen = detector.look(read_sample(sample)) if stores is None else stores.look(sample)
            out[sample.image_id] = detector.detect_regions(seen, boxes)
            advance(1)
    return out


class _Stores:
    """The maps of a detector's views, kept on disk."""

    def __init__(self, folder: Path, views: Sequence[ImageView]) -> None:
        self._views = [(view, MapStore(folder, view.extractor)) for view in views]

    def look(self, sample: Sample) -> tuple[FeatureMaps, ...]:
        """What `Detector.look` gives, from the stores or put there."""
        digest = sha256(sample.path.read_bytes())
        return tuple(_kept(sample, digest, view, store) for view, store in self._views)


def _kept(sample: Sample, digest: str, view: ImageView, store: MapStore) -> FeatureMaps:
    """The maps of one view; mirror images have files of their own."""
    if view.mirrored:
        digest = sha256(digest, "mirrored")
    if not store.has(digest):
        store.compute(digest, view.shown(read_sample(sample)))
    return store.load(digest)
