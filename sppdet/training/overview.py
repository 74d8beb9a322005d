"""One pass over all images for all that is learned from objects, and from regions close to them.

The dear part of such a pass is what the upper stages make of the maps: positives of the SVMs,
samples of the box regressors and whole images take little longer together than any of them alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from sppdet.head import RegionHead
from sppdet.prefetch import ahead
from sppdet.region_features import RegionFeatures
from sppdet.sampling import Candidates
from sppdet.training.job import Job
from sppdet.types import Sample

# What the pass is called where its progress is shown.
LABEL = "positives, box regressors, scenes"


class Overview(NamedTuple):
    """What there is to see of one image.

    Attributes:
        place: its number in the data set.
        sample: the image.
        near: its objects, then the proposals that the box regressors learn from.
        features: of the regions `near`.
    """

    place: int
    sample: Sample
    near: Candidates
    features: RegionFeatures


class Learner(Protocol):
    """Somebody who wants to see every image once, in order."""

    @property
    def needed(self) -> bool:
        """Whether there is anything left to learn."""
        ...

    def see(self, seen: Overview) -> None:
        """Learns from one image."""
        ...

    def finish(self) -> None:
        """Is told that this was all, and saves what came of it."""
        ...


def look_over(job: Job, head: RegionHead, learners: Sequence[Learner]) -> None:
    """Shows all images to those who need it."""
    waiting = [learner for learner in learners if learner.needed]
    if not waiting:
        return
    data, min_iou = job.data, job.config.regression.min_iou
    count = len(data.dataset)
    with job.progress.task(LABEL, count) as advance:
        for place, (maps, found) in ahead(range(count), data.load):
            near = found.take(found.overlap > min_iou)
            features = RegionFeatures(head, maps, near.boxes)
            seen = Overview(place, data.dataset.samples[place], near, features)
            for learner in waiting:
                learner.see(seen)
            advance(1)
    for learner in waiting:
        learner.finish()
