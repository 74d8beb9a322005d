"""VOC result files, `comp4_det_<split>_<class>.txt`: one detection per line.

A line is `<image id> <score> <left> <top> <right> <bottom>`, the lines in any order. Boxes are
1-based and their last pixel is included (VOC devkit documentation, detection task): a half-open
0-based box `x1 x2` is `x1+1 x2` there.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np

from sppdet.core.errors import EvaluationError
from sppdet.core.files import atomic_write_text
from sppdet.core.types import Dataset, Detections, FloatArray
from sppdet.evaluation.matching import FlatDetections, flatten_detections

# Trained on anything but VOC test, as is every detector with a backbone from ImageNet.
COMPETITION = "comp4"

# Significant digits of a coordinate: enough that a float32 of at least 1/1000 pixel comes back
# bit for bit, and whole numbers stay whole.
COORDINATE_DIGITS = 12
# A score has `%f`'s decimals, and more where it needs them to come back bit for bit: rounding
# would make ties, which change the order and with it the AP.
SCORE_DECIMALS = 6
# A box inverted by less than this, in pixels, is one without width that a program rounded.
ROUNDING = 1e-3
# The bits of a float32 but its sign.
_MAGNITUDE = 0x7FFFFFFF

# Bytes of a file's name: what file systems take, less what a temporary name beside it adds.
MAX_NAME_BYTES = 255 - 16

_Row = tuple[int, float, float, float, float, float]


def voc_file_name(class_name: str, *, split: str) -> str:
    """Name of a class's result file.

    Raises:
        EvaluationError: a part that would not make a plain file name.
    """
    for part in (class_name, split):
        if not part or "\0" in part or part != part.strip() or set(part) & set("/\\"):
            raise EvaluationError(f"{part!r} cannot be part of a file name", hint="rename it")
    name = f"{COMPETITION}_det_{split}_{class_name}.txt"
    if len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        raise EvaluationError(f"{name[:40]!r}.. is too long for a file name", hint="shorten it")
    return name


def check_voc_names(dataset: Dataset, *, split: str) -> None:
    """Check that class names, image ids and the split can stand in VOC result files.

    Raises:
        EvaluationError: an image id with a blank in it or that is no text, or a class or split
            name that would not make a file name.
    """
    for sample in dataset:
        has_blank = sample.image_id.split() != [sample.image_id]
        if has_blank or not _is_text(sample.image_id):
            problem = "has a blank in it" if has_blank else "is no text"
            raise EvaluationError(
                f"image id {sample.image_id!r} {problem}",
                path=dataset.name,
                hint="rename the image: VOC result files are text, separated by blanks",
            )
    for name in dataset.classes:
        if not _is_text(voc_file_name(name, split=split)):
            raise EvaluationError(f"class {name!r} is no text", hint="rename it")


def _is_text(value: str) -> bool:
    """Tell whether UTF-8 can hold it: a file's name may have bytes that are no characters."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def write_voc_detections(
    folder: Path, dataset: Dataset, detections: Mapping[str, Detections], *, split: str
) -> tuple[Path, ...]:
    """Write a result file per class, empty or not; their paths in the data set's order.

    Invariant: `read_voc_detections` gives the same boxes and AP back, to the last bit, and the
    scores as `distinct_scores` has them; not the margins.

    Raises:
        EvaluationError: detections that do not fit the data set, or as `check_voc_names`.
    """
    flat = flatten_detections(dataset, detections)
    check_voc_names(dataset, split=split)
    paths = tuple(folder / voc_file_name(name, split=split) for name in dataset.classes)
    for label, path in enumerate(paths):
        of_class = flat.take(np.flatnonzero(flat.labels == label))
        atomic_write_text(path, "".join(_lines(dataset, of_class)))
    return paths


def distinct_scores(flat: FlatDetections) -> FloatArray:
    """`float32 (N,)`: the scores, lowered in their last bits where they do not rank as margins do.

    Near 1 float32 holds the probabilities of different margins as one number, and files have no
    margins: whoever reads them would rank otherwise.

    Invariant: within a class, scores are equal where margins are, and in the same order.
    """
    out = flat.scores.copy()
    for label in np.unique(flat.labels):
        own = np.flatnonzero(flat.labels == label)
        _, first, rank = np.unique(-flat.margins[own], return_index=True, return_inverse=True)
        # As whole numbers that rank like the floats: one less is the next float below.
        bits = flat.scores[own[first]].view(np.int32).astype(np.int64)
        steps = np.where(bits < 0, -(bits & _MAGNITUDE), bits)
        place = np.arange(len(steps))
        lowered = np.minimum.accumulate(steps + place) - place
        bits = np.where(lowered < 0, -lowered | ~_MAGNITUDE, lowered).astype(np.int32)
        changed = (lowered != steps)[rank]
        out[own[changed]] = bits.view(np.float32)[rank[changed]]
    return out


