"""What the package logs, shown on standard error, as `--quiet` and `--debug` ask for."""

from __future__ import annotations

import logging
import sys

from sppdet.core.errors import OutputError, printable

_log = logging.getLogger("sppdet")


class _ToStderr(logging.Handler):
    """Prints each record as a line on what standard error is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        warn(record.getMessage())


_handler = _ToStderr()


def show(*, quiet: bool = False, debug: bool = False) -> None:
    """Show the package's notes and warnings; only warnings with `quiet`, all with `debug`."""
    _log.setLevel(logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO)
    if _handler not in _log.handlers:
        _log.addHandler(_handler)


def hide() -> None:
    """Leave the package's log to whoever runs the command inside a program of theirs."""
    _log.removeHandler(_handler)
    _log.setLevel(logging.NOTSET)


def are_shown() -> bool:
    """Return whether what is no warning is wanted: progress, notes."""
    return _log.isEnabledFor(logging.INFO) or _log.level == logging.NOTSET


def is_debugging() -> bool:
    """Return whether `--debug` was given."""
    return _log.level == logging.DEBUG


def warn(message: str) -> None:
    """Print a line on standard error."""
    print(printable(f"sppdet: {message}"), file=sys.stderr, flush=True)


def say(text: str, *, to_stderr: bool = False) -> None:
    """Print on standard output or error; OutputError where that is a file on a full disk.

    A pipe that nobody reads any more raises BrokenPipeError, which ends the command quietly.
    """
    try:
        print(printable(text), file=sys.stderr if to_stderr else sys.stdout, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError.of(error, "standard output") from None
