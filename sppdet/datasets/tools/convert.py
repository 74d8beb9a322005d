"""Writing a data set in another tool's format: VOC XML, COCO, YOLO, CSV.

Images are linked or copied. What a format cannot hold is told. Images without objects are kept.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sppdet.core.errors import DatasetError
from sppdet.core.files import atomic_write_text, new_folder
from sppdet.core.images import IMAGE_SUFFIXES
from sppdet.core.types import Dataset, Sample
from sppdet.datasets.build import MAX_LOST, build_dataset
from sppdet.datasets.load import read_dataset
from sppdet.datasets.raw import Findings
from sppdet.datasets.voc_xml import VocObject, format_annotation

Target = Literal["voc", "coco", "yolo", "csv"]
TARGETS: tuple[Target, ...] = ("voc", "coco", "yolo", "csv")

LOST_DIFFICULT = "images with difficult or crowd objects, written as ordinary ones"
DIFFICULT_AS_CROWD = "images with difficult objects, written as crowd (iscrowd)"
LOST_AREAS = "images with areas of masks, which the format does not hold"
RENAMED = "images written under another name"

# Shares of the sides are written so: to a thousandth of a pixel of any image.
_DIGITS = 8
# Characters that file systems, lists and other tools stumble over.
_UNSAFE = re.compile(r"[^\w.()+ -]|^[.\-# ]+|\s+$")


class _Image(NamedTuple):
    """A sample and the name that its image is written under, unique without its suffix too."""

    sample: Sample
    name: str

    @property
    def stem(self) -> str:
        return self.name[: self.name.rindex(".")]


Splits = Mapping[str | None, Sequence[_Image]]


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
        findings.all += [one for one in own.all if one not in known]
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
    writers: dict[Target, Callable[[Path, Splits, Sequence[str]], dict[str | None, str]]] = {
        "voc": _write_voc,
        "coco": _write_coco,
        "yolo": _write_yolo,
        "csv": _write_csv,
    }
    with new_folder(out) as folder:
        image_folders = writers[to](folder, named, classes)
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
        split: [_Image(sample, by_path[sample.path]) for sample in dataset]
        for split, dataset in splits.items()
    }


def _find_losses(splits: Splits, to: Target, findings: Findings) -> None:
    for split, images in splits.items():
        for image in images:
            sample = image.sample
            if to != "coco" and sample.areas is not None and len(sample.areas):
                findings.add(LOST_AREAS, sample.path, f"has {len(sample.areas)}", split)
            difficult = int(sample.difficult.sum())
            kind = {"yolo": LOST_DIFFICULT, "coco": DIFFICULT_AS_CROWD}.get(to)
            if difficult and kind is not None:
                findings.add(kind, sample.path, f"has {difficult}", split)


def _write_voc(folder: Path, splits: Splits, classes: Sequence[str]) -> dict[str | None, str]:
    for images in splits.values():
        for image in images:
            sample = image.sample
            objects = [
                VocObject(classes[label], (box[0], box[1], box[2], box[3]), difficult=difficult)
                for label, box, difficult in zip(
                    sample.labels.tolist(),
                    sample.boxes.tolist(),
                    sample.difficult.tolist(),
                    strict=True,
                )
            ]
            xml = format_annotation("JPEGImages", image.name, sample.width, sample.height, objects)
            _write(folder / "Annotations" / f"{image.stem}.xml", xml)
    for split, images in splits.items():
        if split is not None:
            lines = "".join(f"{image.stem}\n" for image in images)
            _write(folder / "ImageSets" / "Main" / f"{split}.txt", lines)
    atomic_write_text(folder / "classes.txt", "".join(f"{name}\n" for name in classes))
    return dict.fromkeys(splits, "JPEGImages")


def _write_coco(folder: Path, splits: Splits, classes: Sequence[str]) -> dict[str | None, str]:
    categories = [{"id": n, "name": name} for n, name in enumerate(classes, 1)]
    for split, images in splits.items():
        annotations: list[dict[str, Any]] = []
        for number, image in enumerate(images, 1):
            sample = image.sample
            for at, (x1, y1, x2, y2) in enumerate(sample.boxes.tolist()):
                area = (x2 - x1) * (y2 - y1)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": int(sample.labels[at]) + 1,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": area if sample.areas is None else float(sample.areas[at]),
                        "iscrowd": int(sample.difficult[at]),
                    }
                )
        content = {
            "images": [
                {
                    "id": number,
                    "file_name": image.name,
                    "width": image.sample.width,
                    "height": image.sample.height,
                }
                for number, image in enumerate(images, 1)
            ],
            "annotations": annotations,
            "categories": categories,
        }
        name = "instances.json" if split is None else f"instances_{split}.json"
        _write(folder / "annotations" / name, json.dumps(content, allow_nan=False))
    return {split: "images" if split is None else f"images/{split}" for split in splits}


def _write_yolo(folder: Path, splits: Splits, classes: Sequence[str]) -> dict[str | None, str]:
    lines = [f"{split or 'train'}: images{f'/{split}' if split else ''}" for split in splits]
    names = [f"  {n}: '" + name.replace("'", "''") + "'" for n, name in enumerate(classes)]
    text = "\n".join([*lines, f"nc: {len(classes)}", "names:", *names, ""])
    atomic_write_text(folder / "data.yaml", text)
    for split, images in splits.items():
        place = folder / "labels" / (split or "")
        place.mkdir(parents=True, exist_ok=True)
        for image in images:
            _write(place / f"{image.stem}.txt", _format_yolo(image.sample))
    return {split: "images" if split is None else f"images/{split}" for split in splits}


def _format_yolo(sample: Sample) -> str:
    lines = []
    for label, (x1, y1, x2, y2) in zip(sample.labels.tolist(), sample.boxes.tolist(), strict=True):
        shares = (
            (x1 + x2) / 2 / sample.width,
            (y1 + y2) / 2 / sample.height,
            (x2 - x1) / sample.width,
            (y2 - y1) / sample.height,
        )
        lines.append(f"{label} " + " ".join(f"{share:.{_DIGITS}f}" for share in shares) + "\n")
    return "".join(lines)


def _write_csv(folder: Path, splits: Splits, classes: Sequence[str]) -> dict[str | None, str]:
    columns = ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]
    has_difficult = any(one.sample.difficult.any() for images in splits.values() for one in images)
    for split, images in splits.items():
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow([*columns, "difficult"] if has_difficult else columns)
        for image in images:
            sample = image.sample
            start = [image.name, sample.width, sample.height]
            if not len(sample.boxes):
                table.writerow([*start, *[""] * (5 + has_difficult)])
            for at, box in enumerate(sample.boxes.tolist()):
                row = [*start, classes[sample.labels[at]], *box]
                table.writerow([*row, int(sample.difficult[at])] if has_difficult else row)
        name = "labels.csv" if split is None else f"{split}_labels.csv"
        _write(folder / name, text.getvalue())
    rows = io.StringIO()
    csv.writer(rows, lineterminator="\n").writerows([name, n] for n, name in enumerate(classes))
    atomic_write_text(folder / "classes.csv", rows.getvalue())
    return {split: split or "images" for split in splits}


def _write(path: Path, text: str) -> None:
    """Write a file of the new folder; the folder as a whole is what is atomic."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
