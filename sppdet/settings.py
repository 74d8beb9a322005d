"""Nested frozen dataclasses to and from TOML and JSON, with every key and type checked.

A settings class is a frozen dataclass whose fields all have defaults and are `int`, `float`,
`bool`, `str`, `Literal[...]`, tuples of these, any of them `| None`, or settings classes in turn.
A source of values (a file, a `--set`, a model's header) holds differences from the defaults only.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from sppdet.errors import ConfigError
from sppdet.files import config_digest

T = TypeVar("T")

# TOML has no null: this word stands for it, in a field that may be None.
NONE_WORD = "none"


def to_dict(settings: Any) -> dict[str, Any]:
    """All fields as JSON-able values: settings as dicts, tuples as lists.

    Law: `from_dict(type(s), json.loads(json.dumps(to_dict(s)))) == s`.
    """
    return {f.name: _plain(getattr(settings, f.name)) for f in dataclasses.fields(settings)}


def from_dict(cls: type[T], values: Mapping[str, Any], *, where: str | Path | None = None) -> T:
    """The settings that differ from the defaults of `cls` by `values`, as `to_dict` writes them.

    Raises:
        ConfigError: an unknown key, a value of another type, or one that `cls` itself refuses;
            names the key and `where` it came from.
    """
    return _built(cls(), _checked(cls, values, _Source(where, set(keys(cls)))), where)


def load(
    cls: type[T], path: Path | None = None, overrides: Sequence[str] = (), base: T | None = None
) -> T:
    """The settings of `cls` with the differences of a TOML file, then of `a.b=c` overrides.

    They start from `base`, or from the defaults. The value of an override is read as TOML; a bare
    word is a string. In both, `none` is None where the field allows it.

    Raises:
        ConfigError: as `from_dict`; the file cannot be read or is not TOML; an override without
            a key or with a broken value.
    """
    known = set(keys(cls))
    merged: dict[str, Any] = {}
    if path is not None:
        merged = _checked(cls, read_toml(path), _Source(path, known, toml=True))
    for text in overrides:
        values = parse_override(text)
        _merge(merged, _checked(cls, values, _Source(f"--set {text}", known, toml=True)))
    sources = ([] if path is None else [str(path)]) + [f"--set {text}" for text in overrides]
    return _built(cls() if base is None else base, merged, ", ".join(sources) or None)


def digest(settings: Any) -> str:
    """Hex SHA-256 of all values, independent of the order of the fields."""
    return config_digest(to_dict(settings))


def keys(cls: type[Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of all values of a settings class, `svm.c`, in the order of its fields."""
    for name, hint in _hints(cls).items():
        if dataclasses.is_dataclass(hint):
            yield from keys(hint, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            yield f"{prefix}{name}"


def flatten(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Every value under its dotted name, in the order of the fields."""
    out: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            out |= flatten(value, f"{prefix}{field.name}.")
        else:
            out[f"{prefix}{field.name}"] = value
    return out


def differences(a: T, b: T) -> list[str]:
    """The dotted names of the values in which two settings of one class differ."""
    left, right = flatten(a), flatten(b)
    return [name for name in left if left[name] != right[name]]


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; ConfigError if it cannot be read or is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("no such config file", where=path, mend="check the path") from None
    except OSError as error:
        raise ConfigError(
            f"cannot be read ({error.strerror})", where=path, mend="check the path"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError("is not UTF-8 text", where=path, mend="give a TOML file") from None
    # RecursionError: arrays nested thousands deep.
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"is not TOML ({error})", where=path, mend="correct the line") from None


def parse_override(text: str) -> dict[str, Any]:
    """`a.b=c` as nested tables `{"a": {"b": c}}`; ConfigError for a broken key or value."""
    key, equals, raw = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    raw = raw.strip()
    if not equals or not raw or not all(part.isidentifier() for part in parts):
        raise ConfigError(
            "is not of the form key=value", where=f"--set {text}", mend="write --set svm.c=0.01"
        )
    value: Any = _toml_value(raw, text)
    for part in reversed(parts):
        value = {part: value}
    return dict(value)


def _toml_value(raw: str, text: str) -> Any:
    try:
        document = tomllib.loads(f"value = {raw}")
    except (tomllib.TOMLDecodeError, RecursionError):
        document = {}
    if document.keys() == {"value"}:
        return document["value"]
    if raw[0] in "\"'[{":
        raise ConfigError(
            f"{raw} is not a TOML value",
            where=f"--set {text}",
            mend="close its quotes and brackets; quote the whole for the shell",
        )
    return raw


@dataclasses.dataclass(frozen=True)
class _Source:
    """Where values come from, for messages, and all keys that exist."""

    where: str | Path | None
    known: set[str]
    toml: bool = False

    def wrong(self, problem: str, mend: str) -> ConfigError:
        return ConfigError(problem, where=self.where, mend=mend)

    def unknown(self, key: str, siblings: Sequence[str]) -> ConfigError:
        """An unknown key, with the nearest right one: same name elsewhere, or near in letters."""
        name = key.rpartition(".")[2]
        same = sorted(k for k in self.known if k.rpartition(".")[2] == name)
        near = same or difflib.get_close_matches(key, [*siblings, *sorted(self.known)], n=1)
        mend = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(siblings)}"
        return self.wrong(f"unknown key {key!r}", mend)


def _hints(cls: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _checked(
    cls: type[Any], values: Mapping[str, Any], source: _Source, prefix: str = ""
) -> dict[str, Any]:
    """`values` converted to the types of the fields, tables still as dicts."""
    hints = _hints(cls)
    out: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if name not in hints:
            raise source.unknown(key, [f"{prefix}{n}" for n in hints])
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, Mapping):
                first = next(keys(hint, f"{key}."))  # type: ignore[arg-type]
                raise source.wrong(f"{key} is {value!r}, not a table", f"set a key in it: {first}")
            out[name] = _checked(hint, value, source, f"{key}.")  # type: ignore[arg-type]
        else:
            out[name] = _converted(value, hint, key, source)
    return out


def _converted(value: Any, hint: Any, key: str, source: _Source) -> Any:
    """`value` as the annotation `hint` demands; ConfigError where it is of another type."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if type(None) in args and (value is None or (source.toml and value == NONE_WORD)):
            return None
        for arm in args:
            if arm is not type(None) and _fits(value, arm):
                return _converted(value, arm, key, source)
    elif _fits(value, hint):
        if hint is float:
            return _finite(value, key, source)
        if origin is tuple:
            return _tuple(value, args, key, source)
        return value
    raise source.wrong(f"{key} is {value!r}", f"give {describe(hint)}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether `value` is outwardly of the type; a tuple's items are looked at later."""
    if get_origin(hint) is Literal:
        return any(type(value) is type(arg) and value == arg for arg in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, list | tuple)
    if hint is float:
        return type(value) in (int, float)
    if hint in (int, bool, str):
        return type(value) is hint
    raise TypeError(f"settings cannot hold a field of type {hint}")


def _finite(value: float, key: str, source: _Source) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise source.wrong(f"{key} is {value!r}", "give a finite number")
    return number


def _tuple(
    value: Sequence[Any], args: tuple[Any, ...], key: str, source: _Source
) -> tuple[Any, ...]:
    if len(args) == 2 and args[1] is Ellipsis:
        hints: Sequence[Any] = [args[0]] * len(value)
    else:
        hints = args
    if len(value) != len(hints):
        raise source.wrong(f"{key} has {len(value)} values", f"give {len(hints)}")
    return tuple(
        _converted(item, hint, f"{key}[{i}]", source)
        for i, (item, hint) in enumerate(zip(value, hints, strict=True))
    )


def describe(hint: Any) -> str:
    """What a value of the type is, in words: `a whole number`, `"a" or "b"`, `a list of ...`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(arg) for arg in args)
    if origin is Literal:
        return " or ".join(repr(arg) for arg in args)
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return f"a list of values, each {describe(args[0])}"
        return f"a list of {len(args)} values"
    names = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a quoted text",
        type(None): NONE_WORD,
    }
    return names[hint]


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value


def _built(base: T, values: Mapping[str, Any], where: str | Path | None) -> T:
    """`base` with the checked `values`; a field's own refusal is told as a ConfigError."""
    changes = {
        name: _built(getattr(base, name), value, where) if isinstance(value, dict) else value
        for name, value in values.items()
    }
    try:
        return dataclasses.replace(base, **changes)  # type: ignore[type-var]
    except ConfigError as error:
        raise ConfigError(error.problem, where=error.where or where, mend=error.mend) from None
    except ValueError as error:
        raise ConfigError(str(error), where=where, mend="correct the value") from None
