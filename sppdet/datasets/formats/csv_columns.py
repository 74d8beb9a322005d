"""Which column of a table of boxes is what, by its header, else by its content.

Known tables: TensorFlow's (`filename,width,height,class,xmin,ymin,xmax,ymax`), keras-retinanet's
(`path,x1,y1,x2,y2,class`, no header), Open Images' (`ImageID,...,LabelName,...,XMin,XMax,YMin,
YMax,...` in shares of the sides), and others like them in any order.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sppdet.core.errors import AnnotationError
from sppdet.datasets.formats.folders import first_bytes, is_image, list_folder
from sppdet.datasets.raw import RawImage
from sppdet.datasets.splits import split_of_name

TABLE_SUFFIXES = (".csv", ".tsv")
# Of a table that is looked at to tell whether it is one.
TABLE_HEAD = 1 << 16
# Rows whose content decides.
MAX_SAMPLE = 2000
# Share of the rows that must agree; the rest may be dirt.
_MOST = 0.9
_DELIMITERS = ",;\t|"

_WORDS = {
    "image": (
        "filename file image imageid imagename imagepath imagefile filepath path img imgname "
        "imgpath imagefilename photo picture frame"
    ),
    "class": "class label labelname classname category categoryname object objectclass species",
    "x1": "xmin x1 left minx xleft bboxxmin bboxx1 xtl",
    "y1": "ymin y1 top miny ytop bboxymin bboxy1 ytl",
    "x2": "xmax x2 right maxx xright bboxxmax bboxx2 xbr",
    "y2": "ymax y2 bottom maxy ybottom bboxymax bboxy2 ybr",
    "x": "x bboxx boxx",
    "y": "y bboxy boxy",
    "w": "w bboxw boxw boxwidth bboxwidth",
    "h": "h bboxh boxh boxheight bboxheight",
    "width": "width imagewidth imgwidth",
    "height": "height imageheight imgheight",
    "split": "split set subset usage",
    "crowd": "isgroupof iscrowd",
    "difficult": "difficult",
    "confidence": "confidence score",
}
_MEANING = {word: role for role, words in _WORDS.items() for word in words.split()}
_CORNERS = ("x1", "y1", "x2", "y2")
_SIDES = ("x", "y", "w", "h")


@dataclass(slots=True)
class Columns:
    """Columns of a table by what they are.

    Attributes:
        places: of each role in `_WORDS` that is there.
        has_header: whether the first row is one.
        by_content: whether content, not the header, told what is what.
        relative: whether boxes are in shares of the image's sides.
    """

    places: dict[str, int] = field(default_factory=dict)
    has_header: bool = False
    by_content: bool = False
    relative: bool = False

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The columns of `x1 y1 x2 y2`, or of `x y w h`."""
        a, b, c, d = _CORNERS if "x1" in self.places else _SIDES
        return self.places[a], self.places[b], self.places[c], self.places[d]

    @property
    def has_sides(self) -> bool:
        """Whether boxes are `x y w h`."""
        return "x1" not in self.places

    def describe(self, header: Sequence[str]) -> str:
        """Say which columns are used: `image filename, class class, box xmin ymin xmax ymax`."""

        def name(place: int) -> str:
            if place < len(header) and header[place].strip():
                return header[place].strip()
            return str(place + 1)

        kind = "x y w h" if self.has_sides else "x1 y1 x2 y2"
        share = " in shares of the sides" if self.relative else ""
        used = " ".join(name(place) for place in self.box)
        parts = [f"image {name(self.places['image'])}"]
        if "class" in self.places:
            parts.append(f"class {name(self.places['class'])}")
        parts.append(f"{kind} {used}{share}")
        words = "columns" if self.has_header else "no header, columns"
        return f"{words}: {', '.join(parts)}"


