"""Annotation files of the common tools, made small: each function writes one, and its images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from PIL import Image

WIDTH, HEIGHT = 160, 120
NAMES = ("a.jpg", "b.jpg", "c.jpg")
# Class and half-open box of the objects of each image.
OBJECTS: tuple[tuple[tuple[str, tuple[float, float, float, float]], ...], ...] = (
    (("cat", (20, 20, 80, 90)), ("dog", (0, 0, 160, 120))),
    (("cat", (10, 30, 50.5, 70.25)),),
    (),
)


def write_image(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """Write a small image, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 60)).save(path)
    return path


def write_images(folder: Path) -> None:
    """Write the images that all the files here are of."""
    for name in NAMES:
        write_image(folder / name)


def write_json(path: Path, value: Any, *, mark: bool = False) -> Path:
    """Write a JSON file, with a byte order mark if asked for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8-sig" if mark else "utf-8")
    return path


def coco_document(**changes: Any) -> dict[str, Any]:
    """A COCO instances file of the images, with categories of the ids 1 and 7."""
    objects = [(n, *item) for n, items in enumerate(OBJECTS, 1) for item in items]
    document: dict[str, Any] = {
        "images": [
            {"id": n, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for n, name in enumerate(NAMES, 1)
        ],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": {"cat": 1, "dog": 7}[name],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1) / 2,
                "iscrowd": 0,
            }
            for number, (image, name, (x1, y1, x2, y2)) in enumerate(objects, 1)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    return document | changes


def label_studio_tasks() -> list[dict[str, Any]]:
    """Tasks as Label Studio exports them, of images that were uploaded to it."""
    return [
        {
            "id": number,
            "data": {"image": f"/data/upload/1/0a1b2c3d-{name}"},
            "file_upload": f"0a1b2c3d-{name}",
            "annotations": [{"id": number, "was_cancelled": False, "result": _regions(items)}],
            "predictions": [],
        }
        for number, (name, items) in enumerate(zip(NAMES, OBJECTS, strict=True), 1)
    ]


def _regions(items: tuple[tuple[str, tuple[float, float, float, float]], ...]) -> list[Any]:
    return [
        {
            "original_width": WIDTH,
            "original_height": HEIGHT,
            "image_rotation": 0,
            "value": {
                "x": 100 * x1 / WIDTH,
                "y": 100 * y1 / HEIGHT,
                "width": 100 * (x2 - x1) / WIDTH,
                "height": 100 * (y2 - y1) / HEIGHT,
                "rotation": 0,
                "rectanglelabels": [name],
            },
            "id": f"r{number}",
            "from_name": "label",
            "to_name": "image",
            "type": "rectanglelabels",
        }
        for number, (name, (x1, y1, x2, y2)) in enumerate(items)
    ]


def labelme_documents() -> dict[str, dict[str, Any]]:
    """LabelMe's files by name; the last has no shape."""
    return {
        name.replace(".jpg", ".json"): {
            "version": "5.4.1",
            "flags": {},
            "shapes": [
                {
                    "label": label,
                    "points": [[x2, y2], [x1, y1]],
                    "group_id": None,
                    "shape_type": "rectangle",
                    "flags": {},
                }
                for label, (x1, y1, x2, y2) in items
            ],
            "imagePath": name,
            "imageData": "AAAA",
            "imageHeight": HEIGHT,
            "imageWidth": WIDTH,
        }
        for name, items in zip(NAMES, OBJECTS, strict=True)
    }


def cvat_root() -> Element:
    """CVAT's XML for images 1.1, with its labels in the order of dog and cat."""
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    labels = SubElement(SubElement(SubElement(root, "meta"), "task"), "labels")
    for name in ("dog", "cat"):
        SubElement(SubElement(labels, "label"), "name").text = name
    for number, (name, items) in enumerate(zip(NAMES, OBJECTS, strict=True)):
        image = SubElement(
            root, "image", id=str(number), name=name, width=str(WIDTH), height=str(HEIGHT)
        )
        for label, box in items:
            corners = dict(zip(("xtl", "ytl", "xbr", "ybr"), map(str, box), strict=True))
            SubElement(image, "box", {"label": label, "occluded": "0", **corners})
    return root


def write_xml(path: Path, root: Element) -> Path:
    """Write an XML file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'<?xml version="1.0" encoding="utf-8"?>\n' + tostring(root))
    return path
