"""COCO-format data sets: instances files in JSON, with their images found around them.

Format: cocodataset.org, "Data format", object detection. A box is `[x, y, width, height]`,
0-based, which is our half-open `(x, y, x + width, y + height)`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sppdet.core.errors import DatasetError, SppdetError
from sppdet.core.types import Dataset
from sppdet.datasets.annotations import ClassList, make_class_list
from sppdet.datasets.build import build_dataset
from sppdet.datasets.formats.coco_entries import (
    BROKEN_ENTRY,
    REPEATED_ID,
    Annotation,
    format_error,
    list_items,
    read_categories,
    read_document,
)
from sppdet.datasets.formats.coco_files import find_instances, is_instances_file, name_splits
from sppdet.datasets.formats.image_finder import (
    FolderListings,
    ImageFinder,
    find_bare_images,
    name_parts,
)
from sppdet.datasets.formats.json_values import as_key, as_number, as_size
from sppdet.datasets.raw import (
    BAD_OBJECT,
    BROKEN_SPLIT,
    DUPLICATE,
    STATED_SIZE,
    SUPER_CATEGORY,
    UNLISTED_CLASS,
    UNLISTED_IMAGE,
    Findings,
    RawDataset,
    RawImage,
    RawObject,
)
from sppdet.datasets.splits import is_list, match_splits

_log = logging.getLogger(__name__)

FORMAT = "COCO"

SAME_NAME = "class names of several categories, taken as one class"


class _File(NamedTuple):
    """One instances file: its images, its categories' names by id, and those that have objects."""

    images: list[RawImage]
    categories: dict[str, str]
    super_names: set[str]
    used: set[str]


def matches(source: Path) -> bool:
    """Tell if a file, or a file in a folder, is a COCO instances file."""
    if source.is_file():
        return is_instances_file(source)
    return bool(find_instances(source, FolderListings()))


def read(
    source: Path,
    findings: Findings,
    *,
    images: Path | None = None,
    within: Path | None = None,
    split: str | None = None,
) -> RawDataset:
    """Read an instances file, or all those of a folder: a split each.

    One that cannot be read is left out where there are others: its split is told, or nothing where
    `split` is another.

    Args:
        source: the file or folder.
        findings: gets what is wrong with single entries.
        images: the folder of images; by default they are looked for around each file.
        within: the folder that the search for images does not leave; by default any.
        split: the one that will be chosen.

    Raises:
        DatasetError: there is no such file.
        AnnotationError: the only file, or that of `split`, is not JSON, or has no lists of images,
            annotations, categories.
    """
    listings = FolderListings(within)
    files = find_instances(source, listings) if source.is_dir() else [source]
    if not files:
        raise DatasetError(
            "no COCO instances file in this folder",
            path=source,
            hint="give the folder that holds annotations/*.json, or the .json file itself",
        )
    names = dict(zip(files, name_splits(files), strict=True))
    wanted: tuple[str, ...] | None = None
    if split is not None and not is_list(split):
        wanted = match_splits([name for name in names.values() if name is not None], split)
    read_files: dict[Path, _File] = {}
    broken: list[SppdetError] = []
    for path, name in names.items():
        try:
            read_files[path] = _read_file(path, name, findings, images, listings)
        except SppdetError as error:
            broken.append(error)
            if wanted is None:
                findings.add(BROKEN_SPLIT, path, f"{name}: {error.message}")
            elif name in wanted:
                raise
    if not read_files:
        raise broken[0]
    found = [image for each in read_files.values() for image in each.images]
    is_whole = source.is_dir() or files == find_instances(files[0].parent, listings)
    if is_whole and not broken:
        find_bare_images(found, listings, findings)
    return RawDataset(
        format=FORMAT,
        name=source.stem if source.is_file() else source.absolute().name,
        images=found,
        classes=_class_names(files[0], list(read_files.values()), findings),
        splits=tuple(name for path in read_files if (name := names[path]) is not None),
    )


