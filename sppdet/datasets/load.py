"""The one door to data sets: find out what a folder or file is, and read it.

To add a format: a module in `formats` with `matches` and `read`, and a line in `FORMATS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sppdet.core.errors import DatasetError, count_noun
from sppdet.core.images import IMAGE_SUFFIXES
from sppdet.core.types import Dataset
from sppdet.datasets.build import MAX_LOST, build_dataset
from sppdet.datasets.class_names import trim
from sppdet.datasets.formats import coco, csv_boxes, cvat, label_studio, labelme, voc, yolo
from sppdet.datasets.formats.voc_layout import GENERIC_NAMES
from sppdet.datasets.formats.yolo_pairs import has_labels_alone
from sppdet.datasets.raw import Findings, RawDataset
from sppdet.datasets.splits import drop_repeats, select_images

# A data set is looked for in the folder that is named, and in folders so far below it.
MAX_DEPTH = 2

_ANNOTATION_FOLDERS = ("annotation", "annotations", "annots", "json", "labels")
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar", ".zst")

# Class names and data sets that a line names.
_MAX_NAMED = 6


@dataclass(frozen=True, slots=True)
class Format:
    """One format of annotations.

    Attributes:
        title: for people.
        matches: whether a folder or file looks like it: names and first bytes only.
        read: `read(source, findings, **options)` gives its `RawDataset`.
        options: what `read` understands, of `images`, `within`, `year` and `split`.
    """

    title: str
    matches: Callable[[Path], bool]
    read: Callable[..., RawDataset]
    options: frozenset[str] = frozenset()


# Formats whose images are looked for around a file.
_SEARCH = frozenset({"images", "within"})
# By the name that `--format` takes. Where several fit a folder, the first of them is taken.
FORMATS: dict[str, Format] = {
    "voc": Format("VOC XML", voc.matches, voc.read, frozenset({"images", "year", "split"})),
    "coco": Format("COCO", coco.matches, coco.read, _SEARCH | {"split"}),
    "labelstudio": Format("Label Studio JSON", label_studio.matches, label_studio.read, _SEARCH),
    "cvat": Format("CVAT XML", cvat.matches, cvat.read, _SEARCH),
    "labelme": Format("LabelMe JSON", labelme.matches, labelme.read, _SEARCH),
    "yolo": Format("YOLO", yolo.matches, yolo.read, frozenset({"images"})),
    "csv": Format("CSV", csv_boxes.matches, csv_boxes.read, _SEARCH),
}


def load_dataset(
    source: Path | str,
    split: str | None = None,
    *,
    format: str | None = None,
    classes: Sequence[str] | None = None,
    images: Path | None = None,
    year: int | None = None,
    strict: bool = False,
    findings: Findings | None = None,
    allow_missing: bool = False,
    max_lost: float = MAX_LOST,
) -> Dataset:
    """Read a data set of any format: half-open boxes in pixels of the upright images.

    Args:
        source: a folder or an annotation file; a folder may hold the data set one or two folders
            further down.
        split: `train`, `val`, `test` and so on, under the data set's own name or another tool's;
            or the path of a text file of ids. None for all images.
        format: a name in `FORMATS`, where the guess is wrong.
        classes: names to keep, in their order; by default those of the data.
        images: folder of the images, for a file that does not lead to them.
        year: which of a VOC devkit's years.
        strict: refuse at the first thing that is wrong.
        findings: gets everything that is wrong but could be left out.
        allow_missing, max_lost: as in `build_dataset`.

    Raises:
        DatasetError: not a data set, an unknown format, split or class, or too much of it wrong.
        AnnotationError: a file that cannot be understood at all, or `strict`.
    """
    findings = Findings() if findings is None else findings
    raw = read_dataset(source, findings, split, format=format, images=images, year=year)
    return build_dataset(
        raw,
        findings,
        split=split,
        classes=classes,
        allow_missing=allow_missing,
        strict=strict,
        max_lost=max_lost,
        path=Path(source),
    )


def read_dataset(
    source: Path | str,
    findings: Findings,
    split: str | None = None,
    *,
    format: str | None = None,
    images: Path | None = None,
    year: int | None = None,
) -> RawDataset:
    """Read the annotations of a data set of any format, unchecked: all splits, or what `split`
    needs where a format can tell; the other arguments are those of `load_dataset`.

    Raises:
        DatasetError, AnnotationError: as `load_dataset`.
    """
    if images is not None and not images.is_dir():
        raise DatasetError("no such folder of images", path=images, hint="check --images")
    name, folder = locate(Path(source), format)
    chosen = FORMATS[name]
    options: dict[str, Any] = {"images": images, "year": year}
    given = {key: value for key, value in options.items() if value is not None}
    for key in given.keys() - chosen.options:
        raise DatasetError(f"{chosen.title} has no use for --{key}", path=source, hint="omit it")
    if split is not None and "split" in chosen.options:
        given["split"] = split
    if "within" in chosen.options and images is None:
        given["within"] = _own_folder(Path(source).absolute())
    raw = chosen.read(folder, findings, **given)
    if raw.name.lower() in GENERIC_NAMES:
        raw.name = folder.absolute().parent.name or raw.name
    return drop_repeats(raw, findings)


def locate(source: Path, format: str | None = None) -> tuple[str, Path]:
    """Find the data set in or below `source`: its format's name, and its folder or file.

    Raises:
        DatasetError: nothing there, an unknown format, no data set, or several.
    """
    if format is not None and format not in FORMATS:
        raise DatasetError(f"there is no format {format!r}", hint=f"formats: {', '.join(FORMATS)}")
    if not source.exists():
        raise DatasetError("no such file or folder", path=source, hint="check the path")
    if source.is_file() and source.suffix.lower() in _ARCHIVES:
        raise DatasetError("is an archive", path=source, hint="unpack it, and give its folder")
    wanted = [format] if format is not None else list(FORMATS)

    def by_format(folder: Path) -> str | None:
        return next((name for name in wanted if FORMATS[name].matches(folder)), None)

    def by_labels(folder: Path) -> str | None:
        return "yolo" if "yolo" in wanted and has_labels_alone(folder) else None

    # Labels without images only where there is nothing whole.
    for look in (by_format, by_labels):
        level = [source]
        for _ in range(MAX_DEPTH + 1):
            found = [(name, folder) for folder in level if (name := look(folder)) is not None]
            if len(found) == 1:
                return found[0]
            if found:
                raise _several(source, found)
            level = [child for folder in level for child in _folders(folder)]
    if format is not None:  # the user knows better than a look from afar
        return format, source
    raise _not_data(source)


def describe(raw: RawDataset, split: str | None = None) -> str:
    """Describe in one line what was found, such as
    `VOC XML, 164 images, 266 boxes, 1 class: kangaroo; splits: train, val`.
    """  # fmt: skip
    images = select_images(raw, split).images
    objects = [trim(one.name) for image in images for one in image.objects]
    classes = [*raw.classes] if raw.classes is not None else sorted(set(objects))
    named = ", ".join(classes[:_MAX_NAMED])
    more = len(classes) - _MAX_NAMED
    if more > 0:
        named += f" and {more} more"
    if split is not None:
        which = f"split {split}"
    elif raw.splits:
        which = f"splits: {', '.join(raw.splits)}"
    else:
        which = "no splits"
    counts = (
        count_noun(len(images), "image"),
        count_noun(len(objects), "box", "boxes"),
        count_noun(len(classes), "class", "classes"),
    )
    return f"{raw.format}, {', '.join(counts)}: {named}; {which}"


def _own_folder(source: Path) -> Path:
    """Return the folder that is the whole data set: that of `source`, not annotations alone.

    A file is often in a folder beside those of the images, `annotations/train.json`.
    """
    if source.is_file():
        return source.parent.parent
    return source.parent if source.name.lower() in _ANNOTATION_FOLDERS else source


def _folders(folder: Path) -> Iterator[Path]:
    """Yield the folders in a folder, sorted, without hidden ones."""
    if not folder.is_dir():
        return
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise DatasetError(
            f"cannot be listed ({error.strerror})", path=folder, hint="check its permissions"
        ) from None
    yield from (folder / name for name in names if name != "__MACOSX")


def _several(source: Path, found: Sequence[tuple[str, Path]]) -> DatasetError:
    named = ", ".join(
        f"{folder.relative_to(source)} ({FORMATS[name].title})"
        for name, folder in found[:_MAX_NAMED]
    )
    more = f" and {len(found) - _MAX_NAMED} more" if len(found) > _MAX_NAMED else ""
    return DatasetError(
        f"holds {len(found)} data sets: {named}{more}", path=source, hint="name one of them"
    )


def _not_data(source: Path) -> DatasetError:
    formats = ", ".join(one.title for one in FORMATS.values())
    if source.is_dir():
        images = sum(
            path.suffix.lower() in IMAGE_SUFFIXES
            for folder in (source, *_folders(source))
            for path in folder.iterdir()
        )
        if images:
            return DatasetError(
                f"holds {count_noun(images, 'image')}, but no annotations of a known format",
                path=source,
                hint="label them first (labelImg, CVAT and Label Studio are free tools), or name "
                f"the folder that holds the annotations too ({formats})",
            )
        packed = [path.name for path in source.iterdir() if path.suffix.lower() in _ARCHIVES]
        if packed:
            return DatasetError(
                "holds no data set, but an archive", path=source, hint=f"unpack {min(packed)}"
            )
    what = "holds no data set" if source.is_dir() else "is not an annotation file"
    return DatasetError(
        f"{what} of a known format", path=source, hint=f"known are {formats}; --format names one"
    )
