"""Checking a data set of any format: all that is wrong with it, and what it consists of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sppdet.core.errors import AnnotationError, DatasetError
from sppdet.core.types import Dataset
from sppdet.datasets.build import build_dataset
from sppdet.datasets.load import describe, read_dataset
from sppdet.datasets.raw import NOTES, Findings, RawDataset
from sppdet.datasets.splits import select_images
from sppdet.datasets.tools.duplicates import find_duplicates, fingerprint_all

DAMAGED = "images that are damaged or cut short"

# Boxes smaller than this by area are small, as COCO counts (32 x 32 pixels).
SMALL_AREA = 32.0**2

_QUANTILES = (0, 10, 50, 90, 100)


@dataclass(slots=True)
class Problem:
    """One kind of what is wrong: how often, and all of it by name."""

    count: int
    named: list[str]


@dataclass(slots=True)
class DataReport:
    """The state of a data set; `to_dict` gives it for JSON.

    Attributes:
        source: the data set's path.
        summary: one line: format, images, boxes, classes, splits.
        problems: by kind, in the order of their first.
        notes: the same of what costs nothing and is seldom a mistake.
        refused: for each split (`all` for all together) that training or evaluation would refuse,
            why.
        images: per split, the number of usable images.
        images_without_objects: per split.
        classes: per class, the objects in each split.
        box_sides: quantiles 0, 10, 50, 90, 100 % of the square roots of the boxes' areas, pixels.
        small_share: share of the boxes smaller than 32 x 32 pixels.
        image_sizes: the most frequent sizes, `640x480`, with their numbers.
        image_sides: quantiles of the images' longer sides.
        duplicates: pairs of images by kind: `same file within a split`, ... .
    """

    source: str
    summary: str
    problems: dict[str, Problem] = field(default_factory=dict)
    notes: dict[str, Problem] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    images_without_objects: dict[str, int] = field(default_factory=dict)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    box_sides: list[float] = field(default_factory=list)
    small_share: float = 0.0
    image_sizes: dict[str, int] = field(default_factory=dict)
    image_sides: list[float] = field(default_factory=list)
    duplicates: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    @property
    def problem_count(self) -> int:
        """How many things are wrong, of all kinds."""
        return sum(one.count for one in self.problems.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the report as values for JSON."""
        return {**asdict(self), "problem_count": self.problem_count}


def check_dataset(
    source: Path | str,
    *,
    format: str | None = None,
    classes: Sequence[str] | None = None,
    images: Path | None = None,
    year: int | None = None,
    split: str | None = None,
    duplicates: bool = True,
) -> DataReport:
    """Read all of a data set and report on it.

    Args:
        source, format, classes, images, year, split: as `load_dataset` takes them.
        duplicates: decode all images, to find damaged ones and duplicates.

    Raises:
        DatasetError, AnnotationError: what cannot be understood at all, as `load_dataset`.
    """
    source = Path(source)
    findings = Findings()
    raw = read_dataset(source, findings, split, format=format, images=images, year=year)
    if split is not None:
        raw = select_images(raw, split, path=source)
        findings.keep_splits(raw.splits)
    report = DataReport(str(source), describe(raw))
    by_reader = list(findings.all)
    try:
        dataset = build_dataset(raw, findings, classes=classes, max_lost=1.0, path=source)
    except DatasetError as error:
        if classes is not None:  # asked for, and not there
            raise
        report.refused["all"] = str(error)
        dataset = Dataset(raw.name, (), ())
    _try_splits(raw, by_reader, classes, source, report)
    splits = _split_of_images(raw)
    _count(dataset, splits, report)
    if duplicates:
        _compare_images(dataset, splits, findings, report)
    for kind, count in findings.counts().items():
        named = [one.line for one in findings.of(kind)]
        (report.notes if kind in NOTES else report.problems)[kind] = Problem(count, named)
    return report


