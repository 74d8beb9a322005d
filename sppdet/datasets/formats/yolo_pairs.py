"""Label files of YOLO whose images are in another folder, or nowhere: paired by their names.

CVAT and Label Studio export labels without the images; a user then names the folder of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sppdet.core.errors import AnnotationError
from sppdet.datasets.formats.folders import Folder, is_image, stem, walk
from sppdet.datasets.formats.image_finder import name_parts
from sppdet.datasets.formats.voc_layout import ImageIndex
from sppdet.datasets.formats.yolo_labels import is_label_text, read_text
from sppdet.datasets.formats.yolo_layout import (
    CLASS_FILES,
    ImageFolder,
    LabelFiles,
    find_place,
    split_of_parts,
)
from sppdet.datasets.formats.yolo_yaml import DataYaml
from sppdet.datasets.splits import split_of_name

# Label files that are looked into before a folder is passed over.
_MAX_LOOKS = 20
# Where the images of a folder of labels should be, as most tools have it.
_IMAGES_FOR = {"labels": "images", "label": "image"}


class _Group(NamedTuple):
    """Images of one split in one folder, whose labels are in one folder."""

    folder: Path
    labels: Path
    split: str | None


def has_labels_alone(folder: Path) -> bool:
    """Return whether a folder holds YOLO's labels, but no image: by a few of its files."""
    if not folder.is_dir():
        return False
    folders = list(walk(folder, 2))
    if any(is_image(name) for one in folders for name in one.files):
        return False
    has_names = any(name in one.files for one in folders for name in CLASS_FILES)
    return any(
        _holds_labels(folder.joinpath(*one.parts), one.files)
        for one in folders
        if has_names or (one.parts and one.parts[0].lower() in _IMAGES_FOR)
    )


def pair_labels(
    home: Path, images: Path | None, info: DataYaml, files: LabelFiles
) -> list[ImageFolder]:
    """Pair the label files in `home` with images; where none is found, say where it should be.

    Args:
        home: the folder of the data set.
        images: the folder in which a user says that the images are; None: nobody says.
        info: what `data.yaml` or `obj.data` says: lists of images tell the splits.
        files: of the labels.

    Returns:
        The images that label files belong to, and, where no list names them, those beside them.
    """
    lists = _read_lists(home, info)
    there = [] if images is None else list(walk(images))
    index = ImageIndex(there)
    groups: dict[_Group, list[str]] = {}
    found: set[Path] = set()
    for one, own in _label_files(home, files):
        split = split_of_parts(one.parts)
        if lists:
            if own not in lists:
                continue
            split = lists[own]
        elif split is not None and info.splits:
            split = split_of_name(split) or split
        image = None if images is None else index.find(one.parts, own, own)
        if images is not None and image is not None:
            folder, name = images.joinpath(*image[0]), image[1]
            found.add(folder)
        else:
            parts = [_IMAGES_FOR.get(part.lower(), part) for part in one.parts]
            folder = home.joinpath(*parts) if images is None else images
            name = own if is_image(own) else f"{own}.jpg"
        groups.setdefault(_Group(folder, home.joinpath(*one.parts), split), []).append(name)
    if images is not None and not lists:
        _add_unlabeled(
            groups, images, [one for one in there if images.joinpath(*one.parts) in found]
        )
    return [
        ImageFolder(group.folder.absolute(), tuple(dict.fromkeys(names)), group.split, group.labels)
        for group, names in groups.items()
    ]


def _add_unlabeled(groups: dict[_Group, list[str]], images: Path, folders: list[Folder]) -> None:
    """Add the images without a label file, in folders whose others are of one group."""
    for one in folders:
        folder = images.joinpath(*one.parts)
        own = [group for group in groups if group.folder == folder]
        if len(own) == 1:
            groups[own[0]] += filter(is_image, one.files)


def _label_files(home: Path, files: LabelFiles) -> Iterator[tuple[Folder, str]]:
    """Yield the label files of all folders that hold some: the folder, and the file's stem."""
    for one in walk(home):
        folder = home.joinpath(*one.parts)
        if not _holds_labels(folder, one.files):
            continue
        for own, name in files(folder).items():
            # At the top, other texts are read-me files and lists.
            if name not in CLASS_FILES and (one.parts or _is_label_file(folder / name)):
                yield one, own


def _holds_labels(folder: Path, names: tuple[str, ...]) -> bool:
    texts = [n for n in names if n.lower().endswith(".txt") and n not in CLASS_FILES]
    return any(_is_label_file(folder / name) for name in texts[:_MAX_LOOKS])


def _is_label_file(path: Path) -> bool:
    try:
        return is_label_text(read_text(path))
    except AnnotationError:
        return False


def _read_lists(home: Path, info: DataYaml) -> dict[str, str]:
    """Read the lists of images that the splits are given as: the split by the image's stem."""
    out: dict[str, str] = {}
    for split, entries in info.splits.items():
        for entry in entries:
            place = find_place(info.root, entry, home)
            if place is None or not place.is_file():
                continue
            for line in read_text(place).splitlines():
                parts = name_parts(line)
                if parts and is_image(parts[-1]):
                    out.setdefault(stem(parts[-1]), split)
    return out
