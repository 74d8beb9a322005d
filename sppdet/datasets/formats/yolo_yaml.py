"""A small, safe reader of the subset of YAML that YOLO's `data.yaml` files use.

Top-level keys with a scalar, a list or a map, in flow style (`[a, b]`, `{0: a}`, over several
lines too) or as an indented block. Anchors, aliases and tags are refused, keys of no use here
are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sppdet.core.errors import AnnotationError

# Keys that lead to images, with what the split is called.
SPLIT_KEYS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_KEYS = {*SPLIT_KEYS, "path", "names", "nc", "kpt_shape"}

_TOP = re.compile(r"""(?P<key>[A-Za-z_][\w.-]*|"[^"]*"|'[^']*')\s*:(?:\s+(?P<value>.*)|\s*)$""")
_ITEM = re.compile(r"-(?:\s+(?P<value>.*)|\s*)$")
_PAIR = re.compile(r"""(?P<key>-?\d+|"[^"]*"|'[^']*'|[^\s:]+)\s*:(?:\s+(?P<value>.*)|\s*)$""")

# The depth of characters in quotes.
_QUOTED = -1000

Value = str | list[str] | dict[str, str]


@dataclass(frozen=True, slots=True)
class DataYaml:
    """The content of a `data.yaml` that is used.

    Attributes:
        root: the value of `path`, empty where it has none.
        splits: for each split the folders, patterns or lists of its images, as written.
        names: the classes by their numbers; None where the file has no `names`.
        count: the value of `nc`; None where there is none, or none that is a number.
        keypoints: whether its labels are boxes with keypoints after them (`kpt_shape`).
    """

    root: str = ""
    splits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    names: dict[int, str] | None = None
    count: int | None = None
    keypoints: bool = False


def read_data_yaml(path: Path) -> DataYaml:
    """Read a `data.yaml`.

    Raises:
        AnnotationError: not text, or not of the subset of YAML; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise AnnotationError(
            f"cannot be read ({error})", path=path, hint="give a data.yaml in UTF-8"
        ) from None
    values = parse_yaml(text, path)
    splits: dict[str, tuple[str, ...]] = {}
    for key, split in SPLIT_KEYS.items():
        value = values.get(key)
        entries = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        if kept := tuple(entry for entry in entries if entry):
            splits.setdefault(split, kept)
    root, count = values.get("path"), values.get("nc")
    return DataYaml(
        root=root if isinstance(root, str) else "",
        splits=splits,
        names=_read_names(values.get("names"), path),
        count=int(count) if isinstance(count, str) and re.fullmatch(r"\d{1,6}", count) else None,
        keypoints="kpt_shape" in values,
    )


def parse_yaml(text: str, path: Path) -> dict[str, Value]:
    """Parse the keys that `data.yaml` files have.

    Raises:
        AnnotationError: a line outside the subset.
    """
    lines = [(n, _drop_comment(line)) for n, line in enumerate(text.splitlines(), 1)]
    lines = [(n, line) for n, line in lines if line.strip() and line.strip() not in ("---", "...")]
    values: dict[str, Value] = {}
    at = 0
    while at < len(lines):
        number, line = lines[at]
        at += 1
        found = _TOP.match(line)
        if found is None:
            raise _not_understood(path, number, line)
        key, value = _unquote(found["key"]), (found["value"] or "").strip()
        if value[:1] in ("[", "{"):
            while not _is_closed(value):
                if at >= len(lines):
                    raise _not_understood(path, number, line)
                value += " " + lines[at][1].strip()
                at += 1
            block = []
        else:
            start = at
            while at < len(lines) and lines[at][1][0] in " \t-":
                at += 1
            block = lines[start:at]
        if key not in _KEYS:
            continue
        if value[:1] in ("&", "*", "!", "|", ">") or (value and block):
            raise _not_understood(path, number, line)
        values[key] = _parse_value(value, block, path, number)
    return values


def _parse_value(value: str, block: list[tuple[int, str]], path: Path, number: int) -> Value:
    if value.startswith("["):
        return [_unquote(item) for item in _split_flow(value[1:-1])]
    if value.startswith("{"):
        pairs = [_PAIR.match(item.strip()) for item in _split_flow(value[1:-1])]
        if not all(pairs):
            raise _not_understood(path, number, value)
        return {_unquote(p["key"]): _unquote(p["value"] or "") for p in pairs if p is not None}
    if not block:
        return "" if value in ("~", "null") else _unquote(value)
    is_list = block[0][1].lstrip().startswith("-")
    items: list[str] = []
    mapping: dict[str, str] = {}
    for line_number, line in block:
        found = (_ITEM if is_list else _PAIR).match(line.strip())
        if found is None or (found["value"] or "")[:1] in ("&", "*", "!", "[", "{", "|", ">"):
            raise _not_understood(path, line_number, line)
        if is_list:
            items.append(_unquote(found["value"] or ""))
        else:
            mapping[_unquote(found["key"])] = _unquote(found["value"] or "")
    return items if is_list else mapping


def _read_names(value: Value | None, path: Path) -> dict[int, str] | None:
    if isinstance(value, list):
        return {n: name or str(n) for n, name in enumerate(value)}
    if isinstance(value, str) and value:
        # `names: ship, boat`, written by hand.
        return {n: name.strip() for n, name in enumerate(value.split(",")) if name.strip()}
    if not isinstance(value, dict):
        return None
    bad = next((key for key in value if not re.fullmatch(r"\d{1,9}", key)), None)
    if bad is not None:
        raise AnnotationError(
            f"names has the key {bad!r}", path=path, hint="number the classes: `0: name`"
        )
    return {int(key): name or key for key, name in value.items()}


def _drop_comment(line: str) -> str:
    """Cut a comment: `#` at the start or after a blank, outside quotes."""
    before = " "
    for at, (char, depth) in enumerate(_walk(line)):
        if char == "#" and depth != _QUOTED and before in " \t":
            return line[:at].rstrip()
        before = char
    return line.rstrip()


def _walk(text: str) -> Iterator[tuple[str, int]]:
    """Yield each character with the depth of brackets that it is at; `_QUOTED` in quotes."""
    quote, depth, before, escaped = "", 0, "", False
    for at, char in enumerate(text):
        if quote:
            if escaped:
                escaped = False
            elif (quote == '"' and char == "\\") or (quote == char == "'" == text[at + 1 : at + 2]):
                escaped = True
            elif char == quote:
                quote = ""
            yield char, _QUOTED
        elif char in "\"'" and before in ("", "[", "{", ",", ":", "-"):
            quote = char
            yield char, _QUOTED
        else:
            depth += (char in "[{") - (char in "]}")
            yield char, depth
        before = char if char.strip() else before


def _is_closed(text: str) -> bool:
    *_, (char, depth) = _walk(text)
    return depth == 0 and char in "]}"


def _split_flow(text: str) -> list[str]:
    items = [""]
    for char, depth in _walk(text):
        if char == "," and depth == 0:
            items.append("")
        else:
            items[-1] += char
    if not items[-1].strip():  # a comma may follow the last
        items.pop()
    return items


def _unquote(text: str) -> str:
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        inner = text[1:-1]
        return inner.replace("''", "'") if text[0] == "'" else re.sub(r"\\(.)", r"\1", inner)
    return text


def _not_understood(path: Path, number: int, line: str) -> AnnotationError:
    return AnnotationError(
        f"line {number} is not understood: {line.strip()[:60]!r}",
        path=path,
        hint="write `train:`, `val:`, `names:` as plain values, lists or `0: name` lines",
    )
