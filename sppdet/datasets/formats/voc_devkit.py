"""What VOC's own devkit fixes: its 20 classes, folders of years, and the lists of its splits.

Layout (VOC devkit documentation, section 5): `VOC<year>/Annotations/<id>.xml`,
`VOC<year>/JPEGImages/<id>.jpg`, and splits, an id on each line, in
`VOC<year>/ImageSets/Main/<split>.txt`. Lists per class (`dog_train`) have a flag after the id.
"""

from __future__ import annotations

import re
from pathlib import Path

from sppdet.core.errors import DatasetError
from sppdet.datasets.splits import SPLIT_NAMES, read_lines

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

_YEAR_FOLDER = re.compile(r"VOC(\d{4})")


def year_folders(root: Path) -> dict[int, Path]:
    """List the `VOC<year>` folders with annotations in a devkit, by year."""
    years = {
        int(named[1]): child
        for child in root.iterdir()
        if (named := _YEAR_FOLDER.fullmatch(child.name)) and (child / "Annotations").is_dir()
    }
    return dict(sorted(years.items()))


def year_name(folder: Path) -> str | None:
    """Return a folder's name if it is `VOC<year>`, also where it is named as `.` or by a link."""
    names = (folder.name, folder.resolve().name)
    return next((name for name in names if _YEAR_FOLDER.fullmatch(name)), None)


def voc_folder(root: Path, year: int | None = None) -> Path:
    """Find the folder of a year in a devkit: `root/VOC<year>`, or `root` if it is one.

    Raises:
        DatasetError: none or several fit; lists the years that are there.
    """
    if (root / "Annotations").is_dir():
        if year is not None and year_name(root) not in (None, f"VOC{year}"):
            raise DatasetError(f"is not VOC {year}", path=root, hint="name its parent folder")
        return root
    years = year_folders(root)
    if not years:
        raise DatasetError("holds no VOC<year> folder", path=root, hint="omit --year")
    if year is None and len(years) == 1:
        return next(iter(years.values()))
    if year not in years:
        problem = "holds several years" if year is None else f"has no VOC{year}"
        raise DatasetError(
            problem, path=root, hint=f"choose year {' or '.join(str(y) for y in years)}"
        )
    return years[year]


def split_path(root: Path, split: str) -> Path:
    """Return the path of a split's list."""
    return root / "ImageSets" / "Main" / f"{split}.txt"


def read_split_lists(root: Path, wanted: str | None) -> dict[str, tuple[str, ...]]:
    """Read the lines of the splits' lists, training first; of lists per class, the wanted alone.

    Empty lists, which CVAT writes for unused splits, are passed over.

    Raises:
        DatasetError: one cannot be read, or the wanted one lists no images.
    """
    stems = sorted(path.stem for path in (root / "ImageSets" / "Main").glob("*.txt"))
    per_class = {s for s in stems if "_" in s and s.rsplit("_", 1)[1] in stems}
    lists = {}
    for name in (stem for stem in stems if stem == wanted or stem not in per_class):
        path = split_path(root, name)
        lines = read_lines(path)
        if name in per_class:
            lines = [image_id for line in lines if (image_id := _parse_flag(line))]
        if lines:
            lists[name] = tuple(lines)
        elif name == wanted:
            raise DatasetError("the split lists no images", path=path, hint="write one id per line")
    order = {name: place for place, name in enumerate(SPLIT_NAMES)}
    return dict(sorted(lists.items(), key=lambda item: order.get(item[0], len(order))))


def _parse_flag(line: str) -> str:
    """Read the id on a line of a list per class; "" for an image marked -1, without the class."""
    image_id, _, flag = line.rpartition(" ")
    if flag in ("-1", "0", "1"):
        return "" if flag == "-1" else image_id.strip()
    return line
