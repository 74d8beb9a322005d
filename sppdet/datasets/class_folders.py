"""Reading images that are sorted into one folder per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sppdet.core.errors import DatasetError
from sppdet.core.images import select_images
from sppdet.core.types import IntArray
from sppdet.datasets.annotations import make_class_list


@dataclass(frozen=True, slots=True, eq=False)
class LabeledImages:
    """Image files with one class per image.

    Attributes:
        name: what reports call them.
        classes: class names; a label indexes this tuple.
        paths: the files, class by class, sorted by name.
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
) -> LabeledImages:
    """Find the images of `root/<class>/`, or of `root/<split>/<class>/`.

    Files are chosen by suffix and not yet opened; hidden ones and folders inside a class's folder
    are left out. Classes are in the order of their names.

    Args:
        root: the folder of folders.
        split: a folder between `root` and those of the classes.
        classes: the classes to tell apart, in this order; a class may then have no folder.

    Raises:
        DatasetError: no such folder; no folder with images in it; one without any; a folder of
            a class that is not among `classes`.
    """
    folder = Path(root) if split is None else Path(root) / split
    class_folders = {child.name: child for child in _list_folders(folder)}
    if not class_folders:
        raise DatasetError(
            "holds no folders of images", path=folder, hint="make one folder per class"
        )
    names = make_class_list(sorted(class_folders) if classes is None else classes).names
    unknown = sorted(set(class_folders) - set(names))
    if unknown:
        raise DatasetError(
            f"is not one of the classes {', '.join(names)}",
            path=class_folders[unknown[0]],
            hint="rename the folder, or take it away",
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        files = _list_images(class_folders[name]) if name in class_folders else []
        paths += files
        labels += [label] * len(files)
    return LabeledImages(str(folder), names, tuple(paths), np.array(labels, np.int64))


def _list_folders(folder: Path) -> list[Path]:
    try:
        children = sorted(folder.iterdir())
    except FileNotFoundError:
        raise DatasetError("no such folder", path=folder, hint="check the path") from None
    # A file, a folder that may not be listed, a name too long or with a NUL.
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"cannot be listed ({error})", path=folder, hint="name a folder of folders of images"
        ) from None
    return [child for child in children if child.is_dir() and not child.name.startswith(".")]


def _list_images(folder: Path) -> list[Path]:
    children = list(folder.iterdir())
    files = select_images(children)
    if files:
        return files
    if any(child.is_dir() for child in children):
        raise DatasetError(
            "holds folders, and no images",
            path=folder,
            hint=f"if it is a split, name it: --split {folder.name}",
        )
    raise DatasetError("holds no images", path=folder, hint="add some, or delete the folder")
