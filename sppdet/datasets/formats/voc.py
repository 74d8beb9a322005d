"""VOC XML in every layout that the common tools write."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from sppdet.core.errors import AnnotationError
from sppdet.datasets.formats.folders import Folder, is_image, stem, walk
from sppdet.datasets.formats.voc_devkit import (
    VOC_CLASSES,
    read_split_lists,
    split_path,
    voc_folder,
    year_folders,
    year_name,
)
from sppdet.datasets.formats.voc_layout import (
    GENERIC_NAMES,
    AnnotationFile,
    ImageIndex,
    annotation_files,
    is_cvat,
    is_voc,
    read_classes,
    split_of_folder,
)
from sppdet.datasets.raw import (
    BAD_OBJECT,
    BROKEN_ANNOTATION,
    DUPLICATE,
    NO_ANNOTATION,
    NOT_LISTED,
    ONE_PIXEL,
    Findings,
    RawDataset,
    RawImage,
    RawObject,
)
from sppdet.datasets.splits import SPLIT_NAMES, is_list, read_lines, split_of_name
from sppdet.datasets.voc_xml import read_annotation

FORMAT = "VOC XML"
CVAT_FORMAT = "VOC XML (CVAT's: boxes from 0)"

# Of VOC 2012: pictures of classes, with the images' names.
_NOT_IMAGES = frozenset(("segmentationclass", "segmentationobject", "masks"))


def matches(source: Path) -> bool:
    """Return whether a folder looks like VOC XML."""
    return is_voc(source)


def read(
    source: Path,
    findings: Findings,
    *,
    images: Path | None = None,
    year: int | None = None,
    split: str | None = None,
) -> RawDataset:
    """Read the annotations of all splits.

    Args:
        source: a folder in one of the layouts of `voc_layout`.
        findings: gets what is wrong with single files and objects.
        images: the folder of the images, where they are not with the annotations.
        year: which of a devkit's years.
        split: the one that will be chosen. VOC's own data is not read beyond it; it may be a
            per-class list (`dog_train`), which else are passed over, or the path of a list,
            which may name images that no split has.

    Raises:
        DatasetError: several years and none named, a split list or class list that cannot be
            read, or one of `split` without images.
    """
    root = voc_folder(source, year) if year is not None or year_folders(source) else source
    folders = list(walk(root))
    class_folders = _class_folders(root, folders)
    classes = read_classes(class_folders, findings)
    from_zero = is_cvat(class_folders)
    reader = _Reader(root, folders, findings, images, one_based=not from_zero)
    lists = read_split_lists(root, split)
    own_list = Path(split) if split is not None and is_list(split) else None
    devkit = year_name(root)
    if devkit is not None and lists and classes is None:
        # The classes are known without the other splits, if it is VOC's own.
        wanted = {} if own_list is not None else lists
        if split is not None and split in lists:
            wanted = {split: lists[split]}
        own = Findings()
        found = _Reader(root, folders, own, images).read_lists(wanted, own_list)
        if _are_voc_classes(found):
            findings.all += own.all
            return RawDataset(FORMAT, devkit, found, VOC_CLASSES, tuple(wanted or lists), True)
    found = reader.read_lists(lists, own_list) if lists else reader.read_all()
    splits = tuple(lists) if lists else _splits(found)
    return RawDataset(CVAT_FORMAT if from_zero else FORMAT, _name(root), found, classes, splits)


class _Reader:
    """The annotation files of a folder, each read once."""

    def __init__(
        self,
        root: Path,
        folders: list[Folder],
        findings: Findings,
        images: Path | None,
        *,
        one_based: bool = True,
    ) -> None:
        self.root = root
        self.image_root = images or root
        self.findings = findings
        self.one_based = one_based
        self.files = annotation_files(folders)
        self.image_folders = _image_folders(list(walk(images)) if images else folders)
        self.index = ImageIndex(self.image_folders)
        self._read: dict[AnnotationFile, tuple[RawImage | None, list[tuple[str, str]]]] = {}

    def read_all(self) -> list[RawImage]:
        """Read every annotation file; folders may be splits."""
        images: list[RawImage] = []
        paths: set[Path] = set()
        told: set[Path] = set()
        for file in self.files:
            image = self._image(file, None)
            if image is None:
                # Its image is told with the file.
                broken = self.index.find(file.parts, stem(file.name), None)
                if broken is not None:
                    told.add(self.image_root.joinpath(*broken[0], broken[1]))
                continue
            if image.path in paths:
                message = f"annotates {image.path.name}, which another file does"
                self.findings.add(DUPLICATE, image.source, message, image.split)
                continue
            paths.add(image.path)
            images.append(image)
        self._find_bare_images(paths, told)
        order = {split: place for place, split in enumerate(_splits(images))}
        return sorted(images, key=lambda image: order.get(image.split or "", len(order)))

    def read_lists(
        self, lists: dict[str, tuple[str, ...]], own_list: Path | None
    ) -> list[RawImage]:
        """Read the annotation files that split lists name, and those that a user's list adds."""
        by_id = {file.image_id: file for file in self.files}
        by_name = {stem(file.name): file for file in self.files}
        images = []
        for split, ids in lists.items():
            path = split_path(self.root, split)
            for line, count in Counter(ids).items():
                if count > 1:
                    self.findings.add(DUPLICATE, path, f"lists {line} {count} times", split)
                file = _find_listed(line, by_id, by_name)
                if file is None:
                    message = f"lists {line}, which has no annotation file"
                    self.findings.add(NOT_LISTED, path, message, split)
                    continue
                image = self._image(file, split)
                if image is not None:
                    images.append(image)
        for line in read_lines(own_list) if own_list is not None else ():
            file = _find_listed(line, by_id, by_name)
            if file is not None and file not in self._read:
                image = self._image(file, None)
                if image is not None:
                    images.append(image)
        return images

    def _image(self, file: AnnotationFile, split: str | None) -> RawImage | None:
        """Make the raw image of an annotation file in a split; None if it is broken."""
        if file not in self._read:
            self._read[file] = self._read_image(file)
        image, problems = self._read[file]
        where = split or (split_of_folder(file.parts) if image is None else image.split)
        for kind, message in problems:
            path = self.root.joinpath(*file.parts, file.name)
            self.findings.add(kind, path, message, where)
        return image if image is None or split is None else replace(image, split=split)

    def _read_image(self, file: AnnotationFile) -> tuple[RawImage | None, list[tuple[str, str]]]:
        path = self.root.joinpath(*file.parts, file.name)
        try:
            annotation = read_annotation(path, one_based=self.one_based)
        except AnnotationError as error:
            return None, [(BROKEN_ANNOTATION, error.message)]
        found = self.index.find(file.parts, stem(file.name), annotation.filename)
        if found is None:
            # Where it should be, for the message that it is not there.
            found = self._likely_folder(file.parts), f"{stem(file.name)}.jpg"
        split = split_of_folder(file.parts) or split_of_folder(found[0])
        size = None
        if annotation.width is not None and annotation.height is not None:
            size = (annotation.width, annotation.height)
        objects = [
            RawObject(one.name, one.box, f"object {one.number}", difficult=one.difficult)
            for one in annotation.objects
        ]
        image = self.image_root.joinpath(*found[0], found[1])
        lost = [(BAD_OBJECT, message) for message in annotation.problems]
        raw = RawImage(file.image_id, image, path, size, objects, split, len(lost))
        thin = [one for one in objects if self.one_based and _is_thin(*one.box)]
        return raw, [*lost, *((ONE_PIXEL, f"{one.what} ({one.name})") for one in thin)]

    def _likely_folder(self, parts: tuple[str, ...]) -> tuple[str, ...]:
        """Guess the folder of an annotation's missing image: the fullest of its split.

        Where there is no image at all, it is the one that VOC, or the user, names.
        """
        own = (None, split_of_folder(parts))
        fitting = [one for one in self.image_folders if split_of_folder(one.parts) in own]
        counts = [(sum(map(is_image, one.files)), one.parts) for one in fitting]
        if any(count for count, _ in counts):
            return max(counts)[1]
        if self.image_root != self.root:
            return ()
        return ("JPEGImages",) if parts[:1] == ("Annotations",) else parts

    def _find_bare_images(self, used: set[Path], told: set[Path]) -> None:
        """Find images without an annotation file, in folders where others have one."""
        folders = {path.parent for path in used}
        for one in self.image_folders:
            folder = self.image_root.joinpath(*one.parts)
            if folder in folders:
                for path in (folder / name for name in one.files if is_image(name)):
                    if path not in used and path not in told:
                        split = split_of_folder(one.parts)
                        self.findings.add(NO_ANNOTATION, path, "no XML file belongs to it", split)


