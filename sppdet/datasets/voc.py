"""Reading Pascal VOC data sets: a devkit folder, a split, a class list -> a `Dataset`.

Layout (VOC devkit documentation, section 5): `Annotations/<id>.xml`, `JPEGImages/<id>.jpg`, and
splits, one id per line, in `ImageSets/Main/<split>.txt`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sppdet.core.errors import DatasetError, SppdetError
from sppdet.core.images import IMAGE_SUFFIXES, image_size
from sppdet.core.types import Dataset, Sample
from sppdet.datasets.annotations import (
    ClassList,
    confine_path,
    make_class_list,
    make_sample,
)
from sppdet.datasets.voc_xml import VocAnnotation, check_objects, read_annotation

VOC_CLASSES: tuple[str, ...] = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

# A data set of other classes names them, one per line, in this file beside its Annotations folder.
CLASSES_FILE = "classes.txt"

_YEAR_FOLDER = re.compile(r"VOC(\d{4})")


def load_voc(
    root: Path,
    split: str,
    *,
    year: int | None = None,
    classes: Sequence[str] | None = None,
    ignore_unknown: bool = False,
    problems: list[SppdetError] | None = None,
) -> Dataset:
    """Read a split: its samples in order, half-open boxes in original-image pixels.

    Args:
        root: a data set folder (with `Annotations`), or a devkit of `VOC<year>` folders.
        split: a name in `ImageSets/Main`, or the path of a `.txt` file of ids. In the devkit's
            per-class lists (`dog_train`) the images marked -1, without the class, are left out.
        year: which of a devkit's years; needed only if it has several.
        classes: class names; by default those of the data set's `classes.txt`, else VOC's 20.
        ignore_unknown: leave out objects of other classes, rather than refuse their file.
        problems: gathers what is wrong with single images, which are left out, rather than
            raise at the first.

    Images without objects are kept. Annotations without `<size>` cost a look at the image.

    Raises:
        DatasetError: no such folder, year or split; an empty or repeating split; a missing image.
        AnnotationError: an annotation is missing or broken, or holds an unknown class, or an
            inverted or outside box; names the file and the object.
    """
    folder = voc_folder(Path(root), year)
    if classes is None:
        classes = _read_classes(folder)
    names = make_class_list(classes, ignore_unknown=ignore_unknown)
    samples = []
    for image_id in read_split(folder, split):
        try:
            samples.append(_read_sample(folder, image_id, names))
        except SppdetError as error:
            if problems is None:
                raise
            problems.append(error)
    return Dataset(f"{folder.name} {Path(split).stem}", names.names, tuple(samples))


def voc_folder(root: Path, year: int | None = None) -> Path:
    """Find the folder of `Annotations`: `root`, `root/VOC<year>` or `root/VOCdevkit/VOC<year>`.

    Raises:
        DatasetError: none or several fit; lists the years that are there.
    """
    if (root / "Annotations").is_dir():
        named = _YEAR_FOLDER.fullmatch(root.resolve().name)
        if year is not None and named is not None and int(named[1]) != year:
            raise DatasetError(f"is not VOC {year}", path=root, hint="name its parent folder")
        return root
    if not root.is_dir():
        raise DatasetError("no such folder", path=root, hint="name a VOCdevkit or VOC folder")
    if (root / "VOCdevkit").is_dir():
        return voc_folder(root / "VOCdevkit", year)
    years = {
        int(named[1]): child
        for child in sorted(root.iterdir())
        if (named := _YEAR_FOLDER.fullmatch(child.name)) and (child / "Annotations").is_dir()
    }
    if not years:
        raise DatasetError(
            "holds no VOC data: no Annotations and no VOC<year> folder",
            path=root,
            hint="name a VOCdevkit or VOC folder, or download one",
        )
    if year is None and len(years) == 1:
        return next(iter(years.values()))
    if year not in years:
        problem = "holds several years" if year is None else f"has no VOC{year}"
        raise DatasetError(
            problem, path=root, hint=f"choose year {' or '.join(str(y) for y in years)}"
        )
    return years[year]


def voc_splits(folder: Path) -> tuple[str, ...]:
    """List the splits in `ImageSets/Main`, without per-class lists such as `dog_train`."""
    stems = sorted(path.stem for path in (folder / "ImageSets" / "Main").glob("*.txt"))
    per_class = class_lists(folder)
    return tuple(stem for stem in stems if stem not in per_class)


def read_split(folder: Path, split: str) -> tuple[str, ...]:
    """Read the image ids of a split, in its order.

    Raises:
        DatasetError: no such split (the ones that exist are listed), no ids in it, one twice.
    """
    is_path = split.endswith(".txt") or "/" in split or "\\" in split
    path = Path(split) if is_path else folder / "ImageSets" / "Main" / f"{split}.txt"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        have = ", ".join(voc_splits(folder)) or "none"
        raise DatasetError(
            f"there is no split {split!r}", path=path, hint=f"splits that exist: {have}"
        ) from None
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"the split cannot be read ({error})", path=path, hint="give a text file of ids"
        ) from None
    has_flags = not is_path and split in class_lists(folder)
    lines = (_parse_flag(line) if has_flags else line.strip() for line in text.splitlines())
    ids = [image_id for image_id in lines if image_id]
    if not ids:
        raise DatasetError("the split lists no images", path=path, hint="write one id per line")
    image_id, count = Counter(ids).most_common(1)[0]
    if count > 1:
        raise DatasetError(f"lists {image_id} twice", path=path, hint="list each id once")
    return tuple(ids)


def _parse_flag(line: str) -> str:
    """Read the id on a line of a per-class list; "" for a blank line and an image marked -1."""
    image_id, _, flag = line.strip().rpartition(" ")
    if flag in ("-1", "0", "1"):
        return "" if flag == "-1" else image_id.strip()
    return line.strip()


def class_lists(folder: Path) -> frozenset[str]:
    """The per-class lists in `ImageSets/Main`: `dog_train` where a `train` is."""
    stems = {path.stem for path in (folder / "ImageSets" / "Main").glob("*.txt")}
    return frozenset(s for s in stems if "_" in s and s.rsplit("_", 1)[1] in stems)


def _read_classes(folder: Path) -> tuple[str, ...]:
    path = folder / CLASSES_FILE
    if not path.is_file():
        return VOC_CLASSES
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"cannot be read ({error})", path=path, hint="write one class name per line"
        ) from None
    names = tuple(line.strip() for line in lines if line.strip())
    if len(set(names)) < len(names):
        name = Counter(names).most_common(1)[0][0]
        raise DatasetError(f"names {name!r} twice", path=path, hint="name each class once")
    return names


def _read_sample(folder: Path, image_id: str, classes: ClassList) -> Sample:
    path = confine_path(folder / "Annotations", f"{image_id}.xml", path=folder)
    annotation = read_annotation(path)
    image = _image_path(folder / "JPEGImages", image_id, annotation, path)
    width, height = annotation.width, annotation.height
    if width is None or height is None:
        width, height = image_size(image)
    objects = check_objects(annotation, width, height, classes, path=path)
    return make_sample(image_id, image, (width, height), objects)


def _capitalize(suffix: str) -> str:
    return f".{suffix[1:].capitalize()}"


def _image_path(folder: Path, image_id: str, annotation: VocAnnotation, path: Path) -> Path:
    """Find the image by its id, as the devkit does; failing that, by its `<filename>`."""
    spellings = {f(s) for s in IMAGE_SUFFIXES for f in (str.lower, str.upper, _capitalize)}
    for suffix in (".jpg", *sorted(spellings)):
        image = folder / f"{image_id}{suffix}"
        if image.is_file():
            return image
    if annotation.filename is not None:
        image = confine_path(folder, annotation.filename, path=path)
        if image.is_file():
            return image
    raise DatasetError(
        f"the image of {image_id} is missing",
        path=folder / f"{image_id}.jpg",
        hint="restore it, or take its id off the split",
    )
