"""Where the images, labels and class names of a YOLO data set are.

Known layouts: parallel `images` and `labels` trees, split inside (`images/train`) or outside
(`train/images`); labels beside the images; lists of images (`train.txt`). The paths of a
`data.yaml` are often those of another machine or of another folder: what is there below its
folder, or the folder above, is found by the ends of the paths. Nothing further up is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sppdet.core.errors import AnnotationError, DatasetError
from sppdet.datasets.formats.folders import is_image, list_folder, stem, walk
from sppdet.datasets.formats.image_finder import (
    FolderListings,
    ImageFinder,
    name_parts,
    split_in_name,
)
from sppdet.datasets.formats.voc_layout import split_of_folder
from sppdet.datasets.formats.yolo_labels import is_label_text, read_text
from sppdet.datasets.formats.yolo_yaml import DataYaml
from sppdet.datasets.raw import NO_SPLIT, OTHER_FOLDER, Findings
from sppdet.datasets.splits import split_of_name

CLASS_FILES = ("classes.txt", "obj.names", "classes.names", "labels.txt", "predefined_classes.txt")

_IMAGE_FOLDERS = frozenset(("images", "image", "imgs", "img", "jpegimages"))
_LABEL_FOLDERS = ("labels", "Labels", "label", "annotations", "Annotations", "txt")
_IMAGES = re.compile(r"images?(?=_|-|$)", re.IGNORECASE)
# CVAT's and darknet's.
_DARKNET_FOLDER = re.compile(r"obj(_\w+)?(_data)?")
# Label files that are looked into before a folder is passed over.
_MAX_LOOKS = 20


class ImageFolder(NamedTuple):
    """Images of a split in one folder, and the folder of their labels (None: there is none)."""

    folder: Path
    images: tuple[str, ...]
    split: str | None
    labels: Path | None


class LabelFiles:
    """The text files of folders, each listed once."""

    def __init__(self) -> None:
        self._listed: dict[Path, dict[str, str]] = {}

    def __call__(self, folder: Path) -> dict[str, str]:
        """Return the names of a folder's text files by their stems; none if it is not there."""
        if folder not in self._listed:
            try:
                names = list_folder(folder)[0]
            except DatasetError:
                names = []
            texts = (name for name in names if name.lower().endswith(".txt"))
            self._listed[folder] = {stem(name): name for name in texts}
        return self._listed[folder]

    def of_image(self, folder: Path | None, image: str) -> Path | None:
        """Return the label file of an image, `a.txt` or `a.jpg.txt`; None if there is none."""
        texts = {} if folder is None else self(folder)
        name = texts.get(stem(image)) or texts.get(image)
        return None if name is None or folder is None else folder / name


def find_label_folder(
    folder: Path, images: Sequence[str], root: Path, files: LabelFiles
) -> Path | None:
    """Find the folder, in `root`, that has label files for most images of a folder."""
    best, most = None, 0
    for candidate in _label_folders(folder, root):
        if not files(candidate):
            continue
        count = sum(files.of_image(candidate, image) is not None for image in images)
        if count > most:
            best, most = candidate, count
    return best


def find_folders(root: Path, files: LabelFiles, depth: int = 6) -> list[ImageFolder]:
    """Find all folders of images in a folder; splits are as folders are named."""
    found = []
    for one in walk(root, depth):
        if images := tuple(name for name in one.files if is_image(name)):
            folder = root.joinpath(*one.parts)
            labels = find_label_folder(folder, images, root, files)
            found.append(ImageFolder(folder, images, split_of_parts(one.parts), labels))
    return found


def is_tree(root: Path) -> bool:
    """Return whether a folder is a YOLO data set without a `data.yaml`, by a few of its files."""
    files = LabelFiles()
    for one in find_folders(root, files, 2):
        if one.labels is None or not all(map(_is_known, one.folder.relative_to(root).parts)):
            continue
        paths = [files.of_image(one.labels, image) for image in one.images]
        for path in [path for path in paths if path is not None][:_MAX_LOOKS]:
            try:
                text = read_text(path)
            except AnnotationError:
                continue
            if text.strip():
                if is_label_text(text):
                    return True
                break
    return False


def resolve_splits(
    yaml: DataYaml, path: Path, findings: Findings, files: LabelFiles, images: Path | None = None
) -> list[ImageFolder]:
    """Find the images of a `data.yaml`'s splits; those that are not there are found out.

    Args:
        yaml: what `path` holds.
        path: the `data.yaml`.
        findings: gets splits that are elsewhere, or nowhere.
        files: of the labels.
        images: the folder in which a user says that the images are.
    """
    home = (path.parent if images is None else images).absolute()
    all_folders: list[ImageFolder] | None = None
    out: list[ImageFolder] = []
    for split, entries in yaml.splits.items():
        found: list[ImageFolder] = []
        for entry in entries:
            place = find_place(yaml.root, entry, home)
            if place is not None and place.is_file():
                found += _read_list(place, split, home, files)
            elif place is not None:
                root = place if place.parent == place else _common_root(place, home)
                for one in walk(place):
                    if names := tuple(name for name in one.files if is_image(name)):
                        folder = place.joinpath(*one.parts)
                        labels = find_label_folder(folder, names, root, files)
                        found.append(ImageFolder(folder, names, split, labels))
        if not found:
            if all_folders is None:
                all_folders = find_folders(home, files)
            same = [f for f in all_folders if f.split and split_of_name(f.split) == split]
            found = [one._replace(split=split) for one in same]
            shown = ", ".join(entries)
            if found:
                where = ", ".join(str(one.folder.relative_to(home)) for one in found)
                findings.add(
                    OTHER_FOLDER, path, f"{split}: {shown} is not there; {where} is", split
                )
            else:
                findings.add(NO_SPLIT, path, f"{split}: {shown} is not there")
        out += found
    return out


