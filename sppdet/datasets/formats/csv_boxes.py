"""Tables of boxes, a row for each: CSV with or without a header, in any order of columns.

A row without a box is an image without objects. Where several tables lie in a folder, their names
tell their splits (`train_labels.csv`), or those of their folders (`train/_annotations.csv`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from sppdet.core.errors import AnnotationError, DatasetError
from sppdet.datasets.annotations import MAX_SIDE
from sppdet.datasets.formats.csv_columns import (
    MAX_SAMPLE,
    TABLE_HEAD,
    TABLE_SUFFIXES,
    Columns,
    class_order,
    find_columns,
    is_cut_short,
    read_rows,
    to_number,
)
from sppdet.datasets.formats.folders import first_bytes, is_image, list_folder, stem
from sppdet.datasets.formats.image_finder import (
    FolderListings,
    ImageFinder,
    find_bare_images,
    index_stems,
    name_parts,
    split_in_name,
)
from sppdet.datasets.raw import (
    BAD_OBJECT,
    CONFIDENCE,
    NO_IMAGE,
    OTHER_TABLE,
    Findings,
    RawDataset,
    RawImage,
    RawObject,
)
from sppdet.datasets.splits import SPLIT_NAMES, split_of_name

_TRUE = ("1", "1.0", "true", "yes")


class _Table(NamedTuple):
    """A table: its file, its rows with their line numbers, and what its columns are."""

    path: Path
    rows: list[tuple[int, list[str]]]
    header: list[str]
    columns: Columns


@dataclass(slots=True)
class _Image:
    """What the rows of one image say."""

    name: str
    split: str | None
    objects: list[RawObject]
    sizes: set[tuple[int, int] | None]
    lost: int = 0


def matches(source: Path) -> bool:
    """Return whether a file is a table of boxes, or a folder holds one: by its first rows."""
    if source.is_file():
        return _is_table(source)
    return source.is_dir() and bool(find_tables(source))


def find_tables(folder: Path) -> list[Path]:
    """Find the tables of boxes in a folder; where there are none, those in folders of splits."""
    files, folders = list_folder(folder)
    tables = [folder / name for name in files if _is_table(folder / name)]
    if tables:
        return tables
    inner = [folder / name for name in folders if split_of_name(name) is not None]
    found = [[one / name for name in list_folder(one)[0] if _is_table(one / name)] for one in inner]
    # The table of a single folder is a data set of its own.
    return [path for each in found for path in each] if sum(map(bool, found)) > 1 else []


def read(
    source: Path, findings: Findings, *, images: Path | None = None, within: Path | None = None
) -> RawDataset:
    """Read a table, or all those of a folder.

    Args:
        source: the file or folder.
        findings: gets what is wrong with single rows.
        images: the folder of the images; by default they are looked for around the table.
        within: the folder that the search for images does not leave; by default any.

    Raises:
        DatasetError: there is no table of boxes.
        AnnotationError: a table that cannot be read.
    """
    paths = find_tables(source) if source.is_dir() else [source]
    if not paths:
        raise DatasetError(
            "no table of boxes in this folder",
            path=source,
            hint="give a CSV of filename,class,xmin,ymin,xmax,ymax",
        )
    splits = {
        path: split_in_name(path.stem)
        if path.parent in (source, source.parent)
        else path.parent.name
        for path in paths
    }
    if any(splits.values()):
        for path in [path for path in paths if splits[path] is None]:
            findings.add(OTHER_TABLE, path, "lies beside tables of splits, and is not read")
        paths = [path for path in paths if splits[path] is not None]
        order = list(SPLIT_NAMES)
        paths.sort(key=lambda path: order.index(split_of_name(splits[path] or "") or "train"))
    listings = FolderListings(within)
    raw: list[RawImage] = []
    told: dict[str, None] = {}
    for path in paths:
        table = _read_table(path)
        told[table.columns.describe(table.header)] = None
        raw += _read_images(table, splits[path], findings, images, listings)
    folder = source.parent if source.is_file() else source
    if source.is_dir() or paths == find_tables(folder):
        find_bare_images(raw, listings, findings)
    return RawDataset(
        format=f"CSV ({'; '.join(told)})",
        name=source.stem if source.is_file() else source.absolute().name,
        images=raw,
        classes=class_order(folder, raw),
        splits=tuple(dict.fromkeys(image.split for image in raw if image.split is not None)),
    )


def _is_table(path: Path) -> bool:
    if path.suffix.lower() not in TABLE_SUFFIXES or not path.is_file():
        return False
    data = first_bytes(path, TABLE_HEAD)
    text = data.decode("utf-8-sig", "replace")
    whole = text if len(data) < TABLE_HEAD else text[: text.rfind("\n") + 1]
    try:
        return find_columns([row for _, row in read_rows(whole, path, 50)]) is not None
    except AnnotationError:
        return False


def _read_table(path: Path) -> _Table:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DatasetError("no such file", path=path, hint="check the path") from None
    except UnicodeDecodeError:
        # What Excel writes in western Europe; every byte is a character.
        text = path.read_text(encoding="latin-1")
    except (OSError, ValueError) as error:
        raise AnnotationError(f"cannot be read ({error})", path=path, hint="check it") from None
    rows = list(read_rows(text, path))
    columns = find_columns([row for _, row in rows[:MAX_SAMPLE]])
    if columns is None:
        raise AnnotationError(
            "is not a table of boxes: no columns of image, class and x1, y1, x2, y2 are found",
            path=path,
            hint="name them in the first line: filename,class,xmin,ymin,xmax,ymax",
        )
    header = rows[0][1] if columns.has_header else []
    return _Table(path, rows[1:] if columns.has_header else rows, header, columns)


def _read_images(
    table: _Table,
    split: str | None,
    findings: Findings,
    images: Path | None,
    listings: FolderListings,
) -> list[RawImage]:
    path = table.path
    by_name: dict[tuple[str, str | None], _Image] = {}
    if is_cut_short(table.rows, table.columns):
        number, row = table.rows.pop()
        findings.add(
            BAD_OBJECT, path, f"line {number} is cut short: {', '.join(row)[:60]!r}", split
        )
    for number, row in table.rows:
        _read_row(table, number, row, split, by_name, findings)
    names = [one.name for one in by_name.values()]
    finders: dict[str | None, ImageFinder] = {}
    by_stem = {} if all(map(is_image, names)) else index_stems(images or path.parent, listings)
    stems: dict[str | None, set[str]] = {}
    # Two names may lead to one file, as `a.jpg` and `a` do: an image has the rows of both.
    by_place: dict[tuple[Path, str | None], RawImage] = {}
    for one in by_name.values():
        parts = name_parts(one.name)
        if not parts:
            findings.add(NO_IMAGE, path, f"{one.name[:60]!r} names no image", one.split)
            continue
        if one.split not in finders:
            finders[one.split] = ImageFinder(
                [(name,) for name in names],
                path.parent,
                images=images,
                split=one.split,
                listings=listings,
            )
        place = by_stem.get(parts[-1]) or finders[one.split].locate(one.name)
        key = (place.absolute(), one.split)
        size = next(iter(one.sizes)) if len(one.sizes) == 1 else None
        if (first := by_place.get(key)) is not None:
            first.objects += one.objects
            first.lost += one.lost
            first.size = size if size == first.size else None
            continue
        image_id = stem(parts[-1]) if is_image(parts[-1]) else parts[-1]
        seen = stems.setdefault(one.split, set())
        if image_id in seen:
            image_id = PurePosixPath(*parts).as_posix()
        seen.add(image_id)
        by_place[key] = RawImage(image_id, place, path, size, one.objects, one.split, one.lost)
    return list(by_place.values())


def _read_row(
    table: _Table,
    number: int,
    row: Sequence[str],
    split: str | None,
    by_name: dict[tuple[str, str | None], _Image],
    findings: Findings,
) -> None:
    """Read one row into the images by their names."""
    places, what = table.columns.places, f"line {number}"

    def cell(role: str) -> str:
        place = places.get(role, len(row))
        return row[place].strip() if place < len(row) else ""

    name = cell("image")
    if not name:
        findings.add(BAD_OBJECT, table.path, f"{what} names no image", split)
        return
    own = cell("split").lower() if split_of_name(cell("split")) is not None else split
    image = by_name.setdefault((name, own), _Image(name, own, [], set()))
    image.sizes.add(_size(cell("width"), cell("height")))
    cells = [row[place].strip() if place < len(row) else "" for place in table.columns.box]
    if not any(cells):
        return
    numbers = [value for text in cells if (value := to_number(text)) is not None]
    label = cell("class")
    if len(numbers) < 4 or not label:
        problem = "has no class" if not label else f"has no whole box ({', '.join(cells)})"
        findings.add(BAD_OBJECT, table.path, f"{what} {problem[:100]}", own)
        image.lost += 1
        return
    x1, y1, x2, y2 = numbers
    box = (x1, y1, x1 + x2, y1 + y2) if table.columns.has_sides else (x1, y1, x2, y2)
    if (to_number(cell("confidence")) or 1.0) != 1.0:
        findings.add(CONFIDENCE, table.path, f"{what} has {cell('confidence')}", own)
    image.objects.append(
        RawObject(
            label,
            box,
            what,
            relative=table.columns.relative,
            difficult=cell("difficult").lower() in _TRUE,
            crowd=cell("crowd").lower() in _TRUE,
        )
    )


def _size(width: str, height: str) -> tuple[int, int] | None:
    sides = [to_number(width), to_number(height)]
    whole = [int(v) for v in sides if v is not None and 1 <= v <= MAX_SIDE and v.is_integer()]
    return (whole[0], whole[1]) if len(whole) == 2 else None
