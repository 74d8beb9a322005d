"""Annotations as a file has them, before anything is checked: what every reader gives.

A reader parses one format and checks nothing else: boxes that leave their image,
classes that nobody asked for, missing images and the like are for `build` to find, the same way
for all formats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

# Kinds of findings, counted as `kind: 3`. Of images or annotation files:
MISSING_IMAGE = "images that are not there, left out"
UNREADABLE_IMAGE = "images that cannot be read, left out"
BROKEN_ANNOTATION = "annotation files that cannot be read, left out"
BROKEN_SPLIT = "splits whose annotation file cannot be read, left out"
NO_IMAGE = "annotations without an image, left out"
NO_ANNOTATION = "images without an annotation, left out"
NO_LABELED_IMAGE = "label files without an image, left out"
ALL_LOST = "images none of whose objects can be used, left out"
OTHER_FOLDER = "splits in another folder than the file says"
NO_SPLIT = "splits that are not there, left out"
OTHER_TABLE = "tables beside those of splits, not read"
UNLABELED_FOLDER = "folders of images without any label file, left out"
NO_LABEL_FILE = "images without a label file, taken as images without objects"
UNLABELED = "images that nobody labeled, left out"
DUPLICATE = "images annotated twice, the first taken"
STATED_SIZE = "sizes stated wrongly; the image's own used"
TURNED_SIZE = "sizes of images turned by EXIF, understood"
UNCLEAR_TURN = "images turned by EXIF whose boxes may be turned or not, taken as drawn upright"
NOT_LISTED = "listed images without an annotation, left out"
# Of objects:
CLIPPED = "boxes clipped to their image"
EMPTY_BOX = "empty or inverted boxes left out"
ONE_PIXEL = "boxes one pixel wide or high"
OUTSIDE = "boxes outside their image left out"
BAD_OBJECT = "objects without a class or a whole box, left out"
UNLISTED_IMAGE = "objects of images that are not listed, left out"
UNLISTED_CLASS = "objects of categories that are not listed, left out"
CLASS_NUMBER = "objects whose class number has no name, left out"
OTHER_SHAPE = "shapes that enclose nothing (points, lines), left out"
ROTATED = "rotated boxes, enclosed by upright ones"
POLYGON = "files with polygons between boxes; the boxes around them taken"
CONFIDENCE = "objects with a confidence, which is not used"
UNKNOWN_CLASS = "objects of classes that the class list lacks, left out"
NOT_ASKED = "objects of classes that were not asked for, left out"
# Of classes:
NO_NAMES = "class lists missing; classes called by their numbers"
NO_OBJECTS = "classes without an object, left out"
REPEATED_CLASS = "classes listed twice, taken once"
NO_OBJECTS_HERE = "classes without an object here"
SUPER_CATEGORY = "super-categories without objects, left out of the classes"
SIMILAR_NAMES = "pairs of class names that differ by case or blanks alone"

# Findings that cost nothing and are seldom a mistake: notes, which are not wrong.
NOTES = frozenset({OTHER_FOLDER, TURNED_SIZE, ROTATED, POLYGON, CONFIDENCE}) | frozenset(
    {NOT_ASKED, NO_OBJECTS, NO_OBJECTS_HERE, SUPER_CATEGORY, ONE_PIXEL, NO_LABEL_FILE, UNLABELED}
)

# Images that building finds it cannot use.
UNUSABLE_IMAGES = frozenset({MISSING_IMAGE, UNREADABLE_IMAGE})
# Findings of a reader that cost an image, or an object; build counts its own itself.
LOST_IMAGES = frozenset({BROKEN_ANNOTATION, NO_IMAGE, NOT_LISTED})
LOST_OBJECTS = frozenset({BAD_OBJECT, CLASS_NUMBER, UNLISTED_IMAGE, UNLISTED_CLASS})

# Findings of a kind that are named one by one; the others are counted.
MAX_NAMED = 10


class RawObject(NamedTuple):
    """One annotated object.

    Attributes:
        name: its class, as written.
        box: `x1 y1 x2 y2`, 0-based and half-open, in pixels of the image; in shares of its sides
            where `relative`.
        what: names it in messages, such as `object 3` or `line 7`.
        relative: whether `box` is in shares of the image's sides.
        difficult: VOC's flag, as `Sample.difficult`.
        crowd: COCO's flag `iscrowd`.
        area: of its mask in square pixels, where the file says so (COCO).
    """

    name: str
    box: tuple[float, float, float, float]
    what: str
    relative: bool = False
    difficult: bool = False
    crowd: bool = False
    area: float | None = None


@dataclass(slots=True)
class RawImage:
    """One annotated image.

    Attributes:
        image_id: the data set's name for the image, unique in its split.
        path: where the image should be; it may not be there.
        source: the file that annotates it, named in messages; the image itself where none does.
        size: width and height as stated, None where they are not, or not usable.
        objects: in the file's order.
        split: the part of the data set that it belongs to, None where there are none. An image
            of several (`train`, `trainval`) is given once for each, the objects shared.
        lost: how many of its objects the reader left out.
    """

    image_id: str
    path: Path
    source: Path
    size: tuple[int, int] | None = None
    objects: list[RawObject] = field(default_factory=list)
    split: str | None = None
    lost: int = 0


@dataclass(slots=True)
class RawDataset:
    """All annotations of a source, all splits together.

    Attributes:
        format: for people, such as `VOC XML`.
        name: of the data set, such as its folder's name.
        images: in the order of the splits, then of the files.
        classes: in the order in which the format gives them; None where it lists none.
        splits: their names, in order.
        fixed_classes: whether `classes` are a benchmark's, which stay without objects too.
    """

    format: str
    name: str
    images: list[RawImage]
    classes: tuple[str, ...] | None = None
    splits: tuple[str, ...] = ()
    fixed_classes: bool = False


class Finding(NamedTuple):
    """Something wrong with one image or object: a kind, where, and what was made of it.

    `split` is the one that it concerns, None for all.
    """

    kind: str
    path: Path
    message: str
    split: str | None = None

    @property
    def line(self) -> str:
        """Where and what, in one line whatever a file's name holds."""
        return " ".join(f"{self.path}: {self.message}".split())