def read_rows(
    text: str, path: Path, limit: int | None = None, *, comments: bool = True
) -> Iterator[tuple[int, list[str]]]:
    """Yield rows that are not blank, nor comments (`#`), with their line numbers.

    Without `comments`, a row may begin with the sign.

    Raises:
        AnnotationError: a field that never ends.
    """
    lines = [line for line in text.splitlines()[:20] if line.strip()]
    # The delimiter that most lines have, be one cut short; that of most columns.
    counts = {one: sorted(line.count(one) for line in lines) or [0] for one in _DELIMITERS}
    delimiter = max(_DELIMITERS, key=lambda d: counts[d][(len(counts[d]) - 1) // 4])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    count = 0
    try:
        for row in reader:
            is_comment = comments and row and row[0].lstrip().startswith("#")
            if any(cell.strip() for cell in row) and not is_comment:
                yield reader.line_num, row
                count += 1
                if count == limit:
                    return
    except csv.Error as error:
        raise AnnotationError(
            f"line {reader.line_num} cannot be read ({error})", path=path, hint="correct it"
        ) from None


def find_columns(rows: Sequence[Sequence[str]]) -> Columns | None:
    """Find the columns of a table from its first rows; None if it is no table of boxes."""
    if not rows:
        return None
    by_name = _read_header(rows[0])
    columns = by_name
    if columns is None or not _is_complete(columns):
        columns = _find_by_content(rows, columns or Columns())
    if columns is None:
        return None
    body = rows[1:] if columns.has_header else rows
    numbers = [to_number(_cell(row, place)) for row in body for place in columns.box]
    values = [value for value in numbers if value is not None]
    # Shares have fractions; a pixel or two more than the side is dirt.
    columns.relative = bool(values) and max(values) <= 1.0 + 0.05 and any(v % 1 for v in values)
    return columns


def is_cut_short(rows: Sequence[tuple[int, Sequence[str]]], columns: Columns) -> bool:
    """Tell if the last row, and no other, ends before its box."""
    least = max(columns.box) + 1
    short = [number for number, row in rows if len(row) < least]
    return len(rows) > 1 and short == [rows[-1][0]]


def to_number(text: str) -> float | None:
    """Read a finite number, with a point or a comma; None for anything else."""
    try:
        value = float(text.strip().replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _cell(row: Sequence[str], place: int) -> str:
    return row[place].strip() if place < len(row) else ""


def _read_header(row: Sequence[str]) -> Columns | None:
    """Return the columns that names tell, or None if the first row is no header."""
    if any(to_number(cell) is not None for cell in row) or any(is_image(c.strip()) for c in row):
        return None
    places: dict[str, int] = {}
    for place, cell in enumerate(row):
        role = _MEANING.get(re.sub(r"[^a-z0-9]", "", cell.lower()))
        if role is not None:
            places.setdefault(role, place)
    # No other column can be the box's sides.
    if {"x", "y", "width", "height"} <= places.keys() and not {"x1", "w"} & places.keys():
        places["w"], places["h"] = places.pop("width"), places.pop("height")
    return Columns(places, has_header=True)


def _is_complete(columns: Columns) -> bool:
    have = columns.places.keys()
    return {"image", "class"} <= have and (have >= set(_CORNERS) or have >= set(_SIDES))


def _find_by_content(rows: Sequence[Sequence[str]], named: Columns) -> Columns | None:
    body = rows[1:] if named.has_header else rows
    width = max((len(row) for row in body), default=0)
    taken = {place for role, place in named.places.items() if role not in ("image", "class")}
    places = dict(named.places)
    cells = [[_cell(row, place) for row in body] for place in range(width)]
    numeric = [_share(column, lambda cell: to_number(cell) is not None) for column in cells]
    if not (places.keys() >= set(_CORNERS) or places.keys() >= set(_SIDES)):
        box = _find_box(cells)
        if box is None:
            return None
        places.update(zip(_CORNERS, box, strict=True))
        taken |= set(box)
    free = [place for place in range(width) if place not in taken]
    if "image" not in places:
        names = [place for place in free if _share(cells[place], is_image) >= 0.5]
        if not names:
            return None
        places["image"] = names[0]
    free = [place for place in free if place != places["image"] and any(cells[place])]
    if "split" not in places:
        for place in free:
            if _share(cells[place], lambda cell: split_of_name(cell) is not None) == 1.0:
                places["split"] = place
                free.remove(place)
                break
    if "class" not in places:
        # Words before numbers; of several, the one of fewest different words.
        free.sort(key=lambda place: (numeric[place] >= _MOST, len(set(cells[place]))))
        if not free:
            return None
        places["class"] = free[0]
    return Columns(places, has_header=named.has_header, by_content=True)


def _find_box(cells: Sequence[Sequence[str]]) -> tuple[int, int, int, int] | None:
    """Find four columns side by side that are corners: as `x1 y1 x2 y2`, else `x1 x2 y1 y2`."""
    for order in ((0, 1, 2, 3), (0, 2, 1, 3)):
        best, most = None, 0.0
        for start in range(len(cells) - 3):
            if not all(map(_is_number_column, cells[start : start + 4])):
                continue
            a, b, c, d = (start + at for at in order)
            good, total = _count_corners(cells[a], cells[b], cells[c], cells[d])
            share = good / total if total else 0.0
            if _are_most(good, total) and (best is None or share > most):
                best, most = (a, b, c, d), share
        if best is not None:
            return best
    return None


def _count_corners(*columns: Sequence[str]) -> tuple[int, int]:
    """Count the rows whose four numbers are corners, and the rows of four numbers."""
    good = total = 0
    for row in zip(*columns, strict=True):
        numbers = [value for cell in row if (value := to_number(cell)) is not None]
        if len(numbers) == 4:
            x1, y1, x2, y2 = numbers
            total += 1
            good += x2 > x1 and y2 > y1
    return good, total


def _is_number_column(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell]
    return _are_most(sum(to_number(cell) is not None for cell in filled), len(filled))


def _are_most(good: int, total: int) -> bool:
    """Tell if rows are nearly all; in a short table, all but one, which may be cut short."""
    return total > 0 and (good >= _MOST * total or (good == total - 1 and total > 2))


def _share(cells: Sequence[str], fits: Callable[[str], bool]) -> float:
    """Return the share of the cells that are not empty which fit; 0 where all are empty."""
    filled = [cell for cell in cells if cell]
    return sum(map(fits, filled)) / len(filled) if filled else 0.0


def class_order(folder: Path, raw: Sequence[RawImage]) -> tuple[str, ...] | None:
    """Read the order of the classes from a table `class,number` beside; else None.

    Open Images' descriptions, `/m/01g317,Person`, put names in the place of ids.
    """
    used = {one.name for image in raw for one in image.objects}
    for name in list_folder(folder)[0]:
        if not name.lower().endswith(TABLE_SUFFIXES):
            continue
        text = first_bytes(folder / name, TABLE_HEAD).decode("utf-8-sig", "replace")
        try:
            rows = [row for _, row in read_rows(text, folder / name, comments=False)]
        except AnnotationError:
            continue
        pairs = {row[0].strip(): row[1].strip() for row in rows if len(row) == 2}
        if not used or len(pairs) != len(rows) or not used <= pairs.keys():
            continue
        if all(number.isdecimal() for number in pairs.values()):
            return tuple(sorted(pairs, key=lambda one: int(pairs[one])))
        for image in raw:
            image.objects = [one._replace(name=pairs[one.name]) for one in image.objects]
        return tuple(dict.fromkeys(pairs[one] for one in pairs if one in used))
    return None