def format_report(report: DataReport) -> str:
    """Format a report as text for people."""
    lines = [report.summary]
    for split, count in report.images.items():
        empty = report.images_without_objects[split]
        images = f"{count} image{'s' * (count != 1)}"
        lines.append(f"{split}: {images}, {empty} of them without objects")
    for name, counts in report.classes.items():
        each = ", ".join(f"{count} in {split}" for split, count in counts.items())
        lines.append(f"  {name}: {each}")
    if report.image_sizes:
        sizes = ", ".join(f"{count} of {size}" for size, count in report.image_sizes.items())
        lines.append(f"image sizes: {sizes}; longer sides {_range(report.image_sides)}")
    if report.box_sides:
        lines.append(
            f"box sizes: {_range(report.box_sides)}; "
            f"{100 * report.small_share:.3g} % smaller than 32 x 32 pixels"
        )
    for kind, pairs in report.duplicates.items():
        lines.append(f"pairs of {kind}: {len(pairs)}")
        lines += [f"  {first} and {second}" for first, second in pairs]
    for kind, problem in (*report.notes.items(), *report.problems.items()):
        lines.append(f"{'note: ' * (kind in report.notes)}{kind}: {problem.count}")
        lines += [f"  {line}" for line in problem.named]
    if not report.problems:
        lines.append("nothing is wrong")
    for split, why in report.refused.items():
        lines.append(f"{split} cannot be used as it is: {why}")
    return "\n".join(lines)


def _range(quantiles: Sequence[float]) -> str:
    least, low, middle, high, most = quantiles
    return (
        f"{least:.0f} to {most:.0f} pixels, half up to {middle:.0f}, 80 % {low:.0f} to {high:.0f}"
    )


def _try_splits(
    raw: RawDataset,
    by_reader: Iterable[Any],
    classes: Sequence[str] | None,
    source: Path,
    report: DataReport,
) -> None:
    """Find out which splits would be refused."""
    for split in (None, *raw.splits):
        own = Findings()
        own.all = list(by_reader)
        try:
            build_dataset(raw, own, split=split, classes=classes, allow_missing=True, path=source)
        except (DatasetError, AnnotationError) as error:
            # The rest of the hint is to call what writes this report.
            way = "name the folder of the images with --images"
            hint = f"; {way}" if way in error.hint else ""
            report.refused[split or "all"] = error.message + hint


def _split_of_images(raw: RawDataset) -> dict[Path, list[str]]:
    splits: dict[Path, list[str]] = {}
    for image in raw.images:
        splits.setdefault(image.path, []).append(image.split or "all")
    return splits


def _count(dataset: Dataset, splits: dict[Path, list[str]], report: DataReport) -> None:
    names = list(dict.fromkeys(name for each in splits.values() for name in each))
    report.images = dict.fromkeys(names, 0)
    report.images_without_objects = dict.fromkeys(names, 0)
    report.classes = {name: dict.fromkeys(names, 0) for name in dataset.classes}
    for sample in dataset:
        counts = Counter(sample.labels.tolist())
        for name in splits.get(sample.path, ()):
            report.images[name] += 1
            report.images_without_objects[name] += not counts
            for label, count in counts.items():
                report.classes[dataset.classes[label]][name] += count
    sizes = Counter(f"{sample.width}x{sample.height}" for sample in dataset)
    report.image_sizes = dict(sizes.most_common(5))
    if len(dataset):
        report.image_sides = _quantiles([max(s.width, s.height) for s in dataset])
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(s.boxes for s in dataset)])
    if len(boxes):
        areas = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64).prod(axis=1)
        report.box_sides = _quantiles(np.sqrt(areas).tolist())
        report.small_share = float((areas < SMALL_AREA).mean())


def _quantiles(values: Sequence[float]) -> list[float]:
    return [round(float(value), 1) for value in np.percentile(values, _QUANTILES)]


def _compare_images(
    dataset: Dataset, splits: dict[Path, list[str]], findings: Findings, report: DataReport
) -> None:
    paths = [sample.path for sample in dataset]
    prints = fingerprint_all(paths)
    for path, one in zip(paths, prints, strict=True):
        if one.problem:
            findings.add(DAMAGED, path, one.problem)
    for pair in find_duplicates(prints):
        first, second = paths[pair.first], paths[pair.second]
        within = bool({*splits.get(first, ())} & {*splits.get(second, ())})
        what = "images of the same bytes" if pair.exact else "nearly the same images"
        kind = f"{what} {'within a split' if within else 'in different splits'}"
        report.duplicates.setdefault(kind, []).append((str(first), str(second)))
