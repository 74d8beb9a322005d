"""The `sppdet` command: parses, calls the package, prints."""

from __future__ import annotations

from sppdet.cli.main import main

__all__ = ["main"]
