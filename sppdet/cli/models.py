"""`sppdet models`: what can be given to `--model`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from sppdet.cli.common import examples

if TYPE_CHECKING:
    from sppdet.modelnames import ModelInfo


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        epilog=examples(
            ("use one", "sppdet detect photos/ --model NAME"),
            ("how good one is", "sppdet evaluate VOCdevkit --year 2007 --split test --model NAME"),
        )
    )(models)


def models() -> None:
    """List the models that come with the package: size, classes, training data, description."""
    from sppdet.modelnames import list_models, list_presets

    found = list_models()
    for model in found:
        typer.echo(_told(model))
    for preset in list_presets():
        typer.echo(f"{preset.name}: {preset.base} under the settings in {preset.path.name}")
    if not found:
        typer.echo("none; train one with: sppdet train DATA --run DIR")


def _told(model: ModelInfo) -> str:
    """Two lines, or one for a model without a description."""
    facts = [f"{model.size_bytes / 1e6:.1f} MB", f"{len(model.classes)} classes"]
    if model.trained_on:
        facts.append(f"trained on {model.trained_on}")
    first = f"{model.name}: {', '.join(facts)}"
    return f"{first}\n  {model.description}" if model.description else first
