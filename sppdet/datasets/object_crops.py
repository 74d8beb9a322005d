"""Cutting the objects of an annotated data set out into one folder per class."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from PIL import Image

from sppdet.core.errors import DatasetError, ImageError, SppdetError
from sppdet.core.files import new_folder
from sppdet.core.images import read_sample
from sppdet.core.progress import NullProgress, Progress
from sppdet.core.types import Dataset, Sample

JPEG_QUALITY = 95


@dataclass(frozen=True, slots=True)
class CropCounts:
    """Crops written per class, number of objects left out, and errors of unusable images."""

    crops: dict[str, int]
    left_out: int
    problems: tuple[SppdetError, ...]


def crop_bounds(
    box: Sequence[float], margin: float, width: int, height: int
) -> tuple[int, int, int, int]:
    """Expand a box by `margin` of its sides, clip it, and round it outwards to whole pixels.

    Returns half-open `x1, y1, x2, y2` in an image of `width` x `height`.
    Invariant: holds the box; with margin 0 and a box of whole pixels, equals it.
    """
    x1, y1, x2, y2 = (float(value) for value in box)
    dx, dy = margin * (x2 - x1), margin * (y2 - y1)
    left, top = max(0, math.floor(x1 - dx)), max(0, math.floor(y1 - dy))
    return left, top, min(width, math.ceil(x2 + dx)), min(height, math.ceil(y2 + dy))


def write_object_crops(
    dataset: Dataset,
    folder: Path,
    *,
    margin: float = 0.0,
    difficult: bool = False,
    min_side: int = 1,
    progress: Progress | None = None,
) -> CropCounts:
    """Write each object to `folder/<class>/<image id>_<number>.jpg`, and count them.

    `folder` must not exist or be empty, and appears whole. An image that cannot be read is named
    in the result, and the rest are written. Objects are numbered from 1 per image, those that are
    left out included; a class without crops has no folder.

    Args:
        dataset: annotated images.
        folder: holds the folders of the classes.
        margin: context on each side, as a share of the box's width and height.
        difficult: also write objects flagged difficult.
        min_side: leave out boxes with a side shorter than this many pixels.
        progress: shows how far the work is; None shows nothing.

    Raises:
        DatasetError: `folder` is taken; a class's name cannot be a folder's; two images would
            have one file; no object is left.
    """
    if margin < 0 or not math.isfinite(margin):
        raise DatasetError(f"the margin is {margin}", hint="give a share of the box, 0 or more")
    _check_names(dataset.classes)
    counts: Counter[str] = Counter()
    objects = 0
    problems: list[SppdetError] = []
    task = (progress or NullProgress()).task(f"{dataset.name}: crops", len(dataset))
    with new_folder(Path(folder)) as part, task as advance:
        for sample in dataset:
            objects += len(sample.labels)
            chosen = _select_objects(sample, difficult, min_side)
            try:
                _write_crops(sample, chosen, margin, dataset.classes, part, counts)
            except ImageError as error:
                problems.append(error)
            advance(1)
        if not counts:
            named = f": {problems[0]}" if problems else ""
            raise DatasetError(f"{dataset.name} gives no crops{named}", hint="check the data set")
    crops = {name: counts[name] for name in dataset.classes if counts[name]}
    return CropCounts(crops, objects - counts.total(), tuple(problems))


def _select_objects(sample: Sample, difficult: bool, min_side: int) -> list[int]:
    """Return the indices of the objects to write."""
    sides = (sample.boxes[:, 2:] - sample.boxes[:, :2]).min(axis=1, initial=math.inf)
    return [
        index
        for index, side in enumerate(sides)
        if side >= min_side and (difficult or not sample.difficult[index])
    ]


def _write_crops(
    sample: Sample,
    chosen: list[int],
    margin: float,
    classes: tuple[str, ...],
    folder: Path,
    counts: Counter[str],
) -> None:
    if not chosen:
        return
    image = read_sample(sample)
    for index in chosen:
        name = classes[int(sample.labels[index])]
        box = sample.boxes[index].tolist()
        left, top, right, bottom = crop_bounds(box, margin, sample.width, sample.height)
        (folder / name).mkdir(exist_ok=True)
        stem = sample.image_id.replace("/", "-").replace("\\", "-")
        path = folder / name / f"{stem}_{index + 1}.jpg"
        if path.exists():
            raise DatasetError(
                "two images would be called so",
                path=path.relative_to(folder),
                hint=f"rename {sample.image_id}",
            )
        stream = io.BytesIO()
        crop = Image.fromarray(image[top:bottom, left:right])
        crop.save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        path.write_bytes(stream.getvalue())
        counts[name] += 1


def _check_names(classes: tuple[str, ...]) -> None:
    for name in classes:
        parts = {*PurePosixPath(name).parts, *PureWindowsPath(name).parts}
        if parts != {name} or name.startswith(".") or "\0" in name:
            raise DatasetError(
                f"the class {name!r} cannot be a folder's name", hint="rename the class"
            )
