"""Settings: frozen pydantic models to and from TOML and JSON, every key, type and range checked.

Every field has a default and a docstring, and is an `int`, `float`, `bool`, `str`, `Literal[...]`,
a tuple of these, any of them `| None`, or settings in turn; a range is declared by its annotation.
A source of values (a file, a `--set`, a header) holds differences from the defaults only.
"""

from __future__ import annotations

import json
import textwrap
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sppdet.core.errors import ConfigError
from sppdet.core.files import config_digest
from sppdet.core.settings_errors import allows_none, as_config_error, dotted_keys, table_of

keys = dotted_keys

# A number from 0 to 1.
Fraction = Annotated[float, Field(ge=0, le=1)]
# What decides time and memory has an upper end: a model file's settings are somebody else's.
Side = Annotated[int, Field(ge=1, le=4000)]
Width = Annotated[int, Field(ge=1, le=32_768)]
Level = Annotated[int, Field(ge=1, le=64)]
# TOML has no null: this word stands for it, in a field that may be None.
NONE_WORD = "none"


class Settings(BaseModel):
    """Base of all settings: immutable, hashable, and wrong values raise ConfigError on one line.

    Attributes:
        section: the table that these are in, for messages where they are made by a call.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )
    section: ClassVar[str] = ""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            prefix = f"{self.section}." if self.section else ""
            raise as_config_error(type(self), error, lambda _: None, prefix) from None

    # Without it pydantic would call `__init__` for nested tables too, and lose where they are.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    def replace(self, **changes: Any) -> Self:
        """Return these settings with values changed and all checked; ConfigError as by a call."""
        return type(self)(**{**dict(self), **changes})


T = TypeVar("T", bound=Settings)


def to_dict(settings: Settings) -> dict[str, Any]:
    """Convert all fields to JSON-able values: settings as dicts, tuples as lists.

    Invariant: `from_dict(type(s), json.loads(json.dumps(to_dict(s)))) == s`.
    """
    return settings.model_dump(mode="json")


def from_dict(cls: type[T], values: Mapping[str, Any], *, path: str | Path | None = None) -> T:
    """Return the defaults of `cls`, changed by `values` as `to_dict` writes them.

    Raises:
        ConfigError: an unknown key, or a value of another type or out of its range; names the
            key and the `path` it came from.
    """
    source = None if path is None else str(path)
    return _validated(cls(), [(source, _converted(cls, values, toml=False))])


def load(
    cls: type[T], path: Path | None = None, overrides: Sequence[str] = (), base: T | None = None
) -> T:
    """Return the settings with the differences of a TOML file, then of `a.b=c` overrides.

    They start from `base`, or from the defaults. The value of an override is read as TOML; a bare
    word is a string. In both, `none` is None where the field allows it.

    Raises:
        ConfigError: as `from_dict`; the file cannot be read or is not TOML; an override without
            a key or with a broken value.
    """
    sources = [] if path is None else [(str(path), read_toml(path))]
    sources += [(f"--set {text}", parse_override(text)) for text in overrides]
    values = [(where, _converted(cls, table, toml=True)) for where, table in sources]
    return _validated(cls() if base is None else base, values)


def update(base: T, values: Mapping[str, Any], *, path: str | Path | None = None) -> T:
    """Return `base` changed by tables as TOML has them; `path` is where they come from.

    Raises ConfigError as `load` does.
    """
    source = None if path is None else str(path)
    return _validated(base, [(source, _converted(type(base), values, toml=True))])


def digest(settings: Settings, exclude: Collection[str] = ()) -> str:
    """Hex SHA-256 of all values but those of the fields in `exclude`, whatever their order."""
    return config_digest(settings.model_dump(mode="json", exclude=set(exclude)))


def flatten(settings: Settings, prefix: str = "") -> dict[str, Any]:
    """Return every value under its dotted name, in the order of the fields."""
    out: dict[str, Any] = {}
    for name, value in settings:
        if isinstance(value, Settings):
            out |= flatten(value, f"{prefix}{name}.")
        else:
            out[f"{prefix}{name}"] = value
    return out


def differences(a: T, b: T) -> list[str]:
    """Return the dotted names of the values in which two settings of one class differ."""
    left, right = flatten(a), flatten(b)
    return [name for name in left if left[name] != right[name]]


def to_toml(settings: Settings, table: str = "") -> str:
    """Return the settings as a TOML file, every value and table with its field's description."""
    values, tables = [], []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        comment = textwrap.wrap(field.description or "", 98)
        lines = [f"# {line}" for line in comment]
        if isinstance(value, Settings):
            key = f"{table}{name}"
            tables += ["", *lines, f"[{key}]", to_toml(value, f"{key}.")]
        else:
            values += [*lines, f"{name} = {_toml(value)}"]
    return "\n".join(values + tables)


