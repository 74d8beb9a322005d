"""Label Studio's exports: JSON, and its short form JSON-MIN.

Format: labelstud.io, "Export annotations". Boxes are in percent of the image's sides, turned by
`rotation` degrees about their top left corner.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sppdet.core.errors import AnnotationError
from sppdet.core.images import IMAGE_SUFFIXES
from sppdet.datasets.annotations import Box
from sppdet.datasets.formats.export_files import find_exports, name_exports, name_images
from sppdet.datasets.formats.image_finder import FolderListings, ImageFinder, name_parts
from sppdet.datasets.formats.json_values import (
    as_number,
    as_numbers,
    as_points,
    as_size,
    enclose,
    ends_of_file,
    read_json,
    rotate,
)
from sppdet.datasets.raw import (
    BAD_OBJECT,
    NO_IMAGE,
    OTHER_SHAPE,
    ROTATED,
    UNLABELED,
    Findings,
    RawDataset,
    RawImage,
    RawObject,
)

FORMAT = "Label Studio JSON"

SEVERAL = "images labeled more than once, the first labels taken"

_LABELS = ("rectanglelabels", "polygonlabels", "ellipselabels", "labels")
_OTHER_LABELS = ("brushlabels", "keypointlabels")
# An upload is stored under its name behind some digits.
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{6,}-(?=.)", re.IGNORECASE)


def matches(source: Path) -> bool:
    """Tell if a file, or a file in a folder, is an export of Label Studio."""
    files = find_exports(source, ".json", _is_export, FolderListings())
    return any(_is_export(path) for path in files)


def read(
    source: Path, findings: Findings, *, images: Path | None = None, within: Path | None = None
) -> RawDataset:
    """Read an export, or those of a folder: a split each.

    Args:
        source: the file or folder.
        findings: gets what is wrong with single images and objects.
        images: the folder of images; by default they are looked for around the file.
        within: the folder that the search for images does not leave; by default any.

    Raises:
        DatasetError: no such file, or several exports in the folder.
        AnnotationError: not Label Studio's format.
    """
    listings = FolderListings(within)
    files = find_exports(source, ".json", _is_export, listings)
    splits = name_exports(source, files, "Label Studio")
    found: list[RawImage] = []
    for path, split in zip(files, splits, strict=True):
        found += _read_file(path, split, findings, images, listings)
    for image, name in zip(found, name_images([image.path for image in found]), strict=True):
        image.image_id = name
    return RawDataset(
        format=FORMAT,
        name=source.stem if source.is_file() else source.absolute().name,
        images=found,
        splits=tuple(split for split in splits if split is not None),
    )


def _is_export(path: Path) -> bool:
    text = ends_of_file(path)
    tasks = '"data"' in text and ('"annotations"' in text or '"completions"' in text)
    regions = any(f'"{word}"' in text for word in ("original_width", *_LABELS[:3]))
    return path.suffix.lower() == ".json" and text.startswith("[") and (tasks or regions)


def _read_file(
    path: Path,
    split: str | None,
    findings: Findings,
    images: Path | None,
    listings: FolderListings,
) -> list[RawImage]:
    document = read_json(path)
    if not isinstance(document, list):
        raise AnnotationError(
            "the document is not a list of tasks",
            path=path,
            hint="export the project from Label Studio as JSON or JSON-MIN",
        )
    named = []
    for number, task in enumerate(document, 1):
        what = f"task {task.get('id', f'number {number}') if isinstance(task, dict) else number}"
        name = _image_name(task) if isinstance(task, dict) else None
        if name is None:
            findings.add(NO_IMAGE, path, f"{what} names no image", split)
        else:
            named.append((what, name, task))
    finder = ImageFinder(
        [(name, _original(name)) for _, name, _ in named],
        path.parent,
        images=images,
        split=split,
        listings=listings,
    )
    out = []
    for what, name, task in named:
        regions = _regions(task, path, what, findings, split)
        if regions is None:
            continue
        place = finder.find(name) or finder.locate(_original(name), name)
        image = RawImage(name, place, path, split=split)
        sizes = [as_size(r.get("original_width"), r.get("original_height")) for r in regions]
        image.size = next((size for size in sizes if size is not None), None)
        for number, region in enumerate(regions, 1):
            image.objects += _objects(region, f"{what}, region {number}", image, findings)
        out.append(image)
    return out


def _image_name(task: dict[str, Any]) -> str | None:
    """Return the name of a task's image, whatever its key and storage are."""
    data = task.get("data")
    values = [*(data if isinstance(data, dict) else task).values(), task.get("file_upload")]
    names = [_plain(value) for value in values if isinstance(value, str)]
    lasts = [(name, name_parts(name)[-1:]) for name in names]
    return next(
        (name for name, last in lasts if last and Path(last[0]).suffix.lower() in IMAGE_SUFFIXES),
        None,
    )


