"""Reading and writing VOC annotation files, the only place of 1-based boxes in `datasets`.

VOC counts pixels from 1 and includes both corners, so `xmin = xmax = 1` is the first column: our
half-open box is `(xmin - 1, ymin - 1, xmax, ymax)`. CVAT's export (Datumaro's) writes half-open
boxes, `xmin = x` and `xmax = x + width` of its own from 0, which are taken as they are.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, SubElement, indent, tostring

from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeTree

from sppdet.core.errors import AnnotationError
from sppdet.datasets.annotations import MAX_SIDE, Box

# As VOC 2005 and copies of it have for a flag that nobody set.
_NO = frozenset(("", "0", "0.0", "false", "no", "unspecified"))

_DECLARED = re.compile(rb"\s*<\?xml[^>]{0,80}?encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")
# Lists, as Python knows encodings that are none of text, or slow.
_SINGLE_BYTE = re.compile(
    r"(us-)?ascii|utf-?16(le|be)?|iso[-_]8859[-_]\d\d?|latin[-_]?1|(windows-|cp)125\d|koi8-[ru]"
)
_MULTIBYTE = frozenset(("gbk", "gb2312", "gb18030", "cp936", "big5", "cp950")) | frozenset(
    ("shift-jis", "sjis", "cp932", "euc-jp", "euc-kr", "cp949")
)


@dataclass(frozen=True, slots=True)
class VocObject:
    """One object: class name, half-open box in pixels, VOC's flags, place in its file from 1."""

    name: str
    box: Box
    difficult: bool = False
    truncated: bool = False
    number: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class VocAnnotation:
    """The parts of an annotation file that are used.

    Attributes:
        filename: the image's name as the file states it, or None. Not to be trusted as a path.
        width, height: size in pixels, or None where the file does not state it.
        objects: the objects, unchecked, in the order of the file; boxes are half-open pixels.
        problems: what is wrong with the objects that were left out, such as `object 2 has no
            <name>`.
    """

    filename: str | None
    width: int | None
    height: int | None
    objects: tuple[VocObject, ...]
    problems: tuple[str, ...] = ()


def read_annotation(path: Path, *, one_based: bool = True) -> VocAnnotation:
    """Read an annotation file in UTF-8 or UTF-16, or another encoding that it declares.

    An object needs `name` and `bndbox` only; one without a class or a whole box is left out. Boxes
    are VOC's, or half-open already where not `one_based`.

    Raises:
        AnnotationError: not XML, or with a DOCTYPE or entities (refused, as they can reach other
            files or grow without bound).
    """
    root = _parse(path)
    if root.tag != "annotation":
        raise AnnotationError(
            f"is not a VOC annotation: its root is <{root.tag}>",
            path=path,
            hint="give a file whose root is <annotation>",
        )
    size = root.find("size")
    width, height = (_side(size, side) for side in ("width", "height"))
    filename = (root.findtext("filename") or "").strip() or None
    objects, problems = [], []
    for number, node in enumerate(root.findall("object"), 1):
        try:
            objects.append(_object(node, number, 1.0 if one_based else 0.0))
        except ValueError as error:
            problems.append(str(error))
    return VocAnnotation(filename, width, height, tuple(objects), tuple(problems))


def format_annotation(
    folder: str, filename: str, width: int, height: int, objects: Sequence[VocObject]
) -> str:
    """Format an annotation as VOC's XML.

    Invariant: `read_annotation` gives the same objects back.
    """
    root = Element("annotation")
    _text(root, "folder", folder)
    _text(root, "filename", filename)
    size = SubElement(root, "size")
    for tag, value in (("width", width), ("height", height), ("depth", 3)):
        _text(size, tag, str(value))
    _text(root, "segmented", "0")
    for item in objects:
        node = SubElement(root, "object")
        _text(node, "name", item.name)
        _text(node, "pose", "Unspecified")
        _text(node, "truncated", str(int(item.truncated)))
        _text(node, "difficult", str(int(item.difficult)))
        x1, y1, x2, y2 = item.box
        bndbox = SubElement(node, "bndbox")
        corners = (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2))
        for tag, corner in corners:
            _text(bndbox, tag, str(int(corner)) if corner == int(corner) else repr(corner))
    indent(root, "\t")
    return tostring(root, encoding="unicode") + "\n"