def read_names(folder: Path) -> tuple[Path, dict[int, str]] | None:
    """Read the class list in a folder or below: its file, and the classes by number."""
    for one in walk(folder, 2):
        for name in CLASS_FILES:
            if name in one.files:
                path = folder.joinpath(*one.parts, name)
                if names := read_name_file(path):
                    return path, names
    return None


def read_name_file(path: Path) -> dict[int, str]:
    """Read a class name from each line."""
    lines = [line.strip() for line in read_text(path).splitlines()]
    if is_label_text("\n".join(lines)):
        return {}
    return {number: name for number, name in enumerate(lines) if name}


def read_data_file(path: Path) -> DataYaml:
    """Read darknet's `obj.data`: lines `train = data/train.txt`, `names = data/obj.names`."""
    values: dict[str, str] = {}
    for line in read_text(path).splitlines():
        key, equals, value = line.partition("=")
        if equals:
            values[key.strip()] = value.strip()
    splits = {"train": "train", "valid": "val", "val": "val", "test": "test"}
    names = find_place("", values["names"], path.parent) if values.get("names") else None
    count = values.get("classes", "")
    return DataYaml(
        splits={splits[key]: (value,) for key, value in values.items() if key in splits and value},
        names=read_name_file(names) if names is not None and names.is_file() else None,
        count=int(count) if re.fullmatch(r"\d{1,6}", count) else None,
    )


def _label_folders(folder: Path, root: Path) -> Iterator[Path]:
    parts = folder.relative_to(root).parts
    for at in reversed(range(len(parts))):
        if parts[at].lower() in _IMAGE_FOLDERS:
            for name in _LABEL_FOLDERS:
                yield root.joinpath(*parts[:at], name, *parts[at + 1 :])
        elif parts[at] != (name := _IMAGES.sub("labels", parts[at])):
            yield root.joinpath(*parts[:at], name, *parts[at + 1 :])
    for name in _LABEL_FOLDERS:
        yield folder / name
        if parts:
            yield folder.parent / name / folder.name
            yield folder.parent / name
    yield folder


def _is_known(name: str) -> bool:
    is_folder = name.lower() in _IMAGE_FOLDERS or _DARKNET_FOLDER.fullmatch(name) is not None
    return is_folder or split_of_parts((name,)) is not None


def split_of_parts(parts: tuple[str, ...]) -> str | None:
    """Return the split that folders are named after, as `images/val` or `val_images` are."""
    joined = [split_in_name(part) for part in parts if _IMAGES.search(part)]
    return split_of_folder(parts) or next((name for name in reversed(joined) if name), None)


def _common_root(place: Path, home: Path) -> Path:
    """Return the folder that holds a place and its labels: the data set's, or the one above."""
    return home if place.is_relative_to(home) else home.parent


def find_place(root: str, entry: str, home: Path) -> Path | None:
    """Find a path of a `data.yaml` in its folder or the one above; None if it is not there."""
    if "\0" in root + entry:
        return None
    parts = name_parts(f"{root}/{entry}")
    while parts and "*" in parts[-1]:
        parts = parts[:-1]
    try:
        literal = Path(home, root, entry.replace("\\", "/")).resolve()
        real = home.resolve()
        if parts and literal.exists() and literal.is_relative_to(real.parent):
            return (
                literal
                if literal.is_relative_to(real)
                else home.parent / literal.relative_to(real.parent)
            )
        if not parts:
            return home
        has_split = split_of_folder(parts) is not None
        for base in (home, home.parent):
            for start in range(len(parts)):
                tail = parts[start:]
                if has_split and start and split_of_folder((*tail[:-1], stem(tail[-1]))) is None:
                    break
                if (base.joinpath(*tail)).exists():
                    return base.joinpath(*tail)
    except (OSError, ValueError, RuntimeError):  # a name too long, links in a circle
        pass
    return None


def _read_list(path: Path, split: str, home: Path, files: LabelFiles) -> list[ImageFolder]:
    """Read a list of images: their folders, in the order of the first image of each."""
    lines = [line.strip() for line in read_text(path).splitlines()]
    names = [line for line in lines if line and not line.startswith("#")]
    finder = ImageFinder([(name,) for name in names], path.parent, listings=FolderListings())
    by_folder: dict[Path, list[str]] = {}
    for name in names:
        if is_image(name):
            image = finder.locate(name)
            by_folder.setdefault(image.parent.absolute(), []).append(image.name)
    found = []
    for folder, images in by_folder.items():
        root = _common_root(folder, home)
        inside = folder.is_relative_to(root)
        labels = find_label_folder(folder, images, root, files) if inside else None
        found.append(ImageFolder(folder, tuple(dict.fromkeys(images)), split, labels))
    return found
