"""From raw annotations of any format to a `Dataset`: sizes, classes, boxes, and what is wrong.

Nothing is silent: what is clipped or left out is found by kind in `Findings`. A few bad images or
objects are left out; too many, or a class that is lost by it, stop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sppdet.core.errors import AnnotationError, DatasetError
from sppdet.core.types import BoolArray, Dataset, FloatArray, IntArray, Sample
from sppdet.datasets.annotations import OUTSIDE_TOLERANCE
from sppdet.datasets.class_names import choose_classes, nearest_name, trim
from sppdet.datasets.image_sizes import SizedImage, measure_images
from sppdet.datasets.raw import (
    ALL_LOST,
    CLIPPED,
    EMPTY_BOX,
    LOST_IMAGES,
    LOST_OBJECTS,
    MISSING_IMAGE,
    NO_OBJECTS_HERE,
    NOT_ASKED,
    OUTSIDE,
    UNKNOWN_CLASS,
    UNUSABLE_IMAGES,
    Findings,
    RawDataset,
    RawObject,
)
from sppdet.datasets.splits import drop_repeats, is_list, match_splits, select_images

# Share of images, or of objects, that may be left out.
MAX_LOST = 0.1
# Findings of the reader and of this module that cost an image, or an object.
_LOST_IMAGES = LOST_IMAGES | UNUSABLE_IMAGES
_LOST_OBJECTS = LOST_OBJECTS | {EMPTY_BOX, OUTSIDE, UNKNOWN_CLASS}


@dataclass(slots=True)
class _Tally:
    """Objects per class, those kept, and what is lost; places of images that lost an object."""

    given: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    spoilt: set[int] = field(default_factory=set)
    lost_images: int = 0
    lost_objects: int = 0


def build_dataset(
    raw: RawDataset,
    findings: Findings | None = None,
    *,
    split: str | None = None,
    classes: Sequence[str] | None = None,
    allow_missing: bool = False,
    strict: bool = False,
    max_lost: float = MAX_LOST,
    with_pixels: bool = True,
    path: Path | None = None,
) -> Dataset:
    """Check raw annotations and make them a `Dataset`.

    Args:
        raw: as a reader gives it, all splits together.
        findings: what the reader found; gets what is found here. Those of other splits are
            dropped from it.
        split: as `select_images` takes it; None for all images.
        classes: names to keep, in their order; by default those of the data.
        allow_missing: whether some of `classes` may have no object at all (a model's classes).
        strict: refuse at the first finding that is more than a note.
        max_lost: share of images, or objects, that may be left out.
        with_pixels: as in `measure_images`. path: of the data set, named in messages.

    Raises:
        DatasetError: no images, a class asked for that nothing has, more than `max_lost` left
            out, a class lost by it.
        AnnotationError: with `strict`, the first finding.
    """
    findings = Findings() if findings is None else findings
    raw = drop_repeats(raw, findings)
    chosen = select_images(raw, split, path=path)
    _keep_findings(findings, raw, chosen, split)
    lost_by_reader = findings.counts()
    names = choose_classes(raw, classes, findings, allow_missing=allow_missing, path=path)
    tally = _Tally()
    sized = measure_images(chosen.images, findings, with_pixels=with_pixels)
    tally.lost_images = len(chosen.images) - len(sized)
    labels = {name: label for label, name in enumerate(names)}
    samples = _build_samples(sized, labels, tally, findings, is_asked=classes is not None)
    if not raw.fixed_classes:
        for name in (name for name in names if not tally.given[name]):
            findings.add(NO_OBJECTS_HERE, path or Path(raw.name), f"no object has {name!r}")
    if strict and (wrong := findings.wrong()):
        first = wrong[0]
        raise AnnotationError(
            f"{first.message} ({first.kind})", path=first.path, hint="correct it (strict)"
        )
    tally.lost_images += sum(lost_by_reader[kind] for kind in LOST_IMAGES)
    tally.lost_objects += sum(lost_by_reader[kind] for kind in LOST_OBJECTS)
    _check_losses(samples, tally, findings, max_lost, path)
    title = " and ".join(chosen.splits) if split is not None else ""
    return Dataset(f"{raw.name} {title}".strip(), names, tuple(samples))


def _keep_findings(
    findings: Findings, raw: RawDataset, chosen: RawDataset, split: str | None
) -> None:
    """Drop what the reader found in other splits, and for a list in the images that it lacks."""
    if split is None or chosen.splits == match_splits(raw.splits, split):
        findings.keep_splits(None if split is None else chosen.splits)
        return
    findings.keep_splits(tuple({image.split for image in chosen.images if image.split is not None}))
    # Also what it lost: a broken file that no list names is none of the list's.
    kept = {path for image in chosen.images for path in (image.path, image.source)}
    others = {path for image in raw.images for path in (image.path, image.source)} - kept
    is_lost = LOST_IMAGES if is_list(split) else frozenset[str]()
    findings.all = [
        one for one in findings.all if one.path not in others and one.kind not in is_lost
    ]


class _Objects(NamedTuple):
    """The objects of all images in a row, so that their boxes are clipped at once.

    Attributes:
        images: place of each object's image, int64 `(N,)`.
        objects: as read, those of other classes left out.
        labels: int64 `(N,)`.
        boxes: float32 `(N, 4)`, clipped.
        keep: bool `(N,)`, whether anything of the box is left.
    """

    images: IntArray
    objects: list[RawObject]
    labels: IntArray
    boxes: FloatArray
    keep: BoolArray


def _build_samples(
    sized: Sequence[SizedImage],
    labels: dict[str, int],
    tally: _Tally,
    findings: Findings,
    *,
    is_asked: bool,
) -> list[Sample]:
    row = _clip_boxes(sized, *_label_objects(sized, labels, tally, findings, is_asked), findings)
    names = list(labels)
    for counts, chosen in ((tally.given, row.labels), (tally.kept, row.labels[row.keep])):
        for label, count in enumerate(np.bincount(chosen, minlength=len(names)).tolist()):
            counts[names[label]] += count
    tally.lost_objects += int((~row.keep).sum())
    tally.spoilt.update(row.images[~row.keep].tolist())
    kept = [one for one, keep in zip(row.objects, row.keep.tolist(), strict=True) if keep]
    difficult = np.array([one.difficult or one.crowd for one in kept], np.bool_)
    areas = np.array([np.nan if one.area is None else one.area for one in kept], np.float32)
    boxes, kept_labels = row.boxes[row.keep], row.labels[row.keep]
    ends = np.searchsorted(row.images[row.keep], np.arange(len(sized) + 1)).tolist()
    samples = []
    for n, (image, (width, height)) in enumerate(sized):
        own = slice(ends[n], ends[n + 1])
        if ends[n] == ends[n + 1] and (image.lost or n in tally.spoilt):
            # It is no image without objects: what lies in it is not background.
            message = f"none of its objects can be used ({image.source.name})"
            findings.add(ALL_LOST, image.path, message, image.split)
            tally.lost_images += 1
            continue
        is_stated = ends[n] < ends[n + 1] and not np.isnan(areas[own]).any()
        samples.append(
            Sample(
                image_id=image.image_id,
                path=image.path,
                width=width,
                height=height,
                boxes=boxes[own],
                labels=kept_labels[own],
                difficult=difficult[own],
                areas=areas[own] if is_stated else None,
            )
        )
    return samples


def _label_objects(
    sized: Sequence[SizedImage],
    labels: dict[str, int],
    tally: _Tally,
    findings: Findings,
    is_asked: bool,
) -> tuple[list[int], list[RawObject], list[int]]:
    """List the objects of known classes: places of their images, themselves, their labels."""
    written: dict[str, int | None] = {}
    advice: dict[str, str] = {}
    images, objects, chosen = [], [], []
    for n, (image, _) in enumerate(sized):
        for one in image.objects:
            if one.name not in written:
                written[one.name] = labels.get(trim(one.name))
            label = written[one.name]
            if label is not None:
                images.append(n)
                objects.append(one)
                chosen.append(label)
                continue
            if one.name not in advice:
                near = None if is_asked else nearest_name(one.name, labels)
                advice[one.name] = "" if near is None else f"; did you mean {near!r}?"
            message = f"{one.what} ({trim(one.name)}){advice[one.name]}"
            # Who names classes wants the others left out; a class list that lacks one is a fault.
            kind = NOT_ASKED if is_asked else UNKNOWN_CLASS
            findings.add(kind, image.source, message, image.split)
            if not is_asked:
                tally.lost_objects += 1
                tally.spoilt.add(n)
    return images, objects, chosen


def _clip_boxes(
    sized: Sequence[SizedImage],
    images: list[int],
    objects: list[RawObject],
    labels: list[int],
    findings: Findings,
) -> _Objects:
    """Clip all boxes to their images; find those that left them, and those with nothing left."""
    places = np.array(images, np.int64)
    limits = np.array([one.size for one in sized], np.float64).reshape(-1, 2)[places][:, [0, 1] * 2]
    boxes = np.array([one.box for one in objects], np.float64).reshape(-1, 4)
    relative = np.array([one.relative for one in objects], np.bool_)
    with np.errstate(invalid="ignore", over="ignore"):
        boxes[relative] *= limits[relative]
        clipped = np.clip(boxes, 0.0, limits)
        is_box: BoolArray = np.all(np.isfinite(boxes), axis=1)
        is_box &= np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
        ends = clipped.astype(np.float32)
        is_inside: BoolArray = np.all(ends[:, 2:] > ends[:, :2], axis=1)
        moved = np.abs(clipped - boxes).max(axis=1, initial=0.0) > OUTSIDE_TOLERANCE
    keep = is_box & is_inside
    for n in np.flatnonzero(~keep | moved).tolist():
        kind, problem = CLIPPED, "leaves its"
        if not is_box[n]:
            kind, problem = EMPTY_BOX, "is empty, inverted or not finite in its"
        elif not is_inside[n]:
            kind, problem = OUTSIDE, "is outside its"
        image, (width, height) = sized[images[n]]
        message = f"{objects[n].what} ({trim(objects[n].name)}) {problem} {width}x{height} image "
        shown = ", ".join(f"{v:g}" for v in boxes[n].tolist())
        message += f"(x1, y1, x2, y2 = {shown})"
        findings.add(kind, image.source, message, image.split)
    return _Objects(places, objects, np.array(labels, np.int64), ends, keep)


def _check_losses(
    samples: Sequence[Sample],
    tally: _Tally,
    findings: Findings,
    max_lost: float,
    path: Path | None,
) -> None:
    """Stop if nothing, or too little, is left."""
    lost, kept = tally.lost_images, len(samples)
    gone, objects = tally.lost_objects, tally.kept.total()
    classes = [name for name, count in tally.given.items() if count and not tally.kept[name]]
    problem, kinds = None, _LOST_OBJECTS
    if not samples and not lost:
        problem = "has no images"
    elif lost > max_lost * (lost + kept) or not samples:
        problem, kinds = f"{lost} of {lost + kept} images cannot be used", _LOST_IMAGES
    elif gone > max_lost * (gone + objects):
        problem = f"{gone} of {gone + objects} objects cannot be used"
    elif classes and max_lost < 1:
        problem = f"no object of {', '.join(classes)} can be used"
    if problem is None:
        return
    # What was left out without being counted is the reason of nothing but an empty set.
    causes = _LOST_IMAGES | _LOST_OBJECTS | {ALL_LOST}
    wrong = [one for one in findings.wrong() if one.kind in causes or not (samples or lost)]
    kinds_told = Counter(one.kind for one in wrong)
    counts = "; ".join(f"{kind}: {count}" for kind, count in kinds_told.items())
    is_missing = kinds is _LOST_IMAGES and 2 * kinds_told[MISSING_IMAGE] > lost
    # Where images are left without objects, the first of these tells why.
    wrong.sort(key=lambda one: (one.kind not in kinds, one.kind not in _LOST_OBJECTS))
    ways = ", name the folder of the images with --images" if is_missing else ""
    ways += ", or go on without them: --lenient" if samples else ""
    first = "".join(f"; the first is {one.path}: {one.message}" for one in wrong[:1])
    raise DatasetError(
        problem + (f" ({counts}){first}" if counts else ""),
        path=path,
        hint=f"correct them (`sppdet data check` names all){ways}",
    )
