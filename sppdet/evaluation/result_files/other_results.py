"""Results of other detectors: YOLO's text files with confidences, and CSV tables.

YOLO: a file per image, named like it, and per detection a line `class x y width height score`,
the center and sides in shares of the image's sides. CSV: a row per detection; its columns are
found by the names that tools give them.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sppdet.core.errors import EvaluationError
from sppdet.core.types import Dataset, Detections, Sample

# Label, score, and corners of a detection.
_Row = tuple[int, float, float, float, float, float]

_NO_RESULTS = frozenset({"classes.txt", "labels.txt", "obj.names"})
_COLUMNS = {
    "image": ("image_id", "filename", "file_name", "image", "file", "path", "image_path", "id"),
    "class": ("class_name", "class", "label", "name", "category", "labels", "category_name"),
    "score": ("score", "confidence", "conf", "probability", "prob", "scores"),
    "x1": ("x1", "xmin", "x_min", "left", "xtl"),
    "y1": ("y1", "ymin", "y_min", "top", "ytl"),
    "x2": ("x2", "xmax", "x_max", "right", "xbr"),
    "y2": ("y2", "ymax", "y_max", "bottom", "ybr"),
    "x": ("x", "bbox_x", "x1", "xmin", "left"),
    "y": ("y", "bbox_y", "y1", "ymin", "top"),
    "w": ("w", "width", "bbox_width", "bbox_w"),
    "h": ("h", "height", "bbox_height", "bbox_h"),
}
_CORNERS, _SIDES = ("x1", "y1", "x2", "y2"), ("x", "y", "w", "h")


def read_yolo_detections(
    folder: Path, dataset: Dataset, *, classes: Sequence[str] | None = None
) -> dict[str, Detections]:
    """Read a folder of YOLO text files: the detections by image id, best score first.

    Args:
        folder: of the .txt files; an image without one has no detections.
        dataset: the images and classes.
        classes: the class of each number in the files; by default those of a `classes.txt` in
            the folder, else the data set's.

    A line may hold a polygon, `class x1 y1 x2 y2 ... score`: the box around it counts.

    Raises:
        EvaluationError: no such files, an image that the data set lacks, or a malformed line;
            names the file and the line.
    """
    try:
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() == ".txt")
    except OSError as error:
        raise EvaluationError(
            f"the results cannot be listed ({error.strerror})", path=folder, hint="check the path"
        ) from None
    files = [path for path in paths if path.name.lower() not in _NO_RESULTS]
    if not files:
        raise EvaluationError(
            "holds no .txt file", path=folder, hint="give the folder that YOLO wrote its labels to"
        )
    if classes is None:
        classes = _listed_classes(folder / "classes.txt") or dataset.classes
    labels = _labels(dataset, classes)
    samples = _samples_by_name(dataset)
    rows: dict[str, list[_Row]] = {}
    for path in files:
        sample = samples.get(path.stem)
        if sample is None:
            raise _unknown_image(path.stem, str(path))
        rows[sample.image_id] = [
            row
            for number, line in enumerate(_read_text(path).splitlines(), 1)
            if line.strip()
            and (row := _yolo_row(line, sample, labels, f"{path}, line {number}"))[0] >= 0
        ]
    return _all_detections(dataset, rows)


def read_csv_detections(path: Path, dataset: Dataset) -> dict[str, Detections]:
    """Read a CSV table of detections: by image id, best score first.

    The first line names the columns: an image, a class, a score, and a box as corners or as
    corner, width and height. Boxes of which no side is above 1 are in shares of the image's.

    Raises:
        EvaluationError: no such file, a column that is missing, an image or class that the data
            set lacks, or a malformed row; names the file and the line.
    """
    lines = list(_csv_rows(path))
    if not lines:
        raise EvaluationError(
            "the table is empty", path=path, hint="write at least the names of its columns"
        )
    labels = {name: label for label, name in enumerate(dataset.classes)}
    places, has_corners = _find_columns([fields for _, fields in lines[:2]], labels, path)
    samples = _samples_by_name(dataset)
    parsed: list[tuple[str, _Row]] = []
    for number, fields in lines[1:]:
        where = f"{path}, line {number}"
        if len(fields) <= max(places.values()):
            raise EvaluationError(f"{len(fields)} fields", path=where, hint="fill all columns")
        name = fields[places["image"]].strip().replace("\\", "/")
        sample = samples.get(name) or samples.get(name.rpartition("/")[2])
        if sample is None:
            raise _unknown_image(name, where)
        class_name = fields[places["class"]].strip()
        if class_name not in labels:
            raise EvaluationError(
                f"class {class_name!r} is not one of the data set's",
                path=where,
                hint=f"its classes are {', '.join(dataset.classes)}",
            )
        columns = ("score", *(_CORNERS if has_corners else _SIDES))
        score, x1, y1, x2, y2 = _numbers([fields[places[key]] for key in columns], where)
        if not has_corners:
            x2, y2 = x1 + x2, y1 + y2
        parsed.append((sample.image_id, (labels[class_name], score, x1, y1, x2, y2)))
    relative = bool(parsed) and all(max(row[2:]) <= 1 for _, row in parsed)
    sizes = {sample.image_id: (sample.width, sample.height) for sample in dataset}
    rows: dict[str, list[_Row]] = {}
    for (number, _), (image_id, row) in zip(lines[1:], parsed, strict=True):
        scaled = _scale(row, sizes[image_id]) if relative else row
        _check_box(scaled, f"{path}, line {number}")
        rows.setdefault(image_id, []).append(scaled)
    return _all_detections(dataset, rows)


def _yolo_row(line: str, sample: Sample, labels: Sequence[int], where: str) -> _Row:
    """Parse a line; its label is -1 for a class that the data set lacks."""
    hint = "a line is: class, center x, center y, width, height, confidence (YOLO's save_conf)"
    fields = line.split()
    if len(fields) < 6 or len(fields) % 2:
        raise EvaluationError(f"{len(fields)} fields, not 6", path=where, hint=hint)
    number, *box, score = _numbers(fields, where, hint)
    if number != int(number) or not 0 <= number < len(labels):
        raise EvaluationError(
            f"class {fields[0]} is not one of {len(labels)}",
            path=where,
            hint="classes are counted from 0; list their names in a classes.txt beside the results",
        )
    if len(box) == 4:
        x, y, width, height = box
        corners = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    else:
        corners = min(box[::2]), min(box[1::2]), max(box[::2]), max(box[1::2])
    row = _scale((labels[int(number)], score, *corners), (sample.width, sample.height))
    _check_box(row, where)
    return row


def _labels(dataset: Dataset, classes: Sequence[str]) -> list[int]:
    """Return the data set's label of each class, -1 where it has none."""
    ours = {name: label for label, name in enumerate(dataset.classes)}
    if not ours.keys() & set(classes):
        raise EvaluationError(
            f"none of the classes {', '.join(classes)} is one of the data set's",
            path=dataset.name,
            hint=f"its classes are {', '.join(dataset.classes)}",
        )
    return [ours.get(name, -1) for name in classes]