def _lines(dataset: Dataset, flat: FlatDetections) -> list[str]:
    boxes = flat.boxes.astype(np.float64)
    boxes[:, :2] += 1
    rows = zip(flat.images.tolist(), distinct_scores(flat), boxes.tolist(), strict=True)
    return [
        f"{dataset.samples[image].image_id} {_score_text(score)} "
        + " ".join(f"{v:.{COORDINATE_DIGITS}g}" for v in box)
        + "\n"
        for image, score, box in rows
    ]


def _score_text(score: np.float32) -> str:
    return np.format_float_positional(score, unique=True, min_digits=SCORE_DECIMALS)


def read_voc_detections(folder: Path, dataset: Dataset, *, split: str) -> dict[str, Detections]:
    """Read the detections of every image of `dataset` by image id, best score first.

    There is one file per class of the data set; ties keep the order of classes and lines.

    Raises:
        EvaluationError: a file is missing, or a line is malformed or names an image that the
            data set lacks; names the file and the line.
    """
    positions = {sample.image_id: i for i, sample in enumerate(dataset)}
    rows: list[_Row] = []
    labels: list[int] = []
    for label, name in enumerate(dataset.classes):
        path = folder / voc_file_name(name, split=split)
        found = _read_file(path, positions)
        rows += found
        labels += [label] * len(found)
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    images, scores = table[:, 0].astype(np.int64), table[:, 1].astype(np.float32)
    boxes = (table[:, 2:] - [1, 1, 0, 0]).astype(np.float32)
    boxes[:, :2] = np.minimum(boxes[:, :2], boxes[:, 2:])
    label_of = np.array(labels, dtype=np.int64)
    order = np.lexsort((-scores, images))
    ends = np.searchsorted(images[order], np.arange(len(dataset) + 1))
    ranks = [order[start:end] for start, end in pairwise(ends)]
    return {
        sample.image_id: Detections(boxes[rank], scores[rank], label_of[rank], dataset.classes)
        for sample, rank in zip(dataset, ranks, strict=True)
    }


def _read_file(path: Path, positions: Mapping[str, int]) -> list[_Row]:
    """Read image position, score, and 1-based inclusive box of each line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise EvaluationError(
            "the result file is missing",
            path=path,
            hint="every class needs one, empty if nothing was found; check the split's name",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"the file cannot be read ({error})", path=path) from None
    rows: list[_Row] = []
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.split()
        if not fields:
            continue
        where = f"{path}, line {number}"
        if fields[0] not in positions:
            raise EvaluationError(
                f"image {fields[0]} is not in the data set",
                path=where,
                hint="evaluate on the split that the file was written for",
            )
        score, x1, y1, x2, y2 = _numbers(fields[1:], where)
        rows.append((positions[fields[0]], score, x1, y1, x2, y2))
    return rows


def _numbers(fields: list[str], where: str) -> tuple[float, float, float, float, float]:
    """Parse the score and the box of a line.

    Raises EvaluationError where they are not five sound numbers.
    """
    hint = "a line is: image id, score, left, top, right, bottom"
    if len(fields) != 5:
        raise EvaluationError(f"{len(fields) + 1} fields, not 6", path=where, hint=hint)
    try:
        score, x1, y1, x2, y2 = (float(field) for field in fields)
    except ValueError:
        raise EvaluationError("a field is not a number", path=where, hint=hint) from None
    limit = float(np.finfo(np.float32).max)
    # nan fails the comparison.
    if not all(abs(v) <= limit for v in (score, x1, y1, x2, y2)):
        raise EvaluationError("a number is not finite, or too large", path=where, hint=hint)
    if x2 - (x1 - 1) < -ROUNDING or y2 - (y1 - 1) < -ROUNDING:
        raise EvaluationError("the box is inverted", path=where, hint=hint)
    return score, x1, y1, x2, y2
