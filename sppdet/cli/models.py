"""`sppdet models`: what can be given to `--model`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sppdet.cli.classes.report import describe_file
from sppdet.cli.options import examples
from sppdet.cli.terminal.notes import say

if TYPE_CHECKING:
    from sppdet.detection.model_zoo import ModelInfo, Preset


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        epilog=examples(
            ("the classes of one", "sppdet models mine.safetensors"),
            ("its model card", "sppdet models mine.safetensors --card > model_card.md"),
            ("use one", "sppdet detect photos/ --model NAME"),
            ("how good one is", "sppdet evaluate VOCdevkit --year 2007 --split test --model NAME"),
        )
    )(models)


def models(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A model file, or a name: shows where each of its classes came from.",
            show_default=False,
        ),
    ] = None,
    card: Annotated[
        bool, typer.Option("--card", help="Print a model card of MODEL, in Markdown.")
    ] = False,
) -> None:
    """List the models that come with the package, and the presets: models under other settings."""
    from sppdet.detection.model_zoo import find_members, list_models, list_presets
    from sppdet.reports.model_card import model_card

    if model is not None:
        for path in dict.fromkeys(member.path for member in find_members(model)):
            say(model_card(path) if card else "\n".join(describe_file(path)))
        return
    if card:
        raise typer.BadParameter("--card takes a model: sppdet models MODEL --card")
    found = list_models()
    for one in found:
        say(_format_model(one))
    for preset in list_presets():
        say(_format_preset(preset))
    if not found:
        say("none; train one with: sppdet train DATA --run DIR")


def _format_model(model: ModelInfo) -> str:
    """Two lines, or one for a model without a description."""
    facts = [f"{model.size_bytes / 1e6:.1f} MB", f"{len(model.classes)} classes"]
    if model.trained_on:
        facts.append(f"trained on {model.trained_on}")
    first = f"{model.name}: {', '.join(facts)}"
    return f"{first}\n  {model.description}" if model.description else first


def _format_preset(preset: Preset) -> str:
    """One line: its models, each with settings of its own, and the settings of all."""
    members = zip(preset.models, preset.own_settings, strict=True)
    models = [f"{name} ({_format_settings(own)})" if own else name for name, own in members]
    common = f", with {_format_settings(preset.settings)}" if preset.settings else ""
    return f"{preset.name}: {' + '.join(models)}{common}"


def _format_settings(tables: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in _flatten(tables))


def _flatten(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tables.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
