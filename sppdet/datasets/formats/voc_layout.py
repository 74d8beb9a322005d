"""What a folder of VOC XML looks like: where its annotations, images, splits and classes are.

Known layouts: a devkit (`Annotations`, `JPEGImages`, `ImageSets`) with or without split lists;
XML and images in any two folders; XML beside the images; any of these in a folder for each split;
`images/train` and `images/test`; CVAT's `labelmap.txt` and folders in `Annotations`.
"""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from sppdet.core.errors import DatasetError
from sppdet.datasets.formats.folders import Folder, first_bytes, is_image, list_folder, stem, walk
from sppdet.datasets.formats.voc_devkit import year_folders
from sppdet.datasets.raw import REPEATED_CLASS, Findings
from sppdet.datasets.splits import split_of_name

# Folders that say nothing of a data set but what they hold.
_IMAGE_NAMES = ("image", "images", "img", "imgs", "jpegimages", "photos", "pictures")
GENERIC_NAMES = frozenset(("data", "dataset", "datasets", *_IMAGE_NAMES))
CLASS_FILES = ("classes.txt", "labelmap.txt")

# A class of CVAT's list; its color may be missing.
_LABEL_MAP = re.compile(rb"^[^#\n][^\n]*:[\d, ]*:[^:\n]*:[^:\n]*$", re.MULTILINE)
_ROOT_TAG = re.compile(rb"<annotation[\s>/]")
# Files of a folder that are looked into before it is passed over.
_MAX_LOOKS = 20


class AnnotationFile(NamedTuple):
    """One annotation file: its folder below the root, its name, the id of its image."""

    parts: tuple[str, ...]
    name: str
    image_id: str


def is_voc(folder: Path) -> bool:
    """Return whether a folder is a VOC data set, by names and a few first bytes."""
    if not folder.is_dir():
        return False
    files, folders = list_folder(folder)
    if _has_xml(folder, files) or year_folders(folder):
        return True
    return _is_pair(folder, files, folders) or _is_split_tree(folder, folders)


def _has_xml(folder: Path, files: list[str]) -> bool:
    names = islice((name for name in files if name.lower().endswith(".xml")), _MAX_LOOKS)
    # Without the zeros of UTF-16.
    return any(_ROOT_TAG.search(first_bytes(folder / n).replace(b"\0", b"")) for n in names)


def _is_pair(folder: Path, files: list[str], folders: list[str]) -> bool:
    """XML in one folder, images in another or in this one."""
    with_xml, with_images = [], []
    for name in folders:
        listed = list(walk(folder / name, 2))
        if any(_has_xml(folder.joinpath(name, *one.parts), [*one.files]) for one in listed):
            with_xml.append(name)
        if any(is_image(file) for one in listed for file in one.files):
            with_images.append(name)
    if "Annotations" in with_xml:
        return True
    apart = [name for name in with_images if name not in with_xml]
    return (
        len(with_xml) == 1
        and with_xml[0] not in with_images
        and bool(apart or any(map(is_image, files)))
    )


def _is_split_tree(folder: Path, folders: list[str]) -> bool:
    """A folder for each split, each XML beside images or a pair; or `images` of such folders."""
    for name in folders:
        child = folder / name
        if split_of_name(name) is not None:
            files, below = list_folder(child)
            if _has_xml(child, files) or _is_pair(child, files, below):
                return True
        elif name.lower() in _IMAGE_NAMES and _is_split_tree(
            child, [n for n in list_folder(child)[1] if split_of_name(n)]
        ):
            return True
    return False


def split_of_folder(parts: tuple[str, ...]) -> str | None:
    """Return the part of a path that is a split's name, the last if there are several."""
    return next((part for part in reversed(parts) if split_of_name(part) is not None), None)


