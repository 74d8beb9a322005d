"""COCO-format data sets: one JSON file and a folder of images -> a `Dataset`.

Format: cocodataset.org, "Data format", object detection. A box is `[x, y, width, height]`,
0-based, which is our half-open `(x, y, x + width, y + height)`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sppdet.datasets.common import MAX_SIDE, Box, ClassList, checked_box, class_list, confined
from sppdet.errors import AnnotationError, DatasetError
from sppdet.images import image_size
from sppdet.types import Dataset, Sample

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Objects:
    """The objects of one image, as they are gathered."""

    labels: list[int] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)


def load_coco(
    json_path: Path,
    image_dir: Path,
    classes: Sequence[str] | None = None,
    *,
    ignore_unknown: bool = False,
) -> Dataset:
    """The file's images in its order, with half-open boxes in original-image pixels.

    Args:
        json_path: annotations, such as `instances_val2017.json`.
        image_dir: the folder that the images' `file_name` is relative to.
        classes: category names to use, in the order of the labels; by default all of them, in
            the order of their ids.
        ignore_unknown: leave out objects of other categories, rather than refuse the file.

    A sample's `image_id` is the COCO id as text, and `difficult` is `iscrowd`. Images without
    objects are kept. Boxes of no area, of which COCO's own files have some, match nothing: they
    are left out, and a warning is logged with their number.

    Raises:
        DatasetError: the JSON file, the folder or an image is missing.
        AnnotationError: not COCO's format, an id twice, an annotation of an unknown image or
            category, an inverted or outside box; names the file and the annotation.
    """
    json_path, image_dir = Path(json_path), Path(image_dir)
    document = _read_json(json_path)
    if not image_dir.is_dir():
        raise DatasetError("no such image folder", where=image_dir, mend="check the path")
    categories = _by_id(document, "categories", json_path)
    category_names = {key: _text(item, "name", json_path) for key, item in categories.items()}
    if classes is None:
        classes = [category_names[key] for key in sorted(category_names)]
    names = class_list(classes, ignore_unknown=ignore_unknown)
    images = _by_id(document, "images", json_path)
    frames = {key: _frame(item, image_dir, json_path) for key, item in images.items()}
    objects = _gather(document, frames, category_names, names, json_path)
    samples = tuple(_sample(key, frames[key], objects.get(key, _Objects())) for key in frames)
    return Dataset(json_path.stem, names.names, samples)


def _gather(
    document: dict[str, Any],
    frames: dict[int, tuple[Path, int, int]],
    category_names: dict[int, str],
    classes: ClassList,
    where: Path,
) -> dict[int, _Objects]:
    """The objects of each image that has any, checked."""
    gathered: dict[int, _Objects] = {}
    empty = 0
    for number, item in enumerate(_items(document, "annotations", where), 1):
        what = f"annotation {item.get('id', f'number {number}')}"
        image_id, category = item.get("image_id"), item.get("category_id")
        if not isinstance(image_id, int) or image_id not in frames:
            raise _wrong(where, f"{what} is of image {image_id!r}, which is not listed")
        if not isinstance(category, int) or category not in category_names:
            raise _wrong(where, f"{what} is of category {category!r}, which is not listed")
        label = classes.label(category_names[category], where=where, what=what)
        box = _corners(item, what, where)
        if label is None:
            continue
        if box[0] == box[2] or box[1] == box[3]:
            empty += 1
            continue
        _, width, height = frames[image_id]
        objects = gathered.setdefault(image_id, _Objects())
        objects.labels.append(label)
        objects.boxes.append(checked_box(box, width, height, where=where, what=what))
        objects.crowd.append(bool(item.get("iscrowd", 0)))
    if empty:
        _log.warning("%s: %d boxes without area are left out", where, empty)
    return gathered


def _sample(image_id: int, frame: tuple[Path, int, int], objects: _Objects) -> Sample:
    path, width, height = frame
    return Sample(
        image_id=str(image_id),
        path=path,
        width=width,
        height=height,
        boxes=np.array(objects.boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.array(objects.labels, dtype=np.int64),
        difficult=np.array(objects.crowd, dtype=np.bool_),
    )


def _frame(item: dict[str, Any], image_dir: Path, where: Path) -> tuple[Path, int, int]:
    """An image's path, width and height; the size is looked up where the file leaves it out."""
    name = _text(item, "file_name", where)
    path = confined(image_dir, name, where=where)
    if not path.is_file():
        raise DatasetError(
            f"the image {name!r} of {where.name} is missing",
            where=path,
            mend="check the image folder, or restore the image",
        )
    sides = (item.get("width"), item.get("height"))
    if sides == (None, None):
        return (path, *image_size(path))
    if not all(isinstance(side, int) and 0 < side <= MAX_SIDE for side in sides):
        raise _wrong(where, f"image {item['id']} has the size {sides[0]!r} x {sides[1]!r}")
    return path, int(item["width"]), int(item["height"])


def _corners(item: dict[str, Any], what: str, where: Path) -> Box:
    bbox = item.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise _wrong(where, f"{what} has no bbox of four numbers")
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in bbox):
        raise _wrong(where, f"{what} has a bbox that is not four numbers: {bbox}")
    try:
        x, y, width, height = (float(v) for v in bbox)
    except OverflowError:
        raise _wrong(where, f"{what} has a bbox of absurdly large numbers") from None
    return x, y, x + width, y + height


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DatasetError("no such annotation file", where=path, mend="check the path") from None
    except OSError as error:
        raise DatasetError(
            f"cannot be read ({error.strerror})", where=path, mend="check the path"
        ) from None
    # RecursionError: a document nested thousands deep.
    except (ValueError, RecursionError) as error:
        raise AnnotationError(
            f"broken JSON ({error})", where=path, mend="correct or restore the file"
        ) from None
    if not isinstance(document, dict):
        raise _wrong(path, "the document is not an object")
    return document


def _items(document: dict[str, Any], key: str, where: Path) -> list[dict[str, Any]]:
    items = document.get(key)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _wrong(where, f"there is no list of objects named {key!r}")
    return items


def _by_id(document: dict[str, Any], key: str, where: Path) -> dict[int, dict[str, Any]]:
    out: dict[int, dict[str, Any]] = {}
    for number, item in enumerate(_items(document, key, where), 1):
        item_id = item.get("id")
        if not isinstance(item_id, int) or isinstance(item_id, bool):
            raise _wrong(where, f"number {number} of {key!r} has no whole-number id")
        if item_id in out:
            raise _wrong(where, f"{key!r} has the id {item_id} twice")
        out[item_id] = item
    return out


def _text(item: dict[str, Any], key: str, where: Path) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not value:
        raise _wrong(where, f"id {item['id']} has no {key!r}")
    return value


def _wrong(where: Path, problem: str) -> AnnotationError:
    return AnnotationError(problem, where=where, mend="give a COCO instances file, or correct it")
