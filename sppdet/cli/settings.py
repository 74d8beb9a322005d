"""`sppdet settings`: every key that `--set` and a config file may change."""

from __future__ import annotations

import typer

from sppdet.cli.common import load_config
from sppdet.cli.options import ConfigOption, SeedOption, SetOption, examples


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
    from sppdet.core.settings import to_toml
    from sppdet.training.config import TrainingConfig

    typer.echo(to_toml(load_config(TrainingConfig, config, changes, seed)))