def _parse(path: Path) -> Element:
    try:
        data = path.read_bytes()
        if not data.strip():
            raise AnnotationError("the file is empty", path=path, hint="restore it")
        root: Element = SafeTree.fromstring(_decode(data), forbid_dtd=True)
        return root
    except DefusedXmlException:
        raise AnnotationError(
            "has a DOCTYPE or entities, which are refused", path=path, hint="remove the <!DOCTYPE>"
        ) from None
    # ValueError: an encoding that Python does not know; LookupError: one it cannot use.
    except (ParseError, ValueError, LookupError) as error:
        raise AnnotationError(
            f"broken XML ({error})", path=path, hint="correct or restore the file"
        ) from None
    except OSError as error:
        raise AnnotationError(
            f"cannot be read ({error.strerror})", path=path, hint="check the file"
        ) from None


def _decode(data: bytes) -> bytes | str:
    """Decode what Expat does not know (GBK and other encodings of several bytes per letter).

    Text without a right declaration, as labelImg writes it on some machines, is Latin-1: every
    byte has a meaning there, and the names of files and classes stay apart.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data
    declared = _DECLARED.match(data)
    encoding = "utf-8" if declared is None else declared[1].decode("ascii").lower()
    if encoding.replace("_", "-") in _MULTIBYTE:
        # As the file says; many are UTF-8 all the same.
        for name in (encoding, "utf-8-sig"):
            with suppress(UnicodeDecodeError, LookupError):
                return data.decode(name)
        return data.decode("latin-1")
    if encoding in ("utf-8", "utf8"):
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            return data.decode("latin-1")
    if _SINGLE_BYTE.fullmatch(encoding) is None:
        raise ValueError(f"unknown encoding {encoding}")
    return data


def _object(node: Element, number: int, first: float) -> VocObject:
    """Read an object, the number-th of its file, whose pixels count from `first`.

    Raises ValueError that says what it lacks.
    """
    what = f"object {number}"
    # `find` sees direct children only: the <part>s of VOC2012's persons have boxes of their own.
    name = (node.findtext("name") or "").strip()
    if not name:
        raise ValueError(f"{what} has no <name>")
    bndbox = node.find("bndbox")
    if bndbox is None:
        raise ValueError(f"{what} ({name}) has no <bndbox>")
    xmin, ymin, xmax, ymax = (
        _coordinate(bndbox, tag, f"{what} ({name})") for tag in ("xmin", "ymin", "xmax", "ymax")
    )
    box = (xmin - first, ymin - first, xmax, ymax)
    return VocObject(name, box, _flag(node, "difficult"), _flag(node, "truncated"), number)


def _coordinate(bndbox: Element, tag: str, what: str) -> float:
    text = (bndbox.findtext(tag) or "").strip()
    try:
        return float(text)
    except ValueError:
        found = f"{text!r}" if text else "nothing"
        raise ValueError(f"{what}: <{tag}> should hold a number, but holds {found}") from None


def _side(size: Element | None, tag: str) -> int | None:
    """Read a side of the image (`160`, `160.0`); None if it is absent, or no image's (0, text)."""
    if size is None:
        return None
    try:
        value = float(size.findtext(tag) or "")
    except ValueError:
        return None
    return int(value) if 1 <= value <= MAX_SIDE else None


def _flag(node: Element, tag: str) -> bool:
    return (node.findtext(tag) or "0").strip().lower() not in _NO


def _text(parent: Element, tag: str, text: str) -> None:
    SubElement(parent, tag).text = text
