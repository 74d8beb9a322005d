"""Object crops: the objects of an annotated data set, cut out into a folder for each class."""

from __future__ import annotations

import io
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from PIL import Image

from sppdet.errors import DatasetError, SppdetError
from sppdet.images import read_sample
from sppdet.progress import NullProgress, Progress
from sppdet.types import Dataset, Sample

JPEG_QUALITY = 95
_FOLDER_MODE = 0o755


@dataclass(frozen=True, slots=True)
class CropCounts:
    """What was written: crops by class, objects left out, and the images that gave an error."""

    crops: dict[str, int]
    left_out: int
    problems: tuple[SppdetError, ...]


def crop_bounds(
    box: Sequence[float], margin: float, width: int, height: int
) -> tuple[int, int, int, int]:
    """Half-open pixels `x1 y1 x2 y2` of the crop of a box in an image of `width` x `height`.

    The box grows by `margin` of its sides in each direction and is cut off at the image's edge.
    Law: holds the box; with margin 0 and a box of whole pixels, equals it.
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
    """Write each object to `folder/<class>/<image id>_<number>.jpg`; counts what was written.

    `folder` must not exist or be empty, and appears whole. An image that cannot be read is named
    in the result, and the rest are written. Objects are numbered from 1 in each image, those that
    are left out included; a class without crops has no folder.

    Args:
        dataset: annotated images.
        folder: gets the folders of the classes.
        margin: context on each side, as a share of the box's width and height.
        difficult: also write objects flagged difficult.
        min_side: leave out boxes with a side shorter than this many pixels.
        progress: is told how far the work is.

    Raises DatasetError: `folder` is taken; a class's name cannot be a folder's; two images would
    have one file; no object is left.
    """
    if margin < 0 or not math.isfinite(margin):
        raise DatasetError(f"the margin is {margin}", mend="give a share of the box, 0 or more")
    _check_names(dataset.classes)
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError("is already there", where=folder, mend="delete it, or name another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
    counts: Counter[str] = Counter()
    objects = 0
    problems: list[SppdetError] = []
    try:
        with (progress or NullProgress()).task(f"{dataset.name}: crops", len(dataset)) as advance:
            for sample in dataset:
                chosen = _chosen(sample, difficult, min_side)
                objects += len(sample.labels)
                try:
                    _write(sample, chosen, margin, dataset.classes, part, counts)
                except DatasetError:
                    raise
                except SppdetError as error:
                    problems.append(error)
                advance(1)
        if not counts:
            named = f": {problems[0]}" if problems else ""
            raise DatasetError(f"{dataset.name} gives no crops{named}", mend="check the data set")
        part.chmod(_FOLDER_MODE)
        part.replace(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    crops = {name: counts[name] for name in dataset.classes if counts[name]}
    return CropCounts(crops, objects - counts.total(), tuple(problems))


def _chosen(sample: Sample, difficult: bool, min_side: int) -> list[int]:
    """The objects of an image that are wanted, by index."""
    sides = (sample.boxes[:, 2:] - sample.boxes[:, :2]).min(axis=1, initial=math.inf)
    return [
        index
        for index, side in enumerate(sides)
        if side >= min_side and (difficult or not sample.difficult[index])
    ]


def _write(
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
        bounds = crop_bounds(sample.boxes[index].tolist(), margin, sample.width, sample.height)
        left, top, right, bottom = bounds
        (folder / name).mkdir(exist_ok=True)
        stem = sample.image_id.replace("/", "-").replace("\\", "-")
        path = folder / name / f"{stem}_{index + 1}.jpg"
        if path.exists():
            raise DatasetError(
                "two images would be called so",
                where=path.relative_to(folder),
                mend=f"rename {sample.image_id}",
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
                f"the class {name!r} cannot be a folder's name", mend="rename the class"
            )
