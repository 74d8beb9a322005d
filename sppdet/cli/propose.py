"""`sppdet propose`: the boxes that the detector looks at."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(propose)


def propose() -> None:
    """Propose boxes."""
