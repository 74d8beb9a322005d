"""The entries of a COCO instances file, made small while the file is parsed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sppdet.core.errors import AnnotationError
from sppdet.datasets.annotations import Box
from sppdet.datasets.formats.json_values import as_key, as_number, as_numbers, enclose, read_json
from sppdet.datasets.raw import Findings

BROKEN_ENTRY = "entries of COCO files that cannot be understood, left out"
REPEATED_ID = "ids that stand twice; the first is used"

# Square pixels; no image is larger, and float32 holds it.
MAX_AREA = 1e30


class Annotation(NamedTuple):
    """What is used of an annotation; `box` is None where there is none that can be used."""

    key: Any
    image: Any
    category: Any
    box: Box | None
    crowd: bool
    area: float | None


def read_document(path: Path) -> Any:
    """Parse a file; its annotations come as `Annotation` values.

    Raises:
        DatasetError, AnnotationError: as `read_json`.
    """
    return read_json(path, _compact)


def _compact(item: dict[str, Any]) -> Any:
    """Replace an annotation while it is parsed: masks would take most of the memory."""
    if "image_id" not in item or "category_id" not in item:
        return item
    area = as_number(item.get("area"))
    return Annotation(
        item.get("id"),
        item["image_id"],
        item["category_id"],
        _box(item),
        item.get("iscrowd") is True or as_number(item.get("iscrowd")) not in (None, 0),
        area if area is not None and abs(area) < MAX_AREA else None,
    )


def _box(item: dict[str, Any]) -> Box | None:
    """Return an annotation's box; its polygons' where it has none, or one without area."""
    bbox = as_numbers(item.get("bbox"))
    if bbox is None or len(bbox) != 4:
        return _polygon_box(item.get("segmentation"))
    x, y, width, height = bbox
    if not width or not height:
        around = _polygon_box(item.get("segmentation"))
        if around is not None:
            return around
    box = x, y, x + width, y + height
    return box if all(map(math.isfinite, box)) else None


def _polygon_box(segmentation: Any) -> Box | None:
    if not isinstance(segmentation, list):
        return None
    rings = segmentation if all(isinstance(r, list) for r in segmentation) else [segmentation]
    flat = [ring for ring in map(as_numbers, rings) if ring and len(ring) >= 4]
    points = [(ring[i], ring[i + 1]) for ring in flat for i in range(0, len(ring) - 1, 2)]
    return enclose(points) if points else None


def read_categories(
    document: Any, path: Path, findings: Findings
) -> tuple[dict[str, str], set[str]]:
    """Return the names by id, as text, in the order of ids; and the names of super-categories."""
    names: dict[str, str] = {}
    super_names: set[str] = set()
    for number, item in enumerate(list_items(document, "categories", path), 1):
        key, name = as_key(item.get("id")), as_key(item.get("name"))
        if key is None or name is None:
            findings.add(BROKEN_ENTRY, path, f"category number {number} has no id or no name")
        elif key in names:
            findings.add(REPEATED_ID, path, f"category {key} ({name!r}) is listed before")
        else:
            names[key] = name
            super_name = as_key(item.get("supercategory"))
            if super_name is not None and super_name != name:
                super_names.add(super_name)
    ordered = sorted(names, key=_id_order)
    return {key: names[key] for key in ordered}, super_names


def _id_order(key: str) -> tuple[bool, int, str]:
    """Sort whole numbers by value, before texts."""
    number = key.removeprefix("-").isdecimal() and len(key) < 20
    return not number, int(key) if number else 0, key


def list_items(document: Any, key: str, path: Path, *, of: type[Any] = dict) -> Iterator[Any]:
    """Yield the entries of a list of the document; those that are no objects as empty ones."""
    items = document.get(key) if isinstance(document, dict) else None
    if not isinstance(items, list):
        raise format_error(path, f"there is no list of objects named {key!r}")
    return (item if isinstance(item, of) else {} for item in items)


def format_error(path: Path, problem: str) -> AnnotationError:
    return AnnotationError(problem, path=path, hint="give a COCO instances file, or correct it")
