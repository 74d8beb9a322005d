"""VOC result files, `<competition>_det_<split>_<class>.txt`: one detection a line.

A line is `<image id> <score> <left> <top> <right> <bottom>`, the lines in any order. Boxes are
1-based and their last pixel is included (VOC devkit documentation, detection task): a half-open
0-based box `x1 x2` is `x1+1 x2` there.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from sppdet.errors import EvaluationError
from sppdet.evaluation.matching import Candidates, flatten_detections
from sppdet.files import atomic_write_text
from sppdet.types import Dataset, Detections

# comp3: trained on that year's VOC trainval alone. comp4: on anything but VOC test, so every
# detector whose backbone has seen ImageNet.
Competition = Literal["comp3", "comp4"]

# Significant digits of a coordinate: enough that a float32 of at least 1/1000 pixel comes back
# bit for bit, and whole numbers stay whole.
COORDINATE_DIGITS = 12
# A score has `%f`'s decimals, and more where it needs them to come back bit for bit: rounding
# would make ties, which change the order and with it the AP.
SCORE_DECIMALS = 6
# A box inverted by less than this, in pixels, is one without width that a program rounded.
ROUNDING = 1e-3

_Row = tuple[int, float, float, float, float, float]


def voc_file_name(
    class_name: str, *, split: str, competition: Competition = "comp4", salt: str = ""
) -> str:
    """The result file's name; a salt keeps runs apart (`comp4-<salt>_det_...`).

    Raises:
        EvaluationError: a part that would not make a plain file name.
    """
    for part in (class_name, split, *([salt] if salt else [])):
        if not part or "\0" in part or part != part.strip() or set(part) & set("/\\"):
            raise EvaluationError(f"{part!r} cannot be part of a file name", mend="rename it")
    prefix = f"{competition}-{salt}" if salt else competition
    return f"{prefix}_det_{split}_{class_name}.txt"


def write_voc_detections(
    folder: Path,
    dataset: Dataset,
    detections: Mapping[str, Detections],
    *,
    split: str,
    competition: Competition = "comp4",
    salt: str = "",
) -> tuple[Path, ...]:
    """The paths of the files written, one a class in the data set's order, empty or not.

    Law: `read_voc_detections` gives the same detections back, with the same AP to the last bit.

    Raises:
        EvaluationError: detections that do not fit the data set, an image id with a blank in it,
            or a class or split name that would not make a file name.
    """
    candidates = flatten_detections(dataset, detections)
    for sample in dataset:
        if sample.image_id.split() != [sample.image_id]:
            raise EvaluationError(
                f"image id {sample.image_id!r} has a blank in it",
                where=dataset.name,
                mend="rename the image: VOC result files separate by blanks",
            )
    paths = tuple(
        folder / voc_file_name(name, split=split, competition=competition, salt=salt)
        for name in dataset.classes
    )
    for label, path in enumerate(paths):
        mine = candidates.take(np.flatnonzero(candidates.labels == label))
        atomic_write_text(path, "".join(_lines(dataset, mine)))
    return paths


def _lines(dataset: Dataset, mine: Candidates) -> list[str]:
    boxes = mine.boxes.astype(np.float64)
    boxes[:, :2] += 1
    return [
        f"{dataset.samples[image].image_id} {_score_text(score)} "
        + " ".join(f"{v:.{COORDINATE_DIGITS}g}" for v in box)
        + "\n"
        for image, score, box in zip(mine.images.tolist(), mine.scores, boxes.tolist(), strict=True)
    ]


def _score_text(score: np.float32) -> str:
    return np.format_float_positional(score, unique=True, min_digits=SCORE_DECIMALS)


def read_voc_detections(
    folder: Path,
    dataset: Dataset,
    *,
    split: str,
    competition: Competition = "comp4",
    salt: str = "",
) -> dict[str, Detections]:
    """The detections of every image of `dataset` by image id, best score first.

    Reads one file a class of the data set; ties keep the order of classes and lines.

    Raises:
        EvaluationError: a file is missing, or a line is malformed or names an image that the
            data set lacks; names the file and the line.
    """
    positions = {sample.image_id: i for i, sample in enumerate(dataset)}
    rows: list[_Row] = []
    labels: list[int] = []
    for label, name in enumerate(dataset.classes):
        path = folder / voc_file_name(name, split=split, competition=competition, salt=salt)
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
    """Image position, score, and 1-based inclusive box of each line."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise EvaluationError(
            "the result file is missing",
            where=path,
            mend="every class needs one, empty if nothing was found; check the split's name",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"the file cannot be read ({error})", where=path) from None
    rows: list[_Row] = []
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.split()
        if not fields:
            continue
        where = f"{path}, line {number}"
        if fields[0] not in positions:
            raise EvaluationError(
                f"image {fields[0]} is not in the data set",
                where=where,
                mend="evaluate on the split that the file was written for",
            )
        score, x1, y1, x2, y2 = _numbers(fields[1:], where)
        rows.append((positions[fields[0]], score, x1, y1, x2, y2))
    return rows


def _numbers(fields: list[str], where: str) -> tuple[float, float, float, float, float]:
    """The score and the box of a line; EvaluationError if they are not five sound numbers."""
    mend = "a line is: image id, score, left, top, right, bottom"
    if len(fields) != 5:
        raise EvaluationError(f"{len(fields) + 1} fields, not 6", where=where, mend=mend)
    try:
        score, x1, y1, x2, y2 = (float(field) for field in fields)
    except ValueError:
        raise EvaluationError("a field is not a number", where=where, mend=mend) from None
    limit = float(np.finfo(np.float32).max)
    # nan fails the comparison.
    if not all(abs(v) <= limit for v in (score, x1, y1, x2, y2)):
        raise EvaluationError("a number is not finite, or too large", where=where, mend=mend)
    if x2 - (x1 - 1) < -ROUNDING or y2 - (y1 - 1) < -ROUNDING:
        raise EvaluationError("the box is inverted", where=where, mend=mend)
    return score, x1, y1, x2, y2
