"""COCO-format data sets: one JSON file and a folder of images -> a `Dataset`.

Format: cocodataset.org, "Data format", object detection. A box is `[x, y, width, height]`,
0-based, which is our half-open `(x, y, x + width, y + height)`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sppdet.core.errors import AnnotationError, DatasetError
from sppdet.core.images import image_size
from sppdet.core.types import Dataset
from sppdet.datasets.annotations import (
    MAX_SIDE,
    Box,
    ClassList,
    LabeledBox,
    check_box,
    confine_path,
    make_class_list,
    make_sample,
)

_log = logging.getLogger(__name__)


def load_coco(
    json_path: Path,
    image_dir: Path,
    classes: Sequence[str] | None = None,
    *,
    ignore_unknown: bool = False,
) -> Dataset:
    """Read a COCO instances file: its images in order, half-open boxes in image pixels.

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
        raise DatasetError("no such image folder", path=image_dir, hint="check the path")
    categories = _by_id(document, "categories", json_path)
    category_names = {key: _text(item, "name", json_path) for key, item in categories.items()}
    if classes is None:
        classes = [category_names[key] for key in sorted(category_names)]
    names = make_class_list(classes, ignore_unknown=ignore_unknown)
    images = {
        key: _read_image(item, image_dir, json_path)
        for key, item in _by_id(document, "images", json_path).items()
    }
    objects = _read_objects(document, images, category_names, names, json_path)
    samples = tuple(
        make_sample(str(key), path, size, objects.get(key, []))
        for key, (path, size) in images.items()
    )
    return Dataset(json_path.stem, names.names, samples)


def _read_objects(
    document: dict[str, Any],
    images: dict[int, tuple[Path, tuple[int, int]]],
    category_names: dict[int, str],
    classes: ClassList,
    json_path: Path,
) -> dict[int, list[LabeledBox]]:
    """Return the checked objects of each image that has any."""
    objects: dict[int, list[LabeledBox]] = {}
    empty = 0
    for number, item in enumerate(_items(document, "annotations", json_path), 1):
        what = f"annotation {item.get('id', f'number {number}')}"
        image_id, category = item.get("image_id"), item.get("category_id")
        if not isinstance(image_id, int) or image_id not in images:
            raise _format_error(json_path, f"{what} is of image {image_id!r}, which is not listed")
        if not isinstance(category, int) or category not in category_names:
            raise _format_error(
                json_path, f"{what} is of category {category!r}, which is not listed"
            )
        label = classes.label(category_names[category], path=json_path, what=what)
        box = _corners(item, what, json_path)
        if label is None:
            continue
        if box[0] == box[2] or box[1] == box[3]:
            empty += 1
            continue
        width, height = images[image_id][1]
        box = check_box(box, width, height, path=json_path, what=what)
        crowd = bool(item.get("iscrowd", 0))
        objects.setdefault(image_id, []).append(LabeledBox(label, box, crowd))
    if empty:
        _log.warning("%s: %d boxes without area are left out", json_path, empty)
    return objects


def _read_image(
    item: dict[str, Any], image_dir: Path, json_path: Path
) -> tuple[Path, tuple[int, int]]:
    """Return an image's path and (width, height), read off the image if the file has none."""
    name = _text(item, "file_name", json_path)
    path = confine_path(image_dir, name, path=json_path)
    if not path.is_file():
        raise DatasetError(
            f"the image {name!r} of {json_path.name} is missing",
            path=path,
            hint="check the image folder, or restore the image",
        )
    width, height = item.get("width"), item.get("height")
    if width is None and height is None:
        return path, image_size(path)
    if not all(isinstance(side, int) and 0 < side <= MAX_SIDE for side in (width, height)):
        raise _format_error(json_path, f"image {item['id']} has the size {width!r} x {height!r}")
    return path, (int(item["width"]), int(item["height"]))


def _corners(item: dict[str, Any], what: str, json_path: Path) -> Box:
    bbox = item.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise _format_error(json_path, f"{what} has no bbox of four numbers")
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in bbox):
        raise _format_error(json_path, f"{what} has a bbox that is not four numbers: {bbox}")
    try:
        x, y, width, height = (float(v) for v in bbox)
    except OverflowError:
        raise _format_error(json_path, f"{what} has a bbox of absurdly large numbers") from None
    return x, y, x + width, y + height


def _read_json(json_path: Path) -> dict[str, Any]:
    try:
        document = json.loads(json_path.read_bytes())
    except FileNotFoundError:
        raise DatasetError(
            "no such annotation file", path=json_path, hint="check the path"
        ) from None
    except OSError as error:
        raise DatasetError(
            f"cannot be read ({error.strerror})", path=json_path, hint="check the path"
        ) from None
    # RecursionError: a document nested thousands deep.
    except (ValueError, RecursionError) as error:
        raise AnnotationError(
            f"broken JSON ({error})", path=json_path, hint="correct or restore the file"
        ) from None
    if not isinstance(document, dict):
        raise _format_error(json_path, "the document is not an object")
    return document


def _items(document: dict[str, Any], key: str, json_path: Path) -> list[dict[str, Any]]:
    items = document.get(key)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _format_error(json_path, f"there is no list of objects named {key!r}")
    return items


def _by_id(document: dict[str, Any], key: str, json_path: Path) -> dict[int, dict[str, Any]]:
    items: dict[int, dict[str, Any]] = {}
    for number, item in enumerate(_items(document, key, json_path), 1):
        item_id = item.get("id")
        if not isinstance(item_id, int) or isinstance(item_id, bool):
            raise _format_error(json_path, f"number {number} of {key!r} has no whole-number id")
        if item_id in items:
            raise _format_error(json_path, f"{key!r} has the id {item_id} twice")
        items[item_id] = item
    return items


def _text(item: dict[str, Any], key: str, json_path: Path) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not value:
        raise _format_error(json_path, f"id {item['id']} has no {key!r}")
    return value


def _format_error(json_path: Path, problem: str) -> AnnotationError:
    return AnnotationError(
        problem, path=json_path, hint="give a COCO instances file, or correct it"
    )
