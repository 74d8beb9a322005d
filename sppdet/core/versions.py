"""Installed versions of this package and of those that it needs."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

NOT_INSTALLED = "not installed"


def installed(package: str) -> str:
    """Return a package's version; `NOT_INSTALLED` for code that is run from its source folder."""
    try:
        return version(package)
    except PackageNotFoundError:
        return NOT_INSTALLED


def versions() -> dict[str, str]:
    """Versions of the software that makes a model, for the model's file."""
    return {name: installed(name) for name in ("sppdet", "torch")}
