"""Detections to be evaluated: of a model, kept as they come, or read from result files."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sppdet.cli.common import Failures, format_cost, load_detector, say, use_threads, warn
from sppdet.cli.dataset import OpenData, count_images, match_classes
from sppdet.cli.evaluation.unseen import warn_of_training_images
from sppdet.cli.result_files import read_results, result_kinds, write_detections
from sppdet.core.errors import EvaluationError, SppdetError
from sppdet.outputs.places import check_folder

if TYPE_CHECKING:
    from sppdet.core.types import Dataset, Detections
    from sppdet.detection.detector import Detector
    from sppdet.detection.ensemble import Ensemble
    from sppdet.detection.kept_detections import KeptDetections


@dataclass(frozen=True)
class ModelOptions:
    """The options that name a model and say how it detects."""

    model: str
    config: Path | None = None
    changes: Sequence[str] | None = None
    cache: Path | None = None
    device: str = "cpu"
    threads: int | None = None


@dataclass(frozen=True)
class Found:
    """What there is to evaluate.

    Attributes:
        dataset: the images whose detections there are.
        detections: by image id.
        left_out: images that cannot be used, which `dataset` lacks: a line for each.
        made: names and values that tell how it came about.
    """

    dataset: Dataset
    detections: Mapping[str, Detections]
    left_out: Sequence[str] = ()
    made: Sequence[tuple[str, str]] = ()

    def finish(self) -> None:
        """Leave with exit code 1 if there were images that cannot be used."""
        if self.left_out:
            total = len(self.dataset) + len(self.left_out)
            count = f"{len(self.left_out)} of {total} images cannot be used"
            warn(f"{count}: all figures are of the others")
            raise typer.Exit(1)


def find_results(results: Path, opened: OpenData) -> Found:
    """Read the detections that some tool wrote."""
    dataset = opened.load(with_pixels=False)
    made = [("results", str(results))]
    if results.is_file():
        from sppdet.core.files import file_digest

        made.append(("their SHA-256", file_digest(results)))
    found = read_results(results, opened, dataset)
    return Found(_without(dataset, opened.lost_images()), found, opened.lost_images(), made)


def detect_with_model(
    options: ModelOptions, opened: OpenData, out: Path, tell: Callable[[str], None] = say
) -> Found:
    """Detect on every image that can be read, and write result files into `out`; `tell` prints it.

    Whatever can be known before the first image is checked before it. Detections are kept in `out`
    as they come, and the same command goes on from them; they are deleted when all are there.
    """
    from sppdet.core.jit import warm_up
    from sppdet.detection.kept_detections import KeptDetections, detector_key

    if options.cache is not None:
        check_folder(options.cache)
    use_threads(options.threads)
    detector = load_detector(options.model, options.device, options.config, options.changes)
    dataset = opened.load(match_classes(detector.classes, opened))
    tell(count_images(dataset))
    warn_of_training_images(options.model, opened)
    kinds = result_kinds(opened, dataset)
    kept = KeptDetections(out, detector_key(options.model, detector), detector.classes)
    warm_up()
    start = time.perf_counter()
    detections, failures = _detect(detector, dataset, options, kept, tell)
    left_out = [*opened.lost_images(), *(str(error) for error in failures.errors.values())]
    dataset = _without(dataset, left_out, failures.errors)
    write_detections(out, opened, dataset, detections, kinds)
    if not failures.errors:
        kept.remove()
    seconds = time.perf_counter() - start
    tell(f"{len(dataset)} images detected in {format_cost(seconds)}\n")
    return Found(dataset, detections, left_out, _describe_model(options))


def _detect(
    detector: Detector | Ensemble,
    dataset: Dataset,
    options: ModelOptions,
    kept: KeptDetections,
    tell: Callable[[str], None],
) -> tuple[dict[str, Detections], Failures[str]]:
    """Detections by image id, and the errors of images that cannot be read."""
    from sppdet.cli.terminal.progress import terminal_progress
    from sppdet.detection.dataset_inference import attempt_dataset

    known = {sample.image_id: kept.get(sample) for sample in dataset}
    found = {image_id: one for image_id, one in known.items() if one is not None}
    if found:
        tell(f"{len(found)} images are known from an earlier run: {kept.path}")
    rest = replace(
        dataset, samples=tuple(sample for sample in dataset if sample.image_id not in found)
    )
    failures: Failures[str] = Failures()
    with terminal_progress().task("detecting", len(rest)) as advance:
        outcomes = attempt_dataset(detector, rest, options.cache, workers=options.threads or 0)
        for sample, outcome in outcomes:
            advance(1)
            if isinstance(outcome, SppdetError):
                failures.add(sample.image_id, outcome)
            else:
                kept.add(sample, outcome)
                found[sample.image_id] = outcome
    return found, failures


def _without(dataset: Dataset, left_out: Sequence[str], failed: Collection[str] = ()) -> Dataset:
    """Leave out the images that failed, and say in the name that some are left out."""
    if not left_out:
        return dataset
    if len(failed) == len(dataset):
        raise EvaluationError(
            "none of its images can be used", path=dataset.name, hint="repair them"
        )
    return replace(
        dataset,
        name=f"{dataset.name}, without {len(left_out)} that cannot be used",
        samples=tuple(one for one in dataset if one.image_id not in failed),
    )


def _describe_model(options: ModelOptions) -> list[tuple[str, str]]:
    from sppdet.core.files import file_digest
    from sppdet.detection.model_zoo import find_members

    made = [("model", options.model)]
    for path in dict.fromkeys(one.path for one in find_members(options.model)):
        made.append((f"SHA-256 of {path.name}", file_digest(path)))
    return made
