"""The decorator that compiles inner loops, and what a caller may know about its machine code.

Numba compiles on the first call and keeps the machine code beside the source, in the user's cache
folder where the source is read-only, or in `NUMBA_CACHE_DIR`. Where none can be written, every
process compiles anew. The kernels run without the interpreter lock, so threads scale.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from numba import njit

P = ParamSpec("P")
R = TypeVar("R")

_kernels: list[Callable[..., object]] = []


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, compiled when first called, its machine code cached on disk if possible."""
    try:
        built: Callable[P, R] = njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba: "cannot cache function: no locator available"
        built = njit(nogil=True)(function)
    _kernels.append(built)
    return built


def all_ready(package: str) -> bool:
    """Whether every kernel of that module or package is compiled or has an up-to-date file on disk.

    A good guess, not a promise: numba also looks at the processor the file was made for, and at
    the types of the arguments.
    """
    return all(
        _is_ready(k) for k in _kernels if f"{_source(k).__module__}.".startswith(f"{package}.")
    )


def _source(built: Callable[..., object]) -> Callable[..., object]:
    found: Callable[..., object] = getattr(built, "py_func", built)
    return found


def _is_ready(built: Callable[..., object]) -> bool:
    if getattr(built, "signatures", ()):
        return True
    folder = getattr(getattr(built, "stats", None), "cache_path", None)
    source = _source(built)
    if folder is None:
        return False
    made = Path(source.__code__.co_filename).stat().st_mtime
    stem = source.__module__.rpartition(".")[2]
    files = Path(folder).glob(f"{stem}.{source.__qualname__}-*.nbi")
    return any(f.stat().st_mtime >= made for f in files)
