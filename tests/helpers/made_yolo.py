"""YOLO labels and tables of the images of `made_annotations`."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.made_annotations import HEIGHT, NAMES, OBJECTS, WIDTH

CLASSES = ("cat", "dog")
# What every layout gives: the boxes by the images' stems, in pixels.
BOXES = {
    name.removesuffix(".jpg"): [(label, tuple(map(float, box))) for label, box in items]
    for name, items in zip(NAMES, OBJECTS, strict=True)
}


def label_line(name: str, box: tuple[float, float, float, float]) -> str:
    """Format an object as a line of YOLO."""
    x1, y1, x2, y2 = box
    shares = ((x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT)
    return " ".join([str(CLASSES.index(name)), *map(repr, shares)])


def write_text(path: Path, text: str) -> Path:
    """Write a text file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_labels(folder: Path) -> None:
    """Write the label files of all images, an empty one for the one without objects."""
    for name, items in zip(NAMES, OBJECTS, strict=True):
        text = "\n".join(label_line(*item) for item in items)
        write_text(folder / name.replace(".jpg", ".txt"), text)


def table_rows(order: str) -> list[str]:
    """Rows of a table; `order` names the columns, as `filename class x1 y1 x2 y2`."""
    rows = []
    for name, items in zip(NAMES, OBJECTS, strict=True):
        objects = items or [("", ("", "", "", ""))]
        for label, (x1, y1, x2, y2) in objects:
            values = {"filename": name, "class": label, "x1": x1, "y1": y1, "x2": x2, "y2": y2}
            values |= {"width": WIDTH, "height": HEIGHT}
            rows.append(",".join(str(values[column]) for column in order.split()))
    return rows