def category_ids(path: Path, classes: Sequence[str]) -> list[int]:
    """Return the file's id of each class, as COCO's results need them; a folder's first file's.

    Raises:
        AnnotationError: a class that the file does not list, or whose id is not a whole number.
    """
    if path.is_dir() and (files := find_instances(path, FolderListings())):
        path = files[0]
    ids: dict[str, int] = {}
    for item in list_items(read_document(path), "categories", path):
        key, name = as_key(item.get("id")), as_key(item.get("name"))
        if key is not None and name is not None and key.removeprefix("-").isdecimal():
            ids.setdefault(name, int(key))
    missing = [name for name in classes if name.strip() not in ids]
    if missing:
        raise format_error(path, f"no category of a whole-number id is named {missing[0]!r}")
    return [ids[name.strip()] for name in classes]


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
        image_dir: the folder of the images.
        classes: category names to use, in the order of the labels; by default all of them, in
            the order of their ids.
        ignore_unknown: leave out objects of other categories, rather than refuse the file.

    A sample's `image_id` is the COCO id as text, and `difficult` is `iscrowd`. Images without
    objects are kept. What is left out is logged with its number.

    Raises:
        DatasetError: the JSON file or the folder is missing, or much of the data set is unusable.
        AnnotationError: not COCO's format.
    """
    json_path, image_dir = Path(json_path), Path(image_dir)
    if not image_dir.is_dir():
        raise DatasetError("no such image folder", path=image_dir, hint="check the path")
    findings = Findings()
    raw = read(json_path, findings, images=image_dir)
    if classes is not None:
        _check_categories(raw, make_class_list(classes), ignore_unknown, json_path)
    dataset = build_dataset(
        raw, findings, classes=classes, allow_missing=ignore_unknown, path=json_path
    )
    for line in findings.lines():
        _log.warning("%s: %s", json_path, line.strip())
    return dataset


def _check_categories(
    raw: RawDataset, classes: ClassList, ignore_unknown: bool, path: Path
) -> None:
    """Raise AnnotationError for an object of another class, unless they are to be left out."""
    for image in [] if ignore_unknown else raw.images:
        for one in image.objects:
            classes.label(one.name, path=path, what=one.what)


def _read_file(
    path: Path,
    split: str | None,
    findings: Findings,
    images: Path | None,
    listings: FolderListings,
) -> _File:
    document = read_document(path)
    categories, super_names = read_categories(document, path, findings)
    by_key = _read_images(document, path, split, findings, images, listings)
    annotations = list_items(document, "annotations", path, of=Annotation)
    used: set[str] = set()
    for number, item in enumerate(annotations, 1):
        if not isinstance(item, Annotation):
            message = f"annotation number {number} has no image_id and category_id"
            findings.add(BAD_OBJECT, path, message, split)
            continue
        what = f"annotation {number if item.key is None else item.key}"
        image = by_key.get(as_key(item.image) or "")
        name = categories.get(as_key(item.category) or "")
        if image is None:
            message = f"{what} is of image {item.image!r:.60}, which is not listed"
            findings.add(UNLISTED_IMAGE, path, message, split)
        elif name is None:
            message = f"{what} is of category {item.category!r:.60}, which is not listed"
            findings.add(UNLISTED_CLASS, path, message, split)
            image.lost += 1
        elif item.box is None:
            message = f"{what} has no bbox of four numbers, and no polygon"
            findings.add(BAD_OBJECT, path, message, split)
            image.lost += 1
        else:
            used.add(name)
            image.objects.append(RawObject(name, item.box, what, crowd=item.crowd, area=item.area))
    return _File(list({id(i): i for i in by_key.values()}.values()), categories, super_names, used)


def _read_images(
    document: Any,
    path: Path,
    split: str | None,
    findings: Findings,
    images: Path | None,
    listings: FolderListings,
) -> dict[str, RawImage]:
    """Return the images by id, as text; one image for the ids of one file."""
    items: dict[str, dict[str, Any]] = {}
    for number, item in enumerate(list_items(document, "images", path), 1):
        key, name = as_key(item.get("id")), item.get("file_name")
        if key is None or not isinstance(name, str) or not name_parts(name):
            message = f"image number {number} has no id or no file_name"
            findings.add(BROKEN_ENTRY, path, message, split)
        elif key in items:
            findings.add(REPEATED_ID, path, f"image {key} ({name!r:.60}) is listed before", split)
        else:
            items[key] = item
    names = [(item["file_name"],) for item in items.values()]
    finder = ImageFinder(names, path.parent, images=images, split=split, listings=listings)
    by_path: dict[Path, RawImage] = {}
    out = {}
    for key, item in items.items():
        stated = item.get("width"), item.get("height")
        size = as_size(*stated)
        if size is None and any(as_number(side) != 0 for side in stated if side is not None):
            message = f"image {key} has the size {stated[0]!r:.40} x {stated[1]!r:.40}"
            findings.add(STATED_SIZE, path, message, split)
        image = RawImage(key, finder.locate(item["file_name"]), path, size, split=split)
        other = by_path.setdefault(image.path, image)
        if other is not image:
            message = f"images {other.image_id} and {key} are both {item['file_name']!r:.60}"
            findings.add(DUPLICATE, path, message, split)
        out[key] = other
    return out


def _class_names(path: Path, files: list[_File], findings: Findings) -> tuple[str, ...]:
    """Return the names of all files' categories, once each, in the order of their ids."""
    ids: dict[str, list[str]] = {}
    for each in files:
        for key, name in each.categories.items():
            if key not in ids.setdefault(name, []):
                ids[name].append(key)
    for name, keys in ids.items():
        if len(keys) > 1:
            message = f"{name!r} is the name of the categories {', '.join(keys)}"
            findings.add(SAME_NAME, path, message)
    used = {name for each in files for name in each.used}
    above = {name for each in files for name in each.super_names}
    for name in [name for name in ids if name in above and name not in used]:
        findings.add(SUPER_CATEGORY, path, f"{name!r} has no object of its own")
        del ids[name]
    return tuple(ids)
