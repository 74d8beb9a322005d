"""Pascal VOC data sets: a devkit folder, a split, a class list -> a `Dataset`.

Layout (VOC devkit documentation, section 5): `Annotations/<id>.xml`, `JPEGImages/<id>.jpg`, and
splits, one id a line, in `ImageSets/Main/<split>.txt`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sppdet.datasets.common import ClassList, class_list, confined
from sppdet.datasets.voc_annotation import VocAnnotation, checked_objects, read_annotation
from sppdet.errors import DatasetError, SppdetError
from sppdet.images import IMAGE_SUFFIXES, image_size
from sppdet.types import Dataset, Sample

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

# A data set of other classes names them, one a line, in this file beside its Annotations folder.
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
    """The split's samples in its order, with half-open boxes in original-image pixels.

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
        classes = _classes(folder)
    names = class_list(classes, ignore_unknown=ignore_unknown)
    ids = read_split(folder, split)
    samples = []
    for image_id in ids:
        try:
            samples.append(_sample(folder, image_id, names))
        except SppdetError as error:
            if problems is None:
                raise
            problems.append(error)
    return Dataset(f"{folder.name} {Path(split).stem}", names.names, tuple(samples))


def voc_folder(root: Path, year: int | None = None) -> Path:
    """The folder that holds `Annotations`: `root`, `root/VOC<year>` or `root/VOCdevkit/VOC<year>`.

    Raises:
        DatasetError: none or several fit; lists the years that are there.
    """
    if (root / "Annotations").is_dir():
        named = _YEAR_FOLDER.fullmatch(root.resolve().name)
        if year is not None and named is not None and int(named[1]) != year:
            raise DatasetError(f"is not VOC {year}", where=root, mend="name its parent folder")
        return root
    if not root.is_dir():
        raise DatasetError("no such folder", where=root, mend="name a VOCdevkit or VOC folder")
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
            where=root,
            mend="name a VOCdevkit or VOC folder, or download one",
        )
    if year is None and len(years) == 1:
        return next(iter(years.values()))
    if year not in years:
        problem = "holds several years" if year is None else f"has no VOC{year}"
        raise DatasetError(
            problem, where=root, mend=f"choose year {' or '.join(str(y) for y in years)}"
        )
    return years[year]


def voc_splits(folder: Path) -> tuple[str, ...]:
    """The splits in `ImageSets/Main`, without the devkit's per-class lists such as `dog_train`."""
    stems = sorted(path.stem for path in (folder / "ImageSets" / "Main").glob("*.txt"))
    whole = set(stems)
    return tuple(s for s in stems if "_" not in s or s.rsplit("_", 1)[1] not in whole)


def read_split(folder: Path, split: str) -> tuple[str, ...]:
    """The image ids of a split, in its order.

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
            f"there is no split {split!r}", where=path, mend=f"splits that exist: {have}"
        ) from None
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"the split cannot be read ({error})", where=path, mend="give a text file of ids"
        ) from None
    ids = [image_id for line in text.splitlines() if (image_id := _split_line(line))]
    if not ids:
        raise DatasetError("the split lists no images", where=path, mend="write one id a line")
    seen: set[str] = set()
    for image_id in ids:
        if image_id in seen:
            raise DatasetError(f"lists {image_id} twice", where=path, mend="list each id once")
        seen.add(image_id)
    return tuple(ids)


def _split_line(line: str) -> str:
    """The id on a line; "" for a blank line and for an image that a per-class list marks -1."""
    fields = line.split()
    if len(fields) == 2 and fields[1] in ("-1", "0", "1"):
        return "" if fields[1] == "-1" else fields[0]
    return line.strip()


def _classes(folder: Path) -> tuple[str, ...]:
    path = folder / CLASSES_FILE
    if not path.is_file():
        return VOC_CLASSES
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"cannot be read ({error})", where=path, mend="write one class name a line"
        ) from None
    return tuple(line.strip() for line in lines if line.strip())


def _sample(folder: Path, image_id: str, classes: ClassList) -> Sample:
    path = confined(folder / "Annotations", f"{image_id}.xml", where=folder)
    annotation = read_annotation(path)
    image = _image_path(folder / "JPEGImages", image_id, annotation, path)
    width, height = annotation.width, annotation.height
    if width is None or height is None:
        width, height = image_size(image)
    labels, boxes, difficult = checked_objects(annotation, width, height, classes, where=path)
    return Sample(
        image_id=image_id,
        path=image,
        width=width,
        height=height,
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.array(labels, dtype=np.int64),
        difficult=np.array(difficult, dtype=np.bool_),
    )


def _image_path(folder: Path, image_id: str, annotation: VocAnnotation, where: Path) -> Path:
    """The image by its id, as the devkit does; failing that, by its `<filename>`."""
    usual = folder / f"{image_id}.jpg"
    if usual.is_file():
        return usual
    for suffix in sorted(IMAGE_SUFFIXES | {s.upper() for s in IMAGE_SUFFIXES}):
        path = folder / f"{image_id}{suffix}"
        if path.is_file():
            return path
    if annotation.filename is not None:
        path = confined(folder, annotation.filename, where=where)
        if path.is_file():
            return path
    raise DatasetError(
        f"the image of {image_id} is missing",
        where=usual,
        mend="restore it, or take its id off the split",
    )