def _plain(address: str) -> str:
    """Take a file's name out of an address, such as `/data/local-files/?d=photos/a%20b.jpg`."""
    _, local, name = address.partition("?d=")
    return unquote(name if local else address.partition("?")[0]).replace("\0", "")


def _original(name: str) -> str:
    """Return an uploaded file's name as it was before."""
    folder, slash, last = name.replace("\\", "/").rpartition("/")
    return folder + slash + _UPLOAD_PREFIX.sub("", last)


def _regions(
    task: dict[str, Any], path: Path, what: str, findings: Findings, split: str | None
) -> list[dict[str, Any]] | None:
    """Return the labeled regions of a task; None if nobody labeled it."""
    given = task.get("annotations", task.get("completions"))
    if "data" not in task and not isinstance(given, list):  # JSON-MIN
        lists = [value for value in task.values() if isinstance(value, list)]
        return [item for values in lists for item in values if isinstance(item, dict)]
    done = [
        one["result"]
        for one in (given if isinstance(given, list) else [])
        if isinstance(one, dict)
        and isinstance(one.get("result"), list)
        and not one.get("was_cancelled")
    ]
    if not done:
        findings.add(UNLABELED, path, f"{what} has no annotation", split)
        return None
    if len(done) > 1:
        findings.add(SEVERAL, path, f"{what} has {len(done)} annotations", split)
    return [item for item in done[0] if isinstance(item, dict)]


def _objects(
    region: dict[str, Any], what: str, image: RawImage, findings: Findings
) -> Iterator[RawObject]:
    """Yield a region's objects: one for each of its labels."""
    value = region.get("value", region)
    if not isinstance(value, dict) or not ({"x", "points", "rle"} & value.keys()):
        return  # of the whole image, or a relation
    labels = _labels(value, _LABELS)
    if not labels:
        other = _labels(value, _OTHER_LABELS)
        # A rectangle without labels stands beside one of the same id that has them.
        if other:
            findings.add(OTHER_SHAPE, image.source, f"{what} ({other[0]})", image.split)
        elif region.get("type") not in ("rectangle", "polygon", "ellipse"):
            findings.add(BAD_OBJECT, image.source, f"{what} has no label", image.split)
            image.lost += 1
        return
    box = _box(region, value)
    if box is None:
        message = f"{what} ({labels[0]}) has no whole box"
        findings.add(BAD_OBJECT, image.source, message, image.split)
        image.lost += 1
        return
    if as_number(value.get("rotation")):
        findings.add(ROTATED, image.source, f"{what} ({labels[0]})", image.split)
    for label in labels:
        yield RawObject(label, box, what, relative=True)


def _labels(value: dict[str, Any], keys: Sequence[str]) -> list[str]:
    lists = [value[key] for key in keys if isinstance(value.get(key), list)]
    return [name for names in lists for name in names if isinstance(name, str) and name.strip()]


def _box(region: dict[str, Any], value: dict[str, Any]) -> Box | None:
    """Return the upright box around a region, in shares of the image's sides."""
    points = as_points(value.get("points"))
    if points is not None:
        box = enclose(points)
    elif "radiusX" in value:
        ellipse = as_numbers([value.get(key) for key in ("x", "y", "radiusX", "radiusY")])
        if ellipse is None:
            return None
        x, y, across, down = ellipse
        box = x - across, y - down, x + across, y + down
    else:
        sides = as_numbers([value.get(key) for key in ("x", "y", "width", "height")])
        if sides is None:
            return None
        x, y, width, height = sides
        box = x, y, x + width, y + height
    degrees = as_number(value.get("rotation")) or 0.0
    size = as_size(region.get("original_width"), region.get("original_height"))
    if degrees:
        if size is None:
            return None
        x1, y1, x2, y2 = (v * side for v, side in zip(box, size * 2, strict=True))
        center = ((x1 + x2) / 2, (y1 + y2) / 2) if "radiusX" in value else (x1, y1)
        turned = rotate((x1, y1, x2, y2), degrees, center)
        x1, y1, x2, y2 = (v / side for v, side in zip(turned, size * 2, strict=True))
        box = x1, y1, x2, y2
    x1, y1, x2, y2 = box
    return x1 / 100, y1 / 100, x2 / 100, y2 / 100
