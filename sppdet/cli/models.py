"""`sppdet models`: what can be given to `--model`."""

from __future__ import annotations

import typer

from sppdet.cli.common import examples


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog=examples(("use one", "sppdet detect photos/ --model NAME")))(models)


def models() -> None:
    """List the models that come with the package."""
    from sppdet.modelfile import list_models

    found = list_models()
    width = max((len(model.name) for model in found), default=0)
    for model in found:
        size = f"{model.size_bytes / 1e6:.1f} MB, {len(model.classes)} classes"
        typer.echo(f"{model.name:<{width}}  {size}: {model.description}")
    if not found:
        typer.echo("none; train one with: sppdet train DATA --run DIR")
