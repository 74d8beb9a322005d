"""Compiled inner loops: the decorator, and the calls that compile them before the first image.

Numba compiles on the first call, which is logged, and keeps the machine code in the user's cache
folder, or in `NUMBA_CACHE_DIR`. From a folder that can only be read it is taken all the same; where
there is none, every process compiles anew. Compiled functions run without the interpreter lock, so
threads scale.
"""

from __future__ import annotations

import atexit
import logging
import shutil
import tempfile
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba
from numba.core import event

from sppdet.core.files import user_cache_folder

P = ParamSpec("P")
R = TypeVar("R")
WarmUp = Callable[[], object]

_log = logging.getLogger(__name__)
_config: Any = numba.config
_compiled: list[Callable[..., object]] = []
_warm_ups: list[WarmUp] = []


def jit(
    *, warm_up: WarmUp | None = None, fastmath: AbstractSet[str] = frozenset()
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function to compile when first called, its machine code cached if possible.

    Args:
        warm_up: a call that runs the function, and those that it needs, with the types that they
            are used with. A function without one is reached by that of another.
        fastmath: what the compiler may take liberties with (LLVM's flags).
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        built: Callable[P, R] = _build(function, nogil=True, fastmath=set(fastmath))
        _compiled.append(built)
        return built

    if warm_up is not None:
        register_warm_up(warm_up)
    return decorate


def register_warm_up(call: WarmUp) -> WarmUp:
    """Have `warm_up` run `call`; a decorator, for callers in a module above the loops."""
    _warm_ups.append(call)
    return call


def warm_up() -> None:
    """Load the machine code of all loops imported so far, making what is not there yet.

    Set torch's number of threads before: what is compiled may depend on it.
    """
    for call in _warm_ups:
        call()


def machine_code_folder() -> Path | None:
    """Return the folder that machine code is read from and written to; None: there is none."""
    named = _config.CACHE_DIR
    folder = Path(named) if named else user_cache_folder("loops")
    return None if folder is None else _writable(folder)


def _build(function: Callable[P, R], **options: Any) -> Any:
    folder = machine_code_folder()
    if folder is None:
        return numba.njit(**options)(function)
    # Read when a function is decorated; of other people's functions it decides nothing.
    usual, _config.CACHE_DIR = _config.CACHE_DIR, str(folder)
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba: "cannot cache function: no locator available"
        return numba.njit(**options)(function)
    finally:
        _config.CACHE_DIR = usual


@cache
def _writable(folder: Path) -> Path | None:
    """Return the folder, a copy of it for this process if it can only be read, or None.

    Numba asks for a folder that it can write to, also where all is there already: in a container
    whose files are read-only, for a user other than the one who compiled.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        return folder
    except OSError:
        pass
    try:
        own = Path(tempfile.mkdtemp(prefix="sppdet-loops-"))
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        if folder.is_dir():
            shutil.copytree(folder, own, dirs_exist_ok=True)
        return own
    except OSError:
        return None


class _Announcer(event.Listener):
    """Logs, once per process, that there is something to wait for."""

    told = False

    def on_start(self, event: Any) -> None:
        if not self.told and event.data["dispatcher"] in _compiled:
            self.told = True
            _log.info("compiling inner loops, once after installing (about half a minute)")

    def on_end(self, event: Any) -> None:
        """Say nothing: what follows is quick, or is told of by itself."""


# Numba tells of what it compiles, not of what it loads.
_announcer = _Announcer()
event.register("numba:compile", _announcer)  # type: ignore[no-untyped-call]
