"""Which versions of our own package and of others are installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

NOT_INSTALLED = "not installed"


def installed(package: str) -> str:
    """The version of a package; `NOT_INSTALLED` for code that is run from where its source lies."""
    try:
        return version(package)
    except PackageNotFoundError:
        return NOT_INSTALLED


def versions() -> dict[str, str]:
    """What a model file says of the software that made it."""
    return {name: installed(name) for name in ("sppdet", "torch")}