def _image_folders(folders: list[Folder]) -> list[Folder]:
    """Select the folders that may hold the images: `JPEGImages` if it is there."""
    inside = [one for one in folders if one.parts[:1] == ("JPEGImages",)]
    if inside:
        return inside
    return [one for one in folders if not _NOT_IMAGES & {part.lower() for part in one.parts}]


def _find_listed(
    line: str, by_id: dict[str, AnnotationFile], by_name: dict[str, AnnotationFile]
) -> AnnotationFile | None:
    """Find what a line of a split list means: an id, a file's name, a path of another machine."""
    plain = line.replace("\\", "/").strip("/")
    last = plain.rsplit("/", 1)[-1]
    for found, name in ((by_id, line), (by_id, plain), (by_name, last)):
        for one in (name, stem(name)) if is_image(name) else (name,):
            if one in found:
                return found[one]
    return None


def _class_folders(root: Path, folders: list[Folder]) -> list[Path]:
    """List the folders that a class list may be in: the root, its folders, what holds it."""
    below = [root.joinpath(*one.parts) for one in folders if len(one.parts) <= 1]
    return [*below, root.parent] if root.name.lower() in GENERIC_NAMES else below


def _splits(images: list[RawImage]) -> tuple[str, ...]:
    """List the splits of images: training first, unknown ones last."""
    places = {name: place for place, name in enumerate(SPLIT_NAMES)}
    names = {image.split for image in images if image.split is not None}
    return tuple(sorted(names, key=lambda s: (places.get(split_of_name(s) or "", 9), s)))


def _are_voc_classes(images: list[RawImage]) -> bool:
    """Return whether most objects are of VOC's 20 classes; own data lies in such folders too."""
    known = Counter(one.name in VOC_CLASSES for image in images for one in image.objects)
    return known[True] >= known[False]


def _is_thin(x1: float, y1: float, x2: float, y2: float) -> bool:
    """Return whether a box is of one pixel's width or height: more often a slip than an object."""
    return x2 - x1 == 1.0 or y2 - y1 == 1.0


def _name(root: Path) -> str:
    """Name a data set by its folder, or by the one above where that says nothing."""
    root = root.resolve()
    return root.parent.name if root.name.lower() in GENERIC_NAMES else root.name
