"""Compiling everything that is compiled, before the first image rather than during it."""

from __future__ import annotations

from collections.abc import Callable

from sppdet import eight_bit_linear, grids, proposals, spp, suppression


def is_compiled() -> bool:
    """Whether a detector can start at once, rather than compile first (some 30 seconds)."""
    parts = (proposals, spp, grids, suppression, eight_bit_linear)
    return all(part.is_compiled() for part in parts)


def warm_up(announce: Callable[[str], object] | None = None) -> None:
    """Load the machine code of selective search, pooling and NMS, making what is not there yet.

    `announce` is called with a line for the user before each wait, only if there is one.
    """
    proposals.warm_up(announce)
    spp.warm_up(announce)
    grids.warm_up(announce)
    suppression.warm_up(announce)
    eight_bit_linear.warm_up()
