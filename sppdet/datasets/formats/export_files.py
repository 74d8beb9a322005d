"""Annotation files that a tool exports for a whole project: found in a folder, named by split."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from sppdet.core.errors import DatasetError
from sppdet.datasets.formats.image_finder import FolderListings, split_in_name

# Files looked into per folder: formats with one file per image have thousands.
MAX_FILES = 100


def find_exports(
    source: Path, suffix: str, is_export: Callable[[Path], bool], listings: FolderListings
) -> list[Path]:
    """List the files of a format: the source itself, or those in the folder, sorted."""
    if source.is_file():
        return [source]
    names = sorted(name for name in listings.files(source) if name.lower().endswith(suffix))
    return [source / name for name in names[:MAX_FILES] if is_export(source / name)]


def name_exports(source: Path, files: Sequence[Path], title: str) -> list[str | None]:
    """Name the split of each file; None for a lone file without one in its name.

    Raises:
        DatasetError: no file, or several that are not each of a split of its own.
    """
    splits = [split_in_name(path.stem) for path in files]
    if len(files) == 1 or (files and None not in splits and len(set(splits)) == len(files)):
        return splits
    if not files:
        raise DatasetError(
            f"no {title} export in this folder", path=source, hint="give the exported file itself"
        )
    named = ", ".join(path.name for path in files[:5])
    raise DatasetError(
        f"holds {len(files)} {title} exports ({named})",
        path=source,
        hint="name one of them, or call them train and val",
    )


def name_images(paths: Sequence[Path]) -> list[str]:
    """Name images after their files, with folders where two files have one name."""
    stems = [path.stem for path in paths]
    if len(set(stems)) == len(set(paths)):
        return stems
    common = os.path.commonpath([path.absolute().parent for path in paths])
    return [path.absolute().relative_to(common).with_suffix("").as_posix() for path in paths]
