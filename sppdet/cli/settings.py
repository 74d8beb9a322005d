"""`sppdet settings`: every key that `--set` and a config file may change."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
from collections.abc import Iterator
from typing import Any

import typer

from sppdet.cli.common import ConfigOption, SeedOption, SetOption, examples
from sppdet.cli.common import settings as load_settings


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        epilog=examples(
            ("all keys, with their values and what they do", "sppdet settings"),
            (
                "what a file and a change come to",
                "sppdet settings --config mine.toml --set svm.c=1",
            ),
            ("a config file to start from", "sppdet settings > mine.toml"),
        )
    )(settings)


def settings(
    config: ConfigOption = None, changes: SetOption = None, seed: SeedOption = None
) -> None:
    """Print all settings, as a config file with a comment on each."""
    typer.echo("\n".join(toml_lines(load_settings(config, changes, seed))))


def toml_lines(values: Any, table: str = "") -> Iterator[str]:
    """TOML of a settings dataclass, commented: its own values first, then its tables."""
    comments = _comments(type(values))
    tables = []
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        if dataclasses.is_dataclass(value):
            tables.append((field.name, value))
        else:
            yield from comments.get(field.name, ())
            yield f"{field.name} = {_toml(value)}"
    for name, value in tables:
        key = f"{table}{name}"
        yield from ("", *comments.get(name, ()), f"[{key}]")
        yield from toml_lines(value, f"{key}.")


def _comments(cls: type[Any]) -> dict[str, tuple[str, ...]]:
    """The comment lines above each field of a dataclass, as its source has them."""
    source = inspect.cleandoc("\n" + inspect.getsource(cls))
    lines = [line.strip() for line in source.splitlines()]
    (body,) = ast.parse(source).body
    out = {}
    for node in getattr(body, "body", []):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            first = node.lineno - 1
            while first > 0 and lines[first - 1].startswith("#"):
                first -= 1
            out[node.target.id] = tuple(lines[first : node.lineno - 1])
    return out


def _toml(value: Any) -> str:
    if value is None:
        return '"none"'
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else repr(value)
