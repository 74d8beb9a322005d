"""LabelMe's files: a JSON file per image, with shapes given by points in pixels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from sppdet.core.errors import DatasetError, SppdetError
from sppdet.core.images import IMAGE_SUFFIXES
from sppdet.datasets.annotations import Box
from sppdet.datasets.formats.export_files import name_images
from sppdet.datasets.formats.image_finder import (
    FolderListings,
    ImageFinder,
    find_bare_images,
    name_parts,
    split_in_name,
)
from sppdet.datasets.formats.json_values import (
    as_points,
    as_size,
    enclose,
    ends_of_file,
    read_json,
)
from sppdet.datasets.raw import (
    BAD_OBJECT,
    BROKEN_ANNOTATION,
    OTHER_SHAPE,
    Findings,
    RawDataset,
    RawImage,
    RawObject,
)

FORMAT = "LabelMe JSON"

# Files looked into to tell the format.
MAX_LOOKED_AT = 5
_FOLDERS = ("annot", "label", "json")


def matches(source: Path) -> bool:
    """Tell if a file, or the first files of a folder, are LabelMe's."""
    if source.is_file():
        return _is_labelme(source)
    files = [path for paths in _files(source, FolderListings()).values() for path in paths]
    return any(_is_labelme(path) for path in files[:MAX_LOOKED_AT])


def read(
    source: Path, findings: Findings, *, images: Path | None = None, within: Path | None = None
) -> RawDataset:
    """Read a file, or all of a folder and of those in it that are named after splits.

    Args:
        source: the file or folder.
        findings: gets what is wrong with single files and objects.
        images: the folder of images; by default they are looked for around the files.
        within: the folder that the search for images does not leave; by default any.

    Raises:
        DatasetError: there is no such file.
    """
    listings = FolderListings(within)
    groups = {source.parent: [source]} if source.is_file() else _files(source, listings)
    if not groups:
        raise DatasetError(
            "no LabelMe file in this folder",
            path=source,
            hint="give the folder that holds the .json files",
        )
    found: list[RawImage] = []
    told: set[Path] = set()
    splits: list[str] = []
    for folder, paths in groups.items():
        split = split_in_name(folder.name) if folder != source and source.is_dir() else None
        if split is not None and split not in splits:
            splits.append(split)
        found += _read_folder(folder, paths, split, findings, images, listings, told)
    for image, name in zip(found, name_images([image.path for image in found]), strict=True):
        image.image_id = name
    if source.is_dir():
        find_bare_images(found, listings, findings, told)
    name = source.stem if source.is_file() else source.absolute().name
    return RawDataset(FORMAT, name, found, splits=tuple(splits))


def _is_labelme(path: Path) -> bool:
    text = ends_of_file(path)
    return path.suffix.lower() == ".json" and '"shapes"' in text and '"imagePath"' in text


def _files(source: Path, listings: FolderListings) -> dict[Path, list[Path]]:
    """List the JSON files by folder: in the folder itself, else in those that are made for it."""

    def inside(folder: Path) -> list[Path]:
        names = sorted(n for n in listings.files(folder) if n.lower().endswith(".json"))
        return [folder / name for name in names]

    groups = {source: inside(source)}
    if not groups[source]:
        for folder in listings.folders(source):
            if folder.name.lower().startswith(_FOLDERS) or split_in_name(folder.name):
                groups[folder] = inside(folder)
    return {folder: paths for folder, paths in groups.items() if paths}


def _read_folder(
    folder: Path,
    paths: list[Path],
    split: str | None,
    findings: Findings,
    images: Path | None,
    listings: FolderListings,
    told: set[Path],
) -> list[RawImage]:
    """Read the files of a folder; images of those that cannot be read are added to `told`."""
    broken: list[Path] = []
    documents: list[tuple[Path, dict[str, Any]]] = []
    for path in paths:
        try:
            document = read_json(path, _without_pixels)
        except SppdetError as error:
            findings.add(BROKEN_ANNOTATION, path, error.message, split)
            broken.append(path)
            continue
        if not isinstance(document, dict) or not isinstance(document.get("shapes"), list):
            findings.add(BROKEN_ANNOTATION, path, "has no list named 'shapes'", split)
            broken.append(path)
        else:
            documents.append((path, document))
    names = [_image_names(document, path) for path, document in documents]
    finder = ImageFinder(
        names,
        folder,
        images=images,
        split=split,
        listings=listings,
    )
    told.update(place for path in broken if (place := finder.find(*_own_names(path))))
    out = []
    for own, (path, document) in zip(names, documents, strict=True):
        place = finder.locate(*own)
        size = as_size(document.get("imageWidth"), document.get("imageHeight"))
        image = RawImage(place.stem, place, path, size, split=split)
        for number, shape in enumerate(document["shapes"], 1):
            item = _object(shape, f"shape {number}", image, findings)
            if item is not None:
                image.objects.append(item)
        out.append(image)
    return out


def _without_pixels(item: dict[str, Any]) -> dict[str, Any]:
    """Drop the copy of the image that a file may hold."""
    item.pop("imageData", None)
    return item


def _image_names(document: dict[str, Any], path: Path) -> tuple[str, ...]:
    """Return the name of the image that a file states, and those that go with its own."""
    stated = document.get("imagePath")
    own = _own_names(path)
    return (stated, *own) if isinstance(stated, str) and name_parts(stated) else own


def _own_names(path: Path) -> tuple[str, ...]:
    return tuple(path.stem + suffix for suffix in (".jpg", *sorted(IMAGE_SUFFIXES)))


def _object(shape: Any, what: str, image: RawImage, findings: Findings) -> RawObject | None:
    path, split = image.source, image.split
    if not isinstance(shape, dict):
        findings.add(BAD_OBJECT, path, f"{what} is not an object", split)
        image.lost += 1
        return None
    label, kind = shape.get("label"), shape.get("shape_type", "polygon")
    points = as_points(shape.get("points"))
    if not isinstance(label, str) or not label.strip() or points is None:
        findings.add(BAD_OBJECT, path, f"{what} has no label, or no points in pixels", split)
        image.lost += 1
        return None
    if kind in ("point", "points", "line", "linestrip"):
        findings.add(OTHER_SHAPE, path, f"{what} ({label.strip()}) is a {kind}", split)
        return None
    return RawObject(label, _box(points, kind), what)


def _box(points: list[list[float]], kind: object) -> Box:
    if kind != "circle" or len(points) < 2:
        return enclose(points)
    (x, y), on_it = points[0], points[1]
    radius = math.dist(points[0], on_it)
    return x - radius, y - radius, x + radius, y + radius
