"""The writers of each format: VOC XML, COCO, YOLO, CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sppdet.core.files import atomic_write_text
from sppdet.core.types import Sample
from sppdet.datasets.splits import split_of_name
from sppdet.datasets.voc_xml import VocObject, format_annotation

Target = Literal["voc", "coco", "yolo", "csv"]
TARGETS: tuple[Target, ...] = ("voc", "coco", "yolo", "csv")

# Shares of the sides are written so: to a thousandth of a pixel of any image.
_DIGITS = 8


class NamedImage(NamedTuple):
    """A sample and the name that its image is written under, unique without its suffix too."""

    sample: Sample
    name: str

    @property
    def stem(self) -> str:
        return self.name[: self.name.rindex(".")]


Splits = Mapping[str | None, Sequence[NamedImage]]


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
    lines = _format_splits(splits)
    names = [f"  {n}: '" + name.replace("'", "''") + "'" for n, name in enumerate(classes)]
    text = "\n".join([*lines, f"nc: {len(classes)}", "names:", *names, ""])
    atomic_write_text(folder / "data.yaml", text)
    for split, images in splits.items():
        place = folder / "labels" / (split or "")
        place.mkdir(parents=True, exist_ok=True)
        for image in images:
            _write(place / f"{image.stem}.txt", _format_yolo(image.sample))
    return {split: "images" if split is None else f"images/{split}" for split in splits}


def yolo_keys(splits: Iterable[str | None]) -> dict[str, list[str]]:
    """Name the splits for each key of a `data.yaml`; the split is empty where there are none.

    Tools want both `train` and `val`: without a `val`, it is the images of `test`, else `train`.
    """
    keys: dict[str, list[str]] = {}
    for split in splits:
        keys.setdefault("train" if split is None else split_of_name(split) or split, []).append(
            split or ""
        )
    if "train" not in keys:
        keys = {"train" if key == "trainval" else key: own for key, own in keys.items()}
    if "train" in keys:
        keys.setdefault("val", keys.get("test", keys["train"]))
    return keys


def _format_splits(splits: Splits) -> list[str]:
    """Format the lines of a `data.yaml` that name the splits."""
    lines = []
    for key, own in yolo_keys(splits).items():
        places = [f"images/{split}".rstrip("/") for split in own]
        if len(places) == 1:
            lines.append(f"{key}: {places[0]}")
        else:
            lines += [f"{key}:", *(f"  - {place}" for place in places)]
    return lines


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


WRITERS: dict[Target, Callable[[Path, Splits, Sequence[str]], dict[str | None, str]]] = {
    "voc": _write_voc,
    "coco": _write_coco,
    "yolo": _write_yolo,
    "csv": _write_csv,
}
