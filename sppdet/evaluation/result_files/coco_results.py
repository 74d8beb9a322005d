"""Detections in COCO's results format: a JSON list of image, category, box and score.

Format: cocodataset.org, "Results format", object detection. A box is `[x, y, width, height]`,
0-based, which is our half-open `(x, y, x + width, y + height)`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sppdet.core.errors import EvaluationError
from sppdet.core.files import atomic_write_text
from sppdet.core.types import Dataset, Detections
from sppdet.evaluation.coco_ap import to_xywh
from sppdet.evaluation.matching import flatten_detections
from sppdet.evaluation.result_files.voc_results import distinct_scores


def write_coco_detections(
    path: Path,
    dataset: Dataset,
    detections: Mapping[str, Detections],
    *,
    category_ids: Sequence[int] | None = None,
) -> int:
    """Write a JSON file in COCO's results format; the number of detections in it.

    Args:
        path: the file.
        dataset: the images and classes.
        detections: by image id.
        category_ids: the category id per class; by default 1, 2, ...

    An image id that is a whole number in plain digits is written as a number, as COCO's own are;
    others, such as VOC's `000012`, as text.

    Invariant: `read_coco_detections` gives the boxes back, and the scores as `distinct_scores` has
    them; not the margins.

    Raises:
        EvaluationError: detections or category ids that do not fit the data set.
    """
    ids = _category_ids(dataset, category_ids)
    flat = flatten_detections(dataset, detections)
    image_ids = [_json_image_id(sample.image_id) for sample in dataset]
    rows = zip(
        flat.images.tolist(),
        flat.labels.tolist(),
        to_xywh(flat.boxes),
        distinct_scores(flat).tolist(),
        strict=True,
    )
    items = [
        {"image_id": image_ids[i], "category_id": ids[k], "bbox": bbox, "score": score}
        for i, k, bbox, score in rows
    ]
    atomic_write_text(path, json.dumps(items, allow_nan=False) + "\n")
    return len(items)


def _json_image_id(image_id: str) -> int | str:
    plain = image_id.isascii() and image_id.isdigit() and image_id == image_id.lstrip("0")
    return int(image_id) if plain or image_id == "0" else image_id


def _category_ids(dataset: Dataset, category_ids: Sequence[int] | None) -> tuple[int, ...]:
    n = len(dataset.classes)
    ids = tuple(range(1, n + 1) if category_ids is None else category_ids)
    if len(ids) != n or len(set(ids)) != n:
        raise EvaluationError(
            f"{len(set(ids))} different category ids for {n} classes",
            path=dataset.name,
            hint="give each class its own id",
        )
    return ids


def read_coco_detections(
    path: Path, dataset: Dataset, *, category_ids: Sequence[int] | None = None
) -> dict[str, Detections]:
    """Read the detections of every image of `dataset` by image id, best score first.

    Raises:
        EvaluationError: the file is missing or not in COCO's results format, or names an image or
            category that the data set lacks; names the file and the entry.
    """
    labels = {c: k for k, c in enumerate(_category_ids(dataset, category_ids))}
    rows: dict[str, list[tuple[float, ...]]] = {sample.image_id: [] for sample in dataset}
    for number, item in enumerate(_read_list(path), start=1):
        where = f"{path}, entry {number}"
        image_id, category, numbers = _entry(item, where)
        if image_id not in rows:
            raise EvaluationError(
                f"image {image_id} is not in the data set",
                path=where,
                hint="evaluate on the split that the file was written for",
            )
        if category not in labels:
            raise EvaluationError(
                f"category {category} is not one of the data set's",
                path=where,
                hint="give the category id of each class",
            )
        rows[image_id].append((labels[category], *numbers))
    return {image_id: _image_detections(rows[image_id], dataset.classes) for image_id in rows}


def _image_detections(rows: list[tuple[float, ...]], classes: tuple[str, ...]) -> Detections:
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    table = table[np.argsort(-table[:, 5], kind="stable")]
    corners = np.concatenate([table[:, 1:3], table[:, 1:3] + table[:, 3:5]], axis=1)
    return Detections(
        corners.astype(np.float32),
        table[:, 5].astype(np.float32),
        table[:, 0].astype(np.int64),
        classes,
    )


def _read_list(path: Path) -> list[Any]:
    hint = "give a list of detections in COCO's results format"
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise EvaluationError("no such file", path=path, hint="check the path") from None
    except (OSError, ValueError, RecursionError) as error:
        raise EvaluationError(f"not readable as JSON ({error})", path=path, hint=hint) from None
    if not isinstance(document, list):
        raise EvaluationError("the document is not a list", path=path, hint=hint)
    return document


def _entry(item: Any, where: str) -> tuple[str, int, tuple[float, ...]]:
    """Parse image id (as text), category id, and x, y, width, height, score of an entry."""
    hint = "an entry has image_id, category_id, bbox [x, y, width, height] and score"
    if not isinstance(item, dict):
        raise EvaluationError("not an object", path=where, hint=hint)
    image_id, category, bbox = item.get("image_id"), item.get("category_id"), item.get("bbox")
    if not _is_number(category) or not isinstance(category, int):
        raise EvaluationError("no whole-number category_id", path=where, hint=hint)
    if not isinstance(image_id, str) and not (_is_number(image_id) and isinstance(image_id, int)):
        raise EvaluationError("no image_id of a whole number or a text", path=where, hint=hint)
    numbers = [*bbox, item.get("score")] if isinstance(bbox, list) else []
    if len(numbers) != 5 or not all(_is_number(v) for v in numbers):
        raise EvaluationError("no sound bbox or score", path=where, hint=hint)
    limit = float(np.finfo(np.float32).max)
    # nan fails the comparison; the margin keeps x + width within float32.
    if not all(abs(v) <= limit / 4 for v in numbers):
        raise EvaluationError("a number is not finite, or too large", path=where, hint=hint)
    if numbers[2] < 0 or numbers[3] < 0:
        raise EvaluationError("a negative width or height", path=where, hint=hint)
    return str(image_id), category, tuple(float(v) for v in numbers)


def _is_number(value: Any) -> bool:
    """Return whether a JSON value is a number; Python takes true and false for numbers too."""
    return isinstance(value, int | float) and not isinstance(value, bool)
