"""YOLO's labels: a text file for each image, with `class x y width height` on each line.

Coordinates are shares of the image's sides, `x y` the box's center; a line of more columns is a
polygon, `class x1 y1 x2 y2 ...`, whose box is taken. `data.yaml`, darknet's `obj.data` or
`classes.txt` name the classes by their numbers. An image without a label file has no objects.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sppdet.core.errors import AnnotationError, DatasetError
from sppdet.datasets.formats.folders import first_bytes, is_image, list_folder, stem
from sppdet.datasets.formats.yolo_labels import LabelParser, is_label_text, read_text
from sppdet.datasets.formats.yolo_layout import (
    CLASS_FILES,
    ImageFolder,
    LabelFiles,
    find_folders,
    is_tree,
    read_data_file,
    read_names,
    resolve_splits,
)
from sppdet.datasets.formats.yolo_pairs import pair_labels
from sppdet.datasets.formats.yolo_yaml import DataYaml, read_data_yaml
from sppdet.datasets.raw import (
    BROKEN_ANNOTATION,
    NO_LABEL_FILE,
    NO_LABELED_IMAGE,
    NO_NAMES,
    POLYGON,
    UNLABELED_FOLDER,
    Findings,
    RawDataset,
    RawImage,
)
from sppdet.datasets.splits import split_of_name

FORMAT = "YOLO"

_YAML_SUFFIXES = (".yaml", ".yml")
_FIRST_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_YAML_KEY = re.compile(rb"^(train|val|names)\s*:", re.MULTILINE)
_DATA_KEY = re.compile(rb"^\s*(train|names)\s*=", re.MULTILINE)
# Of a file that is looked at to tell whether it is one.
_HEAD = 1 << 16


@dataclass(slots=True)
class _Polygons:
    """A label file with polygons, to be named where other files hold boxes."""

    path: Path
    count: int
    split: str | None


def matches(source: Path) -> bool:
    """Return whether a folder or file looks like YOLO's: names and a few first bytes."""
    if source.is_file():
        return _is_description(source)
    return source.is_dir() and (find_description(source) is not None or is_tree(source))


def find_description(folder: Path) -> Path | None:
    """Find the `data.yaml` of a folder, else its `obj.data`; None where there is none."""
    names = list_folder(folder)[0]
    ordered = sorted(names, key=lambda name: (name.lower() not in _FIRST_NAMES, name))
    return next((folder / name for name in ordered if _is_description(folder / name)), None)


def read(source: Path, findings: Findings, *, images: Path | None = None) -> RawDataset:
    """Read the labels of all splits.

    Args:
        source: a folder, or its `data.yaml`.
        findings: gets what is wrong with single files and lines.
        images: the folder of the images, where neither `data.yaml` nor the labels' own folder
            leads to it.

    Raises:
        DatasetError: no images, or none with labels.
        AnnotationError: a `data.yaml` that cannot be understood.
    """
    description = source if source.is_file() else find_description(source)
    home = source.parent if source.is_file() else source
    root = (images or home).absolute()
    before = len(findings)
    files = LabelFiles()
    info = DataYaml()
    folders: list[ImageFolder] = []
    if description is not None:
        is_yaml = description.suffix.lower() in _YAML_SUFFIXES
        info = read_data_yaml(description) if is_yaml else read_data_file(description)
        folders = resolve_splits(info, description, findings, files, images)
    if not folders:
        folders = _labeled(find_folders(root, files), findings)
    paired: list[ImageFolder] = []
    if not any(one.labels for one in folders) and (images is not None or not _are_there(folders)):
        paired = pair_labels(home.absolute(), images, info, files)
        if paired:
            folders, root = paired, home.absolute()
            del findings.all[before:]  # of images that were looked for elsewhere
    if not folders:
        raise DatasetError(
            "no folder of images with YOLO's label files",
            path=source,
            hint="give the folder that holds images/ and labels/, or the images' own with "
            "--images, or correct the paths in "
            f"{description.name if description else 'a data.yaml'}",
        )
    names = _find_names(info, root)
    parser = LabelParser(names, info.keypoints, findings)
    raw: list[RawImage] = []
    polygons: list[_Polygons] = []
    for one in folders:
        raw += _read_folder(one, files, parser, findings, polygons)
    if parser.boxes:  # a data set of polygons alone is as its maker meant it
        for each in polygons:
            findings.add(POLYGON, each.path, f"holds {each.count}", each.split)
    _name_apart(raw, root)
    if not paired:  # else each label file has its image, there or not
        _find_orphans(folders, files, findings)
    if names is None:
        findings.add(NO_NAMES, root, "put a class name on each line of classes.txt")
    return RawDataset(
        format=FORMAT if description is None else f"{FORMAT} ({description.name})",
        name=root.name,
        images=raw,
        classes=_class_names(names, raw),
        splits=tuple(dict.fromkeys(one.split for one in folders if one.split is not None)),
    )


