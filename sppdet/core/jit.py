"""Compiled inner loops: the decorator, and the calls that compile them before the first image.

Numba compiles on the first call and keeps the machine code beside the source, in the user's cache
folder where the source is read-only, or in `NUMBA_CACHE_DIR`. Where none can be written, every
process compiles anew. Compiled functions run without the interpreter lock, so threads scale.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import ParamSpec, TypeVar

from numba import njit

P = ParamSpec("P")
R = TypeVar("R")
WarmUp = Callable[[], object]

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
    flags = set(fastmath)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        try:
            built: Callable[P, R] = njit(cache=True, nogil=True, fastmath=flags)(function)
        except RuntimeError:  # numba: "cannot cache function: no locator available"
            built = njit(nogil=True, fastmath=flags)(function)
        _compiled.append(built)
        return built

    if warm_up is not None:
        register_warm_up(warm_up)
    return decorate


def register_warm_up(call: WarmUp) -> WarmUp:
    """Have `warm_up` run `call`; a decorator, for callers in a module above the loops."""
    _warm_ups.append(call)
    return call


def is_compiled() -> bool:
    """Return whether all loops imported so far are compiled or have an up-to-date file on disk.

    A good guess, not a promise: numba also looks at the processor the file was made for, and at
    the types of the arguments.
    """
    return all(_is_ready(built) for built in _compiled)


def warm_up(announce: Callable[[str], object] | None = None) -> None:
    """Load the machine code of all loops imported so far, making what is not there yet.

    `announce` is called with one line for the user, only if there is something to wait for. Set
    torch's number of threads before: what is compiled may depend on it.
    """
    if announce is not None and not is_compiled():
        announce("compiling inner loops, once after installing (about half a minute)")
    for call in _warm_ups:
        call()


def _is_ready(built: Callable[..., object]) -> bool:
    if getattr(built, "signatures", ()):
        return True
    folder = getattr(getattr(built, "stats", None), "cache_path", None)
    if folder is None:
        return False
    source: Callable[..., object] = getattr(built, "py_func", built)
    made = Path(source.__code__.co_filename).stat().st_mtime
    stem = source.__module__.rpartition(".")[2]
    files = Path(folder).glob(f"{stem}.{source.__qualname__}-*.nbi")
    return any(f.stat().st_mtime >= made for f in files)
