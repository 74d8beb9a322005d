"""The COCO instances files in a folder, and the splits that they are of."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from sppdet.datasets.formats.image_finder import FolderListings, split_in_name
from sppdet.datasets.formats.json_values import ends_of_file

ROBOFLOW = "_annotations.coco.json"
_FOLDERS = ("annot", "label", "coco", "json")

# JSON files looked into per folder: formats with one file per image have thousands.
MAX_FILES = 100

# COCO's own files beside the instances, which hold no boxes of objects or the same ones again.
_OTHER_FILES = ("captions", "image_info", "panoptic", "stuff", "person_keypoints")
_WORDS = ("images", "annotations", "categories", "image_id", "category_id", "file_name")


def is_instances_file(path: Path) -> bool:
    """Tell by the ends of a file whether it is a COCO instances file."""
    if path.suffix.lower() != ".json":
        return False
    text = ends_of_file(path)
    labelme = '"shapes"' in text and '"imagePath"' in text
    return text.startswith("{") and not labelme and sum(f'"{w}"' in text for w in _WORDS) >= 3


def find_instances(folder: Path, listings: FolderListings) -> list[Path]:
    """List the instances files of a folder, sorted; else of its folders that are made for them.

    Those are named after annotations or a split, or hold Roboflow's `_annotations.coco.json`.
    """
    found = _instances_in(folder, listings)
    if found:
        return found
    for inner in listings.folders(folder):
        made_for = inner.name.lower().startswith(_FOLDERS) or split_in_name(inner.name) is not None
        if made_for or ROBOFLOW in listings.files(inner):
            found += _instances_in(inner, listings)
    return found


def _instances_in(folder: Path, listings: FolderListings) -> list[Path]:
    names = sorted(name for name in listings.files(folder) if name.lower().endswith(".json"))
    if ROBOFLOW in names:
        return [folder / ROBOFLOW]
    return _instances_of([folder / name for name in names[:MAX_FILES]])


def _instances_of(paths: list[Path]) -> list[Path]:
    """Choose the files of one folder that are read."""
    found = [path for path in paths if is_instances_file(path)]
    named = [path for path in found if path.name.startswith("instances")]
    return named or [path for path in found if not path.name.startswith(_OTHER_FILES)] or found


def name_splits(files: list[Path]) -> list[str | None]:
    """Name the split of each file after its own name, else its folder's; None for a lone file."""
    named = [split_in_name(path.stem) or split_in_name(path.parent.name) for path in files]
    if len(files) == 1:
        return named
    counts = Counter(named)
    stems = Counter(path.stem for path in files)
    return [
        name
        if name is not None and counts[name] == 1
        else path.stem
        if stems[path.stem] == 1
        else path.parent.name
        for name, path in zip(named, files, strict=True)
    ]