def _listed_classes(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    return tuple(line.strip() for line in _read_text(path).splitlines() if line.strip())


def _samples_by_name(dataset: Dataset) -> dict[str, Sample]:
    """Map ids, file names and stems to samples; ids go first, what two have is left out."""
    out: dict[str, Sample] = {}
    repeated: set[str] = set()
    for sample in dataset:
        for name in {sample.path.name, sample.path.stem}:
            if name in out:
                repeated.add(name)
            out[name] = sample
    for name in repeated:
        del out[name]
    return out | {sample.image_id: sample for sample in dataset}


def _csv_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Return the lines that are not empty with their numbers; commas, semicolons or tabs part."""
    text = _read_text(path)
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        return [(reader.line_num, row) for row in reader if any(field.strip() for field in row)]
    except csv.Error as error:
        raise EvaluationError(f"the table cannot be read ({error})", path=path) from None


def _find_columns(
    first: Sequence[Sequence[str]], labels: Mapping[str, int], path: Path
) -> tuple[dict[str, int], bool]:
    """Return the place of each column by the first lines, and whether boxes are corners."""
    names = [name.strip().lower().replace(" ", "_") for name in first[0]]
    found = {
        key: next(names.index(word) for word in words if word in names)
        for key, words in _COLUMNS.items()
        if set(words) & set(names)
    }
    # Some tools write a class's number and its name.
    for word in _COLUMNS["class"] if len(first) > 1 else ():
        place = names.index(word) if word in names else len(first[1])
        if place < len(first[1]) and first[1][place].strip() in labels:
            found["class"] = place
            break
    has_corners = all(key in found for key in _CORNERS)
    wanted = ["image", "class", "score", *(_CORNERS if has_corners or "w" not in found else _SIDES)]
    missing = [key for key in wanted if key not in found]
    if missing:
        raise EvaluationError(
            f"no column {missing[0]!r} among {', '.join(names)[:200]}",
            path=path,
            hint="name the columns in the first line: image,class,score,x1,y1,x2,y2",
        )
    return {key: found[key] for key in wanted}, has_corners


def _numbers(fields: Sequence[str], where: str, hint: str = "correct the line") -> list[float]:
    try:
        numbers = [float(field) for field in fields]
    except ValueError:
        raise EvaluationError("a field is not a number", path=where, hint=hint) from None
    limit = float(np.finfo(np.float32).max) / 4
    # nan fails the comparison.
    if not all(abs(number) <= limit for number in numbers):
        raise EvaluationError("a number is not finite, or too large", path=where, hint=hint)
    return numbers


def _scale(row: _Row, size: tuple[int, int]) -> _Row:
    label, score, x1, y1, x2, y2 = row
    return label, score, x1 * size[0], y1 * size[1], x2 * size[0], y2 * size[1]


def _check_box(row: _Row, where: str) -> None:
    _, _, x1, y1, x2, y2 = row
    if not all(map(math.isfinite, row)) or x2 < x1 or y2 < y1:
        raise EvaluationError("the box is inverted", path=where, hint="correct the line")


def _all_detections(dataset: Dataset, rows: Mapping[str, Sequence[_Row]]) -> dict[str, Detections]:
    """Return every image's detections, best score first; ties keep the order of lines."""
    out = {}
    for sample in dataset:
        table = np.array(rows.get(sample.image_id, []), dtype=np.float64).reshape(-1, 6)
        table = table[np.argsort(-table[:, 1], kind="stable")]
        out[sample.image_id] = Detections(
            table[:, 2:].astype(np.float32),
            table[:, 1].astype(np.float32),
            table[:, 0].astype(np.int64),
            dataset.classes,
        )
    return out


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise EvaluationError("no such file", path=path, hint="check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"the file cannot be read ({error})", path=path) from None


def _unknown_image(name: str, where: str) -> EvaluationError:
    return EvaluationError(
        f"image {name} is not in the data set",
        path=where,
        hint="evaluate on the split that the results are of",
    )
