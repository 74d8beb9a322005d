"""What `--not` names: images that do not show a class, or detections of it that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppdet.core.errors import AnnotationError, DatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sppdet.detection.added.correct import WrongImage

# Class -> its wrong images; None stands for any class.
Wrong = dict[str | None, list["WrongImage"]]


def read_wrong(source: Path) -> Wrong:
    """Read a folder of images (or one), or a file that `sppdet detect --json` wrote.

    Images in a folder show none of the classes. In a file, each detection is one that is wrong.

    Raises:
        ImageError: no images there.
        DatasetError, AnnotationError: not such a file.
    """
    from sppdet.detection.added.correct import WrongImage
    from sppdet.media.sources import find_images

    if source.suffix.lower() == ".json" and not source.is_dir():
        return _read_detections(source)
    return {None: [WrongImage(path) for path in find_images(source)]}


def choose_wrong(wrong: Wrong, names: Sequence[str], source: Path) -> dict[str, list[WrongImage]]:
    """Choose what there is of some classes; DatasetError where that is nothing."""
    found = {name: wrong.get(name, wrong.get(None, [])) for name in names}
    chosen = {name: images for name, images in found.items() if images}
    if not chosen:
        there = ", ".join(sorted(name for name in wrong if name is not None))
        raise DatasetError(
            f"has no detection of {' or '.join(names) or 'an added class'}",
            path=source,
            hint=f"it has those of {there}" if there else "it is empty",
        )
    return chosen


def _read_detections(source: Path) -> Wrong:
    import numpy as np

    from sppdet.datasets.formats.json_values import read_json
    from sppdet.detection.added.correct import WrongImage

    boxes: dict[str, dict[Path, list[list[float]]]] = {}
    document = read_json(source)
    images = document.get("images") if isinstance(document, dict) else None
    if not isinstance(images, list):
        raise _no_detections(source, "has no list of images")
    for number, image in enumerate(images):
        try:
            path, found = _locate(source, image["file"]), image.get("detections", [])
            for one in found:
                of_class = boxes.setdefault(str(one["class"]), {})
                of_class.setdefault(path, []).append(_box(one["box"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            problem = f"image {number + 1} is not as it should be ({error})"
            raise _no_detections(source, problem) from None
    wrong: Wrong = {}
    for name, images_of_class in boxes.items():
        pairs = images_of_class.items()
        wrong[name] = [WrongImage(path, np.array(rows, np.float32)) for path, rows in pairs]
    return wrong


def _no_detections(source: Path, problem: str) -> AnnotationError:
    return AnnotationError(problem, path=source, hint="give a file that sppdet detect --json wrote")


def _locate(source: Path, name: str) -> Path:
    """Find an image: from where one is, as when it was detected in, or beside the file."""
    path = Path(name)
    return path if path.exists() or not (source.parent / path).exists() else source.parent / path


def _box(values: Any) -> list[float]:
    from sppdet.datasets.annotations import MAX_SIDE
    from sppdet.datasets.formats.json_values import as_numbers

    numbers = as_numbers(values)
    if numbers is None or len(numbers) != 4 or max(map(abs, numbers)) > MAX_SIDE:
        raise ValueError(f"{values} is no box")
    x1, y1, x2, y2 = numbers
    if not (x1 < x2 and y1 < y2):
        raise ValueError(f"the box {values} encloses nothing")
    return numbers
