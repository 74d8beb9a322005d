"""From what a few images and steps took to what the whole training will take: numbers alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sppdet.training.config import SvmConfig
from sppdet.training.region_pass import LABEL
from sppdet.training.statistics import STATISTICS_IMAGES

# Stages as the user is told of them, in their order. Those in the middle of a stage that shows no
# progress of its own stand beside it.
PROPOSALS, MAPS, STATISTICS, STEPS = "proposals", "feature maps", "map statistics", "fine-tuning"
VALIDATION = "validation proposals and maps"
COMPRESSION, REGIONS, MINING, SOLVING = "compression", LABEL, "hard negatives", "SVMs"
CALIBRATION = "detecting"

# Seconds that the solver takes per number of a class's rows: 0.055 s for 6,000 rows of 1,024.
SOLVER_SECONDS = 0.055 / (6000 * 1024)
# Hard negatives per class that an image adds, after the first.
HARD_PER_IMAGE = 10
# To measure AP on an image takes such a share of a step.
STEPS_PER_MEASURED = 0.5
# To detect takes about twice the regions of mining, and maps at a size of its own.
DETECTED_REGIONS, DETECTED_MAPS = 2.0, 1.5
# Share of the time given that is planned with: estimates are not exact.
SAFE_SHARE = 0.9
# `--minutes` takes no fewer steps, and steps in whole tens.
LEAST_STEPS, TENS = 100, 10


# Seconds per item, an image or a step, by stage.
Costs = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Work:
    """What is left to do.

    Attributes:
        images: of the training.
        objects: in them.
        classes: their classes.
        proposals, maps: images whose proposals and maps are not in the cache.
        steps: of fine-tuning.
        width: of the features that the SVMs see.
        validation: images that AP is measured on.
        times: how often it is measured in those steps.
        calibration: images that scores are calibrated on.
        finished: stages whose results are there.
    """

    images: int
    objects: int
    classes: int
    proposals: int
    maps: int
    steps: int
    width: int
    validation: int = 0
    times: int = 0
    calibration: int = 0
    finished: frozenset[str] = frozenset()


def stage_seconds(work: Work, costs: Costs, svm: SvmConfig) -> dict[str, float]:
    """Estimate the seconds of each stage that is left, in their order.

    Invariant: more work never takes less.
    """
    each = defaultdict(float, costs)
    sampled = min(work.images, STATISTICS_IMAGES)
    seconds = {
        PROPOSALS: work.proposals * each[PROPOSALS],
        MAPS: work.maps * each[MAPS],
        VALIDATION: work.validation * (each[PROPOSALS] + each[MAPS]),
        # Channels' statistics, then the pooled values'.
        STATISTICS: 2 * sampled * each[STATISTICS],
        STEPS: (work.steps + STEPS_PER_MEASURED * work.times * work.validation) * each[STEPS],
        COMPRESSION: sampled * each[COMPRESSION],
        # The norms of two layers' features are measured first.
        REGIONS: (work.images + 2 * sampled) * each[REGIONS],
        MINING: work.images * each[MINING],
        SOLVING: solver_seconds(work, svm),
        CALIBRATION: work.calibration
        * (each[PROPOSALS] + DETECTED_MAPS * each[MAPS] + DETECTED_REGIONS * each[MINING]),
    }
    return {stage: took for stage, took in seconds.items() if stage not in work.finished}


def solver_seconds(work: Work, svm: SvmConfig) -> float:
    """Estimate what all trainings of all SVMs take: at the first image, on the way, at the end."""
    hard = HARD_PER_IMAGE * work.images
    first = svm.proposals_per_image or svm.retrain_after
    rows = work.objects + work.classes * min(svm.max_negatives, first + hard)
    trainings = 2 + hard / svm.retrain_after
    return trainings * rows * work.width * SOLVER_SECONDS


def fitting_steps(work: Work, costs: Costs, svm: SvmConfig, seconds: float) -> int:
    """The most steps up to `work.steps` that the time leaves room for.

    No fewer than `LEAST_STEPS`, or those of `work` where they are fewer. Invariant: so many steps
    fit, or they are the fewest.
    """
    others = sum(stage_seconds(replace(work, steps=0), costs, svm).values())
    each = costs.get(STEPS, 0.0)
    room, fewest = SAFE_SHARE * seconds - others, min(LEAST_STEPS, work.steps)
    if each * work.steps <= room:
        return work.steps
    return fewest if room <= 0 else max(fewest, int(room / each) // TENS * TENS)
