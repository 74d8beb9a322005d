"""Messages for wrong settings: the key, its value, its source, and what may be given."""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from sppdet.core.errors import ConfigError

Loc = tuple[str | int, ...]

_NOUNS = {int: "a whole number", float: "a number", bool: "true or false", str: "a quoted text"}


def as_config_error(
    cls: type[BaseModel],
    error: ValidationError,
    source: Callable[[Loc], str | None],
    prefix: str = "",
) -> ConfigError:
    """Return the first of a validation's errors, as one line for the user.

    Args:
        cls: the settings that were validated.
        source: finds where the value at a place came from.
        prefix: stands before all keys.
    """
    first = error.errors(include_url=False)[0]
    loc, value, kind = first["loc"], first["input"], first["type"]
    if kind == "missing":
        # The item that a list of fixed length lacks.
        loc, kind = loc[:-1], "too_short"
    where = source(loc)
    key = prefix + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in loc).lstrip(".")
    if kind == "extra_forbidden":
        return ConfigError(f"unknown key {key!r}", path=where, hint=_nearest(cls, loc, prefix))
    annotation, field = _annotated(cls, loc)
    table = table_of(annotation)
    if table is not None:
        inner = next(dotted_keys(table, f"{key}."))
        return ConfigError(
            f"{key} is {value!r}, not a table", path=where, hint=f"set a key in it: {inner}"
        )
    wanted = (field and field.title) or _describe(annotation, field.metadata if field else ())
    if kind in ("too_short", "too_long"):
        count = _length(annotation, _bounds(field.metadata if field else ())).strip()
        return ConfigError(f"{key} has {len(value)} values", path=where, hint=f"give {count}")
    if kind == "finite_number" or _is_infinite(value, annotation):
        wanted = "a finite number"
    return ConfigError(f"{key} is {_shown(value)!r}", path=where, hint=f"give {wanted}")


def table_of(annotation: Any) -> Any:
    """Return the settings class that an annotation names; None for one that holds a value."""
    is_table = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_table else None


def dotted_keys(cls: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all values of a settings class, in the order of its fields."""
    for name, field in cls.model_fields.items():
        table = table_of(field.annotation)
        yield from [f"{prefix}{name}"] if table is None else dotted_keys(table, f"{prefix}{name}.")


def allows_none(annotation: Any) -> bool:
    """Return whether a field may be None."""
    return type(None) in get_args(annotation)


def _nearest(cls: type[BaseModel], loc: Loc, prefix: str) -> str:
    """Suggest a key for an unknown one: the same name elsewhere, or one near in letters."""
    *parents, name = (str(part) for part in loc)
    siblings = [f"{prefix}{'.'.join([*parents, n])}" for n in _table(cls, parents).model_fields]
    known = sorted(dotted_keys(cls, prefix))
    key = f"{prefix}{'.'.join([*parents, name])}"
    same = [k for k in known if k.rpartition(".")[2] == name]
    near = same or difflib.get_close_matches(key, [*siblings, *known], n=1)
    return f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(siblings)}"


def _table(cls: type[BaseModel], parents: Iterable[str]) -> type[BaseModel]:
    for part in parents:
        cls = table_of(cls.model_fields[part].annotation)
    return cls


def _annotated(cls: type[BaseModel], loc: Loc) -> tuple[Any, FieldInfo | None]:
    """Find the annotation of a value or of an item, and the field where it is a whole field's."""
    annotation: Any = cls
    field: FieldInfo | None = None
    for part in loc:
        if isinstance(part, str):
            field = annotation.model_fields[part]
            annotation = field.annotation
            continue
        arms = (arm for arm in get_args(annotation) if get_origin(arm) is tuple)
        args = get_args(next(arms, annotation))
        annotation, field = (args[0] if args[-1] is Ellipsis else args[part]), None
    return annotation, field


def _describe(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """Say what may be given: `a whole number, 1 or more`, `'a' or 'b'`, `a list of ...`."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        parts = [m.metadata if isinstance(m, FieldInfo) else [m] for m in args[1:]]
        return _describe(args[0], [item for part in parts for item in part])
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(arg) for arg in args)
    if origin is Literal:
        return " or ".join(repr(arg) for arg in args)
    bounds = _bounds(metadata)
    if origin is tuple:
        items = f", each {_describe(args[0])}" if len({*args} - {Ellipsis}) == 1 else ""
        return f"a list of {_length(annotation, bounds)}values{items}"
    if annotation is type(None):
        return "none"
    return _NOUNS[annotation] + _range(annotation, bounds)


def _bounds(metadata: Iterable[Any]) -> dict[str, Any]:
    names = ("gt", "ge", "lt", "le", "min_length")
    found = ((name, getattr(item, name, None)) for item in metadata for name in names)
    return {name: bound for name, bound in found if bound is not None}


def _length(annotation: Any, bounds: Mapping[str, Any]) -> str:
    args = get_args(annotation)
    if args[-1] is not Ellipsis:
        return f"{len(args)} "
    return f"at least {bounds['min_length']} " if "min_length" in bounds else ""


def _range(kind: Any, bounds: Mapping[str, Any]) -> str:
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    above, below = "gt" in bounds, "lt" in bounds
    if kind is int and above:
        low, above = low + 1, False
    if low is not None and high is not None:
        return f" in {'(' if above else '['}{low}, {high}{')' if below else ']'}"
    if low is not None:
        return f" above {low}" if above else f", {low} or more"
    if high is not None:
        return f" below {high}" if below else f", {high} at most"
    return ""


def _is_infinite(value: Any, annotation: Any) -> bool:
    """Return whether a value is a number, but none that a float can hold."""
    if type(value) not in (int, float) or annotation is int:
        return False
    try:
        return not math.isfinite(float(value))
    except OverflowError:
        return True


def _shown(value: Any) -> Any:
    """Format the value as it was given: TOML and JSON have lists for tuples."""
    return [_shown(item) for item in value] if isinstance(value, tuple) else value
