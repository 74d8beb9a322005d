"""What of a training is left to do: what the cache and the run's folder do not hold yet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from sppdet.backbones.feature_maps import FeatureExtractor, FeatureMapCache
from sppdet.core.types import Dataset
from sppdet.detection.starting_model import StartingModel
from sppdet.proposals import make_proposer
from sppdet.proposals.proposal_cache import proposal_files
from sppdet.training.checkpoints import StageStore
from sppdet.training.config import TrainingConfig
from sppdet.training.data import TrainingData, image_digests
from sppdet.training.planning import estimate
from sppdet.training.planning.estimate import Work

# The stages of the store, and what the user is told of them.
STAGES = {
    "finetune": (estimate.VALIDATION, estimate.STATISTICS, estimate.STEPS),
    "compression": (estimate.COMPRESSION,),
    "regions": (estimate.REGIONS,),
    "svm": (estimate.MINING, estimate.SOLVING),
}


@dataclass(frozen=True, slots=True)
class Left:
    """What is left.

    Attributes:
        work: in numbers; `width` is not known yet.
        uncached: images whose proposals or maps are not in the cache.
    """

    work: Work
    uncached: tuple[int, ...]

    @property
    def is_all_done(self) -> bool:
        """Whether the stages' results and the maps are all there."""
        return not self.uncached and self.work.finished >= {
            estimate.STEPS,
            estimate.REGIONS,
            estimate.MINING,
        }


def find_left(
    config: TrainingConfig,
    dataset: Dataset,
    run_dir: Path,
    cache: Path,
    extractor: FeatureExtractor,
    start: StartingModel | None = None,
) -> Left:
    """Look up what is there, by the files' names alone.

    Raises TrainingError naming images that cannot be read.
    """
    digests = image_digests(dataset)
    maps = FeatureMapCache(cache / "maps", extractor)
    boxes = proposal_files(make_proposer(config.proposals), cache / "proposals")
    no_maps = {n for n, one in enumerate(digests) if not maps.path(one).is_file()}
    found = [boxes.load(one) for one in digests]
    no_boxes = {n for n, one in enumerate(found) if one is None}
    work = Work(
        images=len(dataset),
        objects=sum(len(sample.labels) for sample in dataset),
        classes=len(dataset.classes),
        proposals=len(no_boxes),
        maps=len(no_maps),
        steps=config.finetune.steps,
        width=0,
    )
    if not no_boxes:
        proposals = tuple(one.tensors["boxes"] for one in found if one is not None)
        data = TrainingData(dataset, tuple(digests), proposals, maps)
        digest = None if start is None else start.digest
        work = _without_results(work, StageStore(run_dir, config, data.key(), digest))
    return Left(work, tuple(sorted(no_maps | no_boxes)))


def _without_results(work: Work, store: StageStore) -> Work:
    stages = [label for stage, labels in STAGES.items() if store.has(stage) for label in labels]
    begun = None if estimate.STEPS in stages else store.load("finetune", partial=True)
    if begun is not None:
        stages += [estimate.VALIDATION, estimate.STATISTICS]
        work = replace(work, steps=work.steps - int(begun["step"]))
    return replace(work, finished=frozenset(stages))
