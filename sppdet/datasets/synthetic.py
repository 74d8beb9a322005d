"""A generator of small VOC-format data sets, for tests and for trying things out."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from numpy.random import RandomState
from PIL import Image

from sppdet.datasets.shapes import SYNTHETIC_CLASSES, draw_scene
from sppdet.datasets.voc import CLASSES_FILE
from sppdet.datasets.voc_annotation import format_annotation
from sppdet.errors import DatasetError

MIN_SIDE = 64
_FOLDER_MODE = 0o755
_JPEG_QUALITY = 90


def make_synthetic_voc(
    root: Path,
    *,
    train: int = 24,
    val: int = 12,
    test: int = 12,
    width: int = 320,
    height: int = 240,
    max_objects: int = 4,
    classes: Sequence[str] = SYNTHETIC_CLASSES,
    seed: int = 0,
) -> Path:
    """Write a VOC-format data set of shapes to `root`, which must not exist or be empty.

    The layout is the devkit's: `Annotations`, `JPEGImages`, `ImageSets/Main/{train, val,
    trainval, test}.txt` (a split without images is left out), and `classes.txt`. `root` appears
    whole or not at all.

    Law: the same arguments give the same bytes (with the same JPEG encoder), and image number n
    depends on the seed, the size and the classes only, not on how many images there are.

    Args:
        train, val, test: how many images each split has.
        width, height: size of the images in pixels, `MIN_SIDE` at least.
        max_objects: how many shapes an image has at most; at least one is always there.
        classes: some of `SYNTHETIC_CLASSES`.
        seed: from 0 to 2**32 - 1.

    Raises:
        DatasetError: `root` is taken, or an argument is out of range.
    """
    root = Path(root)
    _check(root, (train, val, test), (width, height), max_objects, classes, seed)
    root.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}.", suffix=".part"))
    try:
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (part / folder).mkdir(parents=True)
        for number in range(1, train + val + test + 1):
            random = RandomState([seed, number])
            image, objects = draw_scene(
                random,
                width,
                height,
                classes,
                first=classes[(number - 1) % len(classes)],
                max_objects=max_objects,
            )
            name = f"{number:06d}"
            xml = format_annotation("synthetic", f"{name}.jpg", width, height, objects)
            (part / "Annotations" / f"{name}.xml").write_text(xml, encoding="utf-8")
            stream = io.BytesIO()
            Image.fromarray(image).save(stream, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
            (part / "JPEGImages" / f"{name}.jpg").write_bytes(stream.getvalue())
        _write_splits(part / "ImageSets" / "Main", train, val, test)
        (part / CLASSES_FILE).write_text("".join(f"{c}\n" for c in classes), encoding="utf-8")
        part.chmod(_FOLDER_MODE)
        part.replace(root)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return root


def _write_splits(folder: Path, train: int, val: int, test: int) -> None:
    both = train + val
    bounds = {
        "train": (0, train),
        "val": (train, both),
        "trainval": (0, both),
        "test": (both, both + test),
    }
    for split, (start, stop) in bounds.items():
        if stop > start:
            ids = "".join(f"{number:06d}\n" for number in range(start + 1, stop + 1))
            (folder / f"{split}.txt").write_text(ids, encoding="utf-8")


def _check(
    root: Path,
    counts: tuple[int, int, int],
    size: tuple[int, int],
    max_objects: int,
    classes: Sequence[str],
    seed: int,
) -> None:
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DatasetError("is already there", where=root, mend="delete it, or name another folder")
    if min(counts) < 0 or sum(counts) == 0:
        raise DatasetError("a data set needs images", mend="ask for at least one, in any split")
    if min(size) < MIN_SIDE:
        raise DatasetError(
            f"{size[0]}x{size[1]} is too small", mend=f"make both sides {MIN_SIDE} pixels or more"
        )
    if max_objects < 1:
        raise DatasetError(f"max_objects is {max_objects}", mend="allow at least one")
    unknown = [c for c in classes if c not in SYNTHETIC_CLASSES]
    if unknown or not classes or len(set(classes)) != len(classes):
        raise DatasetError(
            f"classes are {', '.join(classes) or 'none'}",
            mend=f"name each once, of {', '.join(SYNTHETIC_CLASSES)}",
        )
    if not 0 <= seed < 2**32:
        raise DatasetError(f"the seed is {seed}", mend="choose one from 0 to 4294967295")
