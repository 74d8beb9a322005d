"""CVAT's XML for images (version 1.1): one file with all images and labels.

Format: docs.cvat.ai, "CVAT for image". Boxes are 0-based corners in pixels, turned by `rotation`
degrees about their center; the other closed shapes count as the box around them.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeTree

from sppdet.core.errors import AnnotationError, DatasetError
from sppdet.datasets.annotations import Box
from sppdet.datasets.formats.export_files import find_exports, name_exports, name_images
from sppdet.datasets.formats.image_finder import (
    FolderListings,
    ImageFinder,
    find_bare_images,
    name_parts,
)
from sppdet.datasets.formats.json_values import (
    as_number,
    as_numbers,
    as_points,
    as_size,
    enclose,
    ends_of_file,
    rotate,
)
from sppdet.datasets.raw import (
    BAD_OBJECT,
    NO_IMAGE,
    OTHER_SHAPE,
    ROTATED,
    Findings,
    RawDataset,
    RawImage,
    RawObject,
)

FORMAT = "CVAT XML"

_OPEN_SHAPES = ("polyline", "points", "skeleton", "cuboid", "tag")
_SHAPES = {
    "box": ("xtl", "ytl", "xbr", "ybr"),
    "ellipse": ("cx", "cy", "rx", "ry"),
    "mask": ("left", "top", "width", "height"),
    "polygon": (),
}


def matches(source: Path) -> bool:
    """Tell if a file, or a file in a folder, is CVAT's XML."""
    files = find_exports(source, ".xml", _is_cvat, FolderListings())
    return any(_is_cvat(path) for path in files)


def read(
    source: Path, findings: Findings, *, images: Path | None = None, within: Path | None = None
) -> RawDataset:
    """Read an export, or those of a folder.

    Args:
        source: the file or folder.
        findings: gets what is wrong with single images and objects.
        images: the folder of images; by default they are looked for around the file.
        within: the folder that the search for images does not leave; by default any.

    Raises:
        DatasetError: no such file, or several exports in the folder.
        AnnotationError: not CVAT's XML for images, or with a DOCTYPE or entities.
    """
    listings = FolderListings(within)
    files = find_exports(source, ".xml", _is_cvat, listings)
    file_splits = name_exports(source, files, "CVAT")
    found: list[RawImage] = []
    labels: list[str] = []
    for path, split in zip(files, file_splits, strict=True):
        root = _parse(path)
        names = (node.text for node in root.iterfind("meta//labels/label/name"))
        labels += [name.strip() for name in names if name and name.strip()]
        found += _read_images(root, path, split, findings, images, listings)
    for image, name in zip(found, name_images([image.path for image in found]), strict=True):
        image.image_id = name
    if source.is_dir():
        find_bare_images(found, listings, findings)
    splits = dict.fromkeys(image.split for image in found if image.split is not None)
    return RawDataset(
        format=FORMAT,
        name=source.stem if source.is_file() else source.absolute().name,
        images=found,
        classes=tuple(dict.fromkeys(labels)) or None,
        splits=tuple(splits),
    )


def _is_cvat(path: Path) -> bool:
    return path.suffix.lower() == ".xml" and bool(
        re.search(r"<annotations[\s>/]", ends_of_file(path)[:4096])
    )


def _parse(path: Path) -> Element:
    hint = "export the task from CVAT as 'CVAT for images 1.1'"
    try:
        root: Element = SafeTree.parse(path, forbid_dtd=True).getroot()
    except FileNotFoundError:
        raise DatasetError("no such annotation file", path=path, hint="check the path") from None
    except DefusedXmlException:
        raise AnnotationError(
            "has a DOCTYPE or entities, which are refused", path=path, hint="remove them"
        ) from None
    except (ParseError, ValueError, LookupError, OSError) as error:
        raise AnnotationError(f"broken XML ({error})", path=path, hint=hint) from None
    if root.tag != "annotations":
        raise AnnotationError(f"is not CVAT's XML: its root is <{root.tag}>", path=path, hint=hint)
    if root.find("track") is not None and root.find("image") is None:
        raise AnnotationError("holds the tracks of a video, not images", path=path, hint=hint)
    return root


def _read_images(
    root: Element,
    path: Path,
    split: str | None,
    findings: Findings,
    images: Path | None,
    listings: FolderListings,
) -> list[RawImage]:
    nodes = []
    for number, node in enumerate(root.iterfind("image"), 1):
        if name_parts(node.get("name", "")):
            nodes.append(node)
        else:
            findings.add(NO_IMAGE, path, f"image number {number} has no name", split)
    names = [node.get("name", "") for node in nodes]
    finder = ImageFinder(
        [(name,) for name in names], path.parent, images=images, split=split, listings=listings
    )
    out = []
    for node, name in zip(nodes, names, strict=True):
        subset = (node.get("subset") or "").strip()
        part = split or (subset if subset.lower() not in ("", "default") else None)
        size = as_size(node.get("width"), node.get("height"))
        image = RawImage(name, finder.locate(name), path, size, split=part)
        for number, shape in enumerate(node, 1):
            item = _object(shape, f"image {name!r:.60}, shape {number}", image, findings)
            if item is not None:
                image.objects.append(item)
        out.append(image)
    return out


def _object(shape: Element, what: str, image: RawImage, findings: Findings) -> RawObject | None:
    path, split = image.source, image.split
    label = (shape.get("label") or "").strip()
    if shape.tag in _OPEN_SHAPES:
        if shape.tag != "tag":  # of the whole image
            findings.add(OTHER_SHAPE, path, f"{what} ({label}) is a {shape.tag}", split)
        return None
    box = _box(shape)
    if box is None or not label:
        findings.add(BAD_OBJECT, path, f"{what} ({shape.tag}) has no label or whole box", split)
        image.lost += 1
        return None
    degrees = as_number(shape.get("rotation")) or 0.0
    if degrees:
        x1, y1, x2, y2 = box
        box = rotate(box, degrees, ((x1 + x2) / 2, (y1 + y2) / 2))
        findings.add(ROTATED, path, f"{what} ({label})", split)
    return RawObject(label, box, what)


def _box(shape: Element) -> Box | None:
    """Return the box around a shape; None for a shape that is not known, or not whole."""
    if shape.tag == "polygon":
        points = as_points([pair.split(",") for pair in shape.get("points", "").split(";")])
        return None if points is None else enclose(points)
    numbers = as_numbers([shape.get(key) for key in _SHAPES.get(shape.tag, ())])
    if not numbers:
        return None
    a, b, c, d = numbers
    if shape.tag == "ellipse":
        return a - c, b - d, a + c, b + d
    return (a, b, a + c, b + d) if shape.tag == "mask" else (a, b, c, d)