def _is_description(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in _YAML_SUFFIXES:
        return _YAML_KEY.search(first_bytes(path, _HEAD).removeprefix(b"\xef\xbb\xbf")) is not None
    return suffix == ".data" and _DATA_KEY.search(first_bytes(path, _HEAD)) is not None


def _are_there(folders: Sequence[ImageFolder]) -> bool:
    """Return whether there is any of the images that lists name."""
    return any((one.folder / name).is_file() for one in folders for name in one.images)


def _labeled(folders: Sequence[ImageFolder], findings: Findings) -> list[ImageFolder]:
    """Leave out folders of other pictures: without labels, and not named like a split."""
    if all(one.labels is None for one in folders):
        return []
    for one in folders:
        if one.labels is None and one.split is None:
            findings.add(UNLABELED_FOLDER, one.folder, f"has {len(one.images)} images")
    return [one for one in folders if one.labels is not None or one.split is not None]


def _find_names(info: DataYaml, root: Path) -> dict[int, str] | None:
    """Find the classes by number: in the description, a class list, or a `data.yaml` nearby."""
    if info.names:
        return info.names
    if found := read_names(root):
        return found[1]
    nearby = [root / name for name in list_folder(root)[1]]
    if split_of_name(root.name) is not None:  # only a split of a data set was named
        nearby.append(root.parent)
    for folder in nearby:
        description = find_description(folder)
        if description is not None and description.suffix.lower() in _YAML_SUFFIXES:
            with contextlib.suppress(AnnotationError):
                if names := read_data_yaml(description).names:
                    return names
    return None if info.count is None else {n: str(n) for n in range(info.count)}


def _class_names(names: dict[int, str] | None, raw: Sequence[RawImage]) -> tuple[str, ...]:
    if names is None:
        used = {one.name for image in raw for one in image.objects}
        return tuple(sorted(used, key=int))
    return tuple(names[number] for number in sorted(names))


def _read_folder(
    part: ImageFolder,
    files: LabelFiles,
    parser: LabelParser,
    findings: Findings,
    polygons: list[_Polygons],
) -> list[RawImage]:
    """Read the labels of a folder; files with polygons are added to `polygons`."""
    images = []
    for name in part.images:
        path = part.folder / name
        label = files.of_image(part.labels, name)
        image = RawImage(stem(name), path, path if label is None else label, split=part.split)
        if label is None:
            findings.add(NO_LABEL_FILE, path, "has no label file", part.split)
        else:
            try:
                text = read_text(label)
            except AnnotationError as error:
                findings.add(BROKEN_ANNOTATION, label, error.message, part.split)
                continue
            if count := parser.parse(text, image):
                polygons.append(_Polygons(label, count, part.split))
        images.append(image)
    return images


def _name_apart(images: Sequence[RawImage], root: Path) -> None:
    """Give images of one split that have one stem ids that tell them apart."""
    for by_suffix in (False, True):
        ids = Counter((image.split, image.image_id) for image in images)
        for image in images:
            if ids[image.split, image.image_id] > 1:
                path = image.path
                inner = path.relative_to(root) if path.is_relative_to(root) else path
                image.image_id = (inner if by_suffix else inner.with_suffix("")).as_posix()


def _find_orphans(folders: Sequence[ImageFolder], files: LabelFiles, findings: Findings) -> None:
    """Find label files without an image in any of the folders that they belong to."""
    images: dict[Path, set[str]] = {}
    splits: dict[Path, set[str | None]] = {}
    beside: set[Path] = set()
    for one in folders:
        if one.labels is None:
            continue
        names = images.setdefault(one.labels, set())
        splits.setdefault(one.labels, set()).add(one.split)
        # All images of the folder, not the listed ones alone.
        there = list_folder(one.folder)[0] if one.folder.is_dir() else one.images
        for name in there:
            if is_image(name):
                names.update((stem(name), name))
        if one.folder == one.labels:
            beside.add(one.labels)
    for folder, names in images.items():
        split = next(iter(splits[folder])) if len(splits[folder]) == 1 else None
        for own, name in files(folder).items():
            if own in names or name in CLASS_FILES:
                continue
            path = folder / name
            if folder in beside and not _has_labels(path):
                continue
            findings.add(NO_LABELED_IMAGE, path, f"there is no image {own}", split)


def _has_labels(path: Path) -> bool:
    try:
        return is_label_text(read_text(path))
    except AnnotationError:
        return False