class Findings:
    """Everything wrong with a data set, by kind, in order.

    Kinds are phrases that a number follows, as in `boxes clipped to their image: 1`.
    """

    def __init__(self) -> None:
        self.all: list[Finding] = []

    def add(self, kind: str, path: Path, message: str, split: str | None = None) -> None:
        """Note something; `message` says what it is and what was made of it."""
        self.all.append(Finding(kind, path, message, split))

    def keep_splits(self, names: Sequence[str] | None) -> None:
        """Drop what concerns other splits than `names`, None for all; each thing stays once."""
        kept = (one for one in self.all if names is None or one.split is None or one.split in names)
        self.all = [*{one[:3]: one for one in kept}.values()]

    def __len__(self) -> int:
        return len(self.all)

    def counts(self) -> Counter[str]:
        """Count the findings of each kind, in the order of their first."""
        return Counter(one.kind for one in self.all)

    def wrong(self) -> list[Finding]:
        """List those that are more than notes."""
        return [one for one in self.all if one.kind not in NOTES]

    def of(self, kind: str) -> Iterator[Finding]:
        """Yield the findings of a kind."""
        return (one for one in self.all if one.kind == kind)

    def lines(self) -> list[str]:
        """One line per kind, its number after it, and under it the first `MAX_NAMED` of it."""
        out = []
        for kind, count in self.counts().items():
            out.append(f"{kind}: {count}")
            named = list(self.of(kind))[:MAX_NAMED]
            out += [f"  {one.line}" for one in named]
            if count > len(named):
                out.append(f"  and {count - len(named)} more")
        return out