def read_toml(path: Path) -> dict[str, Any]:
    """Read the tables of a TOML file; ConfigError if it cannot be read or is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError("no such config file", path=path, hint="check the path") from None
    except OSError as error:
        raise ConfigError(
            f"cannot be read ({error.strerror})", path=path, hint="check the path"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError("is not UTF-8 text", path=path, hint="give a TOML file") from None
    # RecursionError: arrays nested thousands deep. ValueError: numbers of thousands of digits, too.
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"is not TOML ({error})", path=path, hint="correct the line") from None


def parse_override(text: str) -> dict[str, Any]:
    """Read `a.b=c` as nested tables `{"a": {"b": c}}`; ConfigError for a broken key or value."""
    key, equals, raw = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    raw = raw.strip()
    if not equals or not raw or not all(part.isidentifier() for part in parts):
        raise ConfigError(
            "is not of the form key=value", path=f"--set {text}", hint="write --set svm.c=0.01"
        )
    value: Any = _toml_value(raw, text)
    for part in reversed(parts):
        value = {part: value}
    return dict(value)


def _toml_value(raw: str, text: str) -> Any:
    try:
        document = tomllib.loads(f"value = {raw}")
    except (ValueError, RecursionError):
        document = {}
    if document.keys() == {"value"}:
        return document["value"]
    if raw[0] in "\"'[{":
        raise ConfigError(
            f"{raw} is not a TOML value",
            path=f"--set {text}",
            hint="close its quotes and brackets; quote the whole for the shell",
        )
    return raw


def _toml(value: Any) -> str:
    if value is None:
        return f'"{NONE_WORD}"'
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else repr(value)


def _converted(cls: type[Settings], values: Mapping[str, Any], *, toml: bool) -> dict[str, Any]:
    """Return `values` with tuples for lists and, from TOML, None for its word."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        field = cls.model_fields.get(name)
        table = table_of(field.annotation) if field else None
        if table is not None and isinstance(value, Mapping):
            out[name] = _converted(table, value, toml=toml)
        elif toml and field and value == NONE_WORD and allows_none(field.annotation):
            out[name] = None
        else:
            out[name] = _tuples(value)
    return out


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _validated(base: T, sources: Sequence[tuple[str | None, dict[str, Any]]]) -> T:
    """Return `base` changed by the values of named sources, all checked."""
    merged = base.model_dump()
    for _, values in sources:
        _merge(merged, values)

    def origin(loc: tuple[str | int, ...]) -> str | None:
        """Return the last source that says something of a value."""
        return next((where for where, values in reversed(sources) if _has(values, loc)), None)

    try:
        return type(base).model_validate(merged)
    except ValidationError as error:
        raise as_config_error(type(base), error, origin) from None
    except ConfigError as error:
        where = ", ".join(where for where, _ in sources if where is not None)
        raise ConfigError(error.message, path=where or None, hint=error.hint) from None


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value


def _has(values: Any, loc: tuple[str | int, ...]) -> bool:
    """Return whether nested tables hold a value, an item of it or a table around it."""
    for part in loc:
        if not isinstance(values, dict):
            return True
        if part not in values:
            return False
        values = values[part]
    return True
