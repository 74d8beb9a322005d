"""Writing a data set in another tool's format: VOC XML, COCO, YOLO, CSV.

Images are linked or copied. What a format cannot hold is told. Images without objects are kept.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sppdet.core.errors import DatasetError
from sppdet.core.files import new_folder
from sppdet.core.images import IMAGE_SUFFIXES
from sppdet.core.types import Dataset, Sample
from sppdet.datasets.build import MAX_LOST, build_dataset
from sppdet.datasets.load import read_dataset
from sppdet.datasets.raw import NO_OBJECTS_HERE, Finding, Findings
from sppdet.datasets.tools.writers import (
    TARGETS,
    WRITERS,
    NamedImage,
    Splits,
    Target,
    yolo_keys,
)

LOST_DIFFICULT = "images with difficult or crowd objects, written as ordinary ones"
DIFFICULT_AS_CROWD = "images with difficult objects, written as crowd (iscrowd)"
LOST_AREAS = "images with areas of masks, which the format does not hold"
RENAMED = "images written under another name"
SAME_VAL = "data sets without a val split, other images named as val too"

# Characters that file systems, lists and other tools stumble over.
_UNSAFE = re.compile(r"[^\w.()+ -]|^[.\-# ]+|\s+$")


def load_splits(
    source: Path | str,
    findings: Findings | None = None,
    *,
    format: str | None = None,
    images: Path | None = None,
    year: int | None = None,
    classes: Sequence[str] | None = None,
    strict: bool = False,
    max_lost: float = MAX_LOST,
) -> dict[str | None, Dataset]:
    """Read all splits of a data set, with the same classes; that of a set without is `None`.

    Raises:
        DatasetError, AnnotationError: as `load_dataset`.
    """
    findings = Findings() if findings is None else findings
    raw = read_dataset(source, findings, format=format, images=images, year=year)
    path = Path(source)
    out: dict[str | None, Dataset] = {}
    lacking: Counter[Finding] = Counter()
    for split in raw.splits or (None,):
        own = Findings()
        own.all = list(findings.all)
        out[split] = build_dataset(
            raw,
            own,
            split=split,
            classes=classes,
            strict=strict,
            max_lost=max_lost,
            path=path,
        )
        known = set(findings.all)
        new = [one for one in own.all if one not in known]
        lacking.update(one for one in new if one.kind == NO_OBJECTS_HERE)
        findings.all += [one for one in new if one.kind != NO_OBJECTS_HERE]
    # Only a class that no split has is worth a word.
    findings.all += [one for one, count in lacking.items() if count == len(out)]
    return out


def convert_dataset(
    splits: Mapping[str | None, Dataset], out: Path, to: Target, *, copy: bool = False
) -> Findings:
    """Write the splits of a data set in a format; a folder that is there is refused.

    Args:
        splits: data sets of the same classes by the splits' names; `None` for one without splits.
        out: the new folder. It is there whole, or not at all.
        to: the format.
        copy: copy the images, rather than link to them.

    Returns:
        What the format cannot hold.

    Raises:
        DatasetError: `out` is there already, or an image that cannot be copied.

    Invariant: `load_dataset` of `out` gives the same boxes, classes and images.
    """
    if to not in TARGETS:
        raise DatasetError(f"there is no writer for {to!r}", hint=f"formats: {', '.join(TARGETS)}")
    classes = next(iter(splits.values())).classes if splits else ()
    if not splits or any(one.classes != classes for one in splits.values()):
        raise ValueError("splits of no, or of different, classes")
    findings = Findings()
    named = _name_images(splits, findings)
    _find_losses(named, to, findings)
    keys = yolo_keys(splits)
    same = [key for key in ("test", "train") if "val" in keys and keys.get(key) == keys["val"]]
    if to == "yolo" and same:
        message = f"its val is the same images as its {same[0]}; `data split` makes a val apart"
        findings.add(SAME_VAL, out / "data.yaml", message)
    with new_folder(out) as folder:
        image_folders = WRITERS[to](folder, named, classes)
        for split, images in named.items():
            place = folder / image_folders[split]
            place.mkdir(parents=True, exist_ok=True)
            for image in images:
                _place_image(image.sample.path, place / image.name, copy=copy)
    return findings


def _place_image(source: Path, target: Path, *, copy: bool) -> None:
    if target.is_symlink() or target.exists():  # the same image in another split
        return
    try:
        if copy:
            shutil.copyfile(source, target)
        else:
            target.symlink_to(source.resolve(strict=True))
    except (OSError, RuntimeError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        verb = "copied" if copy else "linked"
        hint = "check the file" if copy else "check the file, or copy the images"
        raise DatasetError(f"cannot be {verb} ({problem})", path=source, hint=hint) from None


def _name_images(splits: Mapping[str | None, Dataset], findings: Findings) -> Splits:
    """Name each image by its own name, changed where two have the same, or it is not safe."""
    by_path: dict[Path, str] = {}
    taken: set[str] = set()
    for split, dataset in splits.items():
        for sample in dataset:
            if sample.path in by_path:
                continue
            suffix = sample.path.suffix if sample.path.suffix.lower() in IMAGE_SUFFIXES else ".jpg"
            own = sample.path.stem if suffix == sample.path.suffix else sample.path.name
            stem = _UNSAFE.sub("_", own) or "image"
            if stem.lower() in taken and split is not None:
                stem = f"{split}_{stem}"
            number, first = 1, stem
            while stem.lower() in taken:
                number += 1
                stem = f"{first}_{number}"
            taken.add(stem.lower())
            name = stem + suffix
            if name != sample.path.name:
                findings.add(RENAMED, sample.path, f"is {name}", split)
            by_path[sample.path] = name
    return {
        split: [NamedImage(sample, by_path[sample.path]) for sample in dataset]
        for split, dataset in splits.items()
    }


def _has_own_areas(sample: Sample) -> bool:
    """Tell if areas of masks say more than the boxes do."""
    if sample.areas is None:
        return False
    sides = (sample.boxes[:, 2:] - sample.boxes[:, :2]).astype(np.float64)
    return not np.allclose(sample.areas, sides.prod(axis=1), rtol=1e-3, atol=1.0)


def _find_losses(splits: Splits, to: Target, findings: Findings) -> None:
    for split, images in splits.items():
        for image in images:
            sample = image.sample
            if to != "coco" and _has_own_areas(sample):
                findings.add(LOST_AREAS, sample.path, f"has {len(sample.boxes)}", split)
            difficult = int(sample.difficult.sum())
            kind = {"yolo": LOST_DIFFICULT, "coco": DIFFICULT_AS_CROWD}.get(to)
            if difficult and kind is not None:
                findings.add(kind, sample.path, f"has {difficult}", split)