def read_classes(folders: list[Path], findings: Findings) -> tuple[str, ...] | None:
    """Read the class list beside the data: `classes.txt` or CVAT's `labelmap.txt`; else None.

    Raises:
        DatasetError: it is there, but cannot be read or is empty.
    """
    for path in (folder / name for folder in folders for name in CLASS_FILES):
        if not path.is_file():
            continue
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise DatasetError(
                f"cannot be read ({error})", path=path, hint="write one class name per line"
            ) from None
        names = [line.strip() for line in lines if line.strip()]
        if path.name == "labelmap.txt":  # `label:color_rgb:parts:actions`
            names = [n.rsplit(":", 3)[0].strip() for n in names if not n.startswith("#")]
            names = [name for name in names if name and name != "background"]
        if not names:
            raise DatasetError("names no class", path=path, hint="write one class name per line")
        for name in sorted({name for name in names if names.count(name) > 1}):
            findings.add(REPEATED_CLASS, path, f"names {name!r} twice")
        return tuple(dict.fromkeys(names))
    return None


def annotation_files(folders: list[Folder]) -> list[AnnotationFile]:
    """List the annotation files; ids are their paths in `Annotations`, or in what they share."""
    with_xml = [one for one in folders if any(n.lower().endswith(".xml") for n in one.files)]
    inside = [one for one in with_xml if one.parts[:1] == ("Annotations",)]
    groups: dict[str | None, list[tuple[str, ...]]] = {}
    for one in with_xml:
        groups.setdefault(split_of_folder(one.parts), []).append(one.parts)
    files = []
    for one in inside or with_xml:
        base = 1 if inside else _common(groups[split_of_folder(one.parts)])
        below = one.parts[base:]
        files += [
            AnnotationFile(one.parts, name, "/".join((*below, stem(name))))
            for name in one.files
            if name.lower().endswith(".xml")
        ]
    return files


def _common(paths: list[tuple[str, ...]]) -> int:
    """Count the leading names that all paths share."""
    shortest = min(map(len, paths))
    same = (len({path[n] for path in paths}) == 1 for n in range(shortest))
    return next((n for n, one in enumerate(same) if not one), shortest)


def is_cvat(folders: list[Path]) -> bool:
    """Return whether CVAT's `labelmap.txt`, `label:color_rgb:parts:actions`, is beside the data."""
    paths = (folder / "labelmap.txt" for folder in folders)
    return any(_LABEL_MAP.search(first_bytes(path)) for path in paths)


class ImageIndex:
    """The images of a data set, to be found by the annotation that belongs to them."""

    def __init__(self, folders: list[Folder]) -> None:
        self._by_stem: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        self._by_name: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        for folder in folders:
            for name in filter(is_image, folder.files):
                item = (folder.parts, name)
                self._by_stem.setdefault(stem(name).lower(), []).append(item)
                self._by_name.setdefault(name.lower(), []).append(item)

    def find(
        self, parts: tuple[str, ...], name: str, filename: str | None
    ) -> tuple[tuple[str, ...], str] | None:
        """Find the image of an annotation: folder and name, None if there is none.

        Only names that were listed are given, so that no `filename` leads out of the data set.

        Args:
            parts: the annotation's folder.
            name: the annotation's name without suffix, by which VOC finds the image.
            filename: the image's name as the annotation states it, tried where `name` fails.
        """
        stated = PureWindowsPath(filename).name.lower() if filename else ""
        for found in (
            self._by_stem.get(name.lower()),
            self._by_name.get(stated),
            self._by_stem.get(stem(stated)),
        ):
            fitting = [item for item in found or () if _may_pair(parts, item[0])]
            if fitting:
                return min(fitting, key=lambda item: _distance(parts, name, item))
        return None


def _may_pair(annotation: tuple[str, ...], image: tuple[str, ...]) -> bool:
    """Whether two folders may belong together: not those of two splits."""
    first, second = split_of_folder(annotation), split_of_folder(image)
    return first is None or second is None or first == second


def _distance(
    parts: tuple[str, ...], name: str, item: tuple[tuple[str, ...], str]
) -> tuple[bool, int, bool, bool, tuple[str, ...], str]:
    folder, file = item
    common = 0
    for a, b in zip(reversed(parts), reversed(folder), strict=False):
        if a != b:
            break
        common += 1
    is_generic = any(part.lower() in GENERIC_NAMES for part in folder)
    return (folder != parts, -common, not is_generic, stem(file) != name, folder, file)
