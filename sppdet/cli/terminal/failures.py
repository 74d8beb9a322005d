"""What becomes of an error: one line, and with `--debug` where it comes from."""

from __future__ import annotations

import traceback

from sppdet.cli.terminal import notes
from sppdet.core.errors import OutputError, SppdetError
from sppdet.core.parallel import is_out_of_memory


def tell(error: Exception) -> None:
    """Print an error that ends the command, as one line on standard error."""
    if notes.is_debugging():
        traceback.print_exception(error)
    notes.warn(describe(error))


def describe(error: Exception) -> str:
    """Say in one line what went wrong, where, and what to do about it."""
    if isinstance(error, SppdetError):
        return str(error)
    if is_out_of_memory(error):
        return "out of memory; use smaller images or features.scales, or close other programs"
    if isinstance(error, OSError) and error.strerror:
        return str(OutputError.of(error))
    what = " ".join(str(error).split())
    return (
        f"{type(error).__name__}{what and f': {what}'}; this is a bug of sppdet: report it, with "
        "what the same command prints with --debug and what sppdet doctor says"
    )
