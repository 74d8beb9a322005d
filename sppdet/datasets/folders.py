"""Images sorted into a folder for each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sppdet.datasets.common import class_list
from sppdet.errors import DatasetError
from sppdet.images import IMAGE_SUFFIXES
from sppdet.types import IntArray


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImages:
    """Image files with one class each.

    Attributes:
        name: what reports call them.
        classes: class names; a label indexes this tuple.
        paths: the files, class by class, by name.
        labels: `int64 (N,)`.
    """

    name: str
    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: IntArray

    def __len__(self) -> int:
        return len(self.paths)


def load_class_folders(
    root: Path, split: str | None = None, *, classes: Sequence[str] | None = None
) -> LabelledImages:
    """The images of `root/<class>/`, or of `root/<split>/<class>/`.

    Files are chosen by suffix and not yet opened; hidden ones and folders inside a class's folder
    are left out. Classes are in the order of their names.

    Args:
        root: the folder of folders.
        split: a folder between `root` and those of the classes.
        classes: the classes to tell apart, in this order; a class may then have no folder.

    Raises DatasetError: no such folder; no folder with images in it; one without any; a folder of
    a class that is not among `classes`.
    """
    folder = Path(root) if split is None else Path(root) / split
    found = {child.name: child for child in _folders(folder)}
    if not found:
        raise DatasetError(
            "holds no folders of images", where=folder, mend="make one folder a class"
        )
    names = tuple(sorted(found)) if classes is None else tuple(classes)
    class_list(names, ignore_unknown=False)
    unknown = sorted(set(found) - set(names))
    if unknown:
        raise DatasetError(
            f"is not one of the classes {', '.join(names)}",
            where=found[unknown[0]],
            mend="rename the folder, or take it away",
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        files = _images(found[name]) if name in found else []
        paths += files
        labels += [label] * len(files)
    return LabelledImages(str(folder), names, tuple(paths), np.array(labels, np.int64))


def _folders(folder: Path) -> list[Path]:
    try:
        children = sorted(folder.iterdir())
    except FileNotFoundError:
        raise DatasetError("no such folder", where=folder, mend="check the path") from None
    # A file, a folder that may not be listed, a name too long or with a NUL.
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"cannot be listed ({error})", where=folder, mend="name a folder of folders of images"
        ) from None
    return [child for child in children if child.is_dir() and not child.name.startswith(".")]


def _images(folder: Path) -> list[Path]:
    children = list(folder.iterdir())
    files = [c for c in children if c.suffix.lower() in IMAGE_SUFFIXES and c.is_file()]
    files = sorted(c for c in files if not c.name.startswith("."))
    if files:
        return files
    if any(child.is_dir() for child in children):
        raise DatasetError(
            "holds folders, and no images",
            where=folder,
            mend=f"if it is a split, name it: --split {folder.name}",
        )
    raise DatasetError("holds no images", where=folder, mend="add some, or delete the folder")
