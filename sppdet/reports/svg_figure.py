"""Figures that are written as SVG: equal content gives equal bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE: Any = {
    # Names of parts within the file follow from its content and this, not from chance.
    "svg.hashsalt": "sppdet",
    # Text as text: small, and in whatever script the reader's machine has.
    "svg.fonttype": "none",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "path.simplify": True,
}
# For `savefig`: when and by what it was drawn is left out.
NO_METADATA: Any = {"Date": None, "Creator": None, "Format": None, "Type": None}


@contextmanager
def svg_figure(width: float, height: float) -> Iterator[Figure]:
    """Yield a figure of that size in inches, in one style whatever the user's own is."""
    # Slow to import, and needed only where something is drawn.
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield Figure(figsize=(width, height))
