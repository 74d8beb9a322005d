"""Plots of a report as SVG within the page; equal figures give equal bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from sppdet.core.types import IntArray
from sppdet.evaluation.calibration_error import ReliabilityBin
from sppdet.evaluation.voc_ap import ClassResult
from sppdet.reports.svg_figure import NO_METADATA, svg_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A curve has at most so many points: more are not to be seen.
MAX_POINTS = 120


def plot_class(result: ClassResult, bins: Sequence[ReliabilityBin] | None) -> Markup:
    """Plot precision over recall, both over the threshold, and reliability where `bins` are given.

    A class without objects has only the last.
    """
    with svg_figure(7.6, 2.2) as figure:
        curve, points, reliability = figure.subplots(1, 3, gridspec_kw=_margins(0.06, 0.19))
        some = _thin(len(result.scores))
        precision, recall = result.precision[some], result.recall[some]
        curve.plot(recall, precision, color="C0", linewidth=1.2)
        _label(curve, "recall", "precision")
        points.plot(result.scores[some], precision, color="C0", label="precision", linewidth=1.2)
        points.plot(result.scores[some], recall, color="C1", label="recall", linewidth=1.2)
        points.set(xlabel="threshold", ylim=(-0.02, 1.02))
        points.legend(loc="best", frameon=False)
        _draw_bins(reliability, bins)
        return _svg(figure)


def plot_reliability(bins: Sequence[ReliabilityBin]) -> Markup:
    """Plot the share of right detections over their mean score, of all classes together."""
    with svg_figure(3.2, 2.8) as figure:
        _draw_bins(figure.subplots(gridspec_kw=_margins(0.16, 0.16)), bins)
        return _svg(figure)


def _draw_bins(axes: Any, bins: Sequence[ReliabilityBin] | None) -> None:
    if bins is None:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "scores are\nno probabilities", ha="center", va="center")
        return
    filled = [one for one in bins if one.detections]
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle="--")
    scores, shares = [one.mean_score for one in filled], [one.share_right for one in filled]
    axes.plot(scores, shares, color="C2", marker="o", markersize=3, linewidth=1.2)
    _label(axes, "mean score", "share right")


def _label(axes: Any, x: str, y: str) -> None:
    axes.set(xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))


def _margins(left: float, bottom: float) -> dict[str, float]:
    return {"left": left, "bottom": bottom, "right": 0.99, "top": 0.97, "wspace": 0.3}


def _thin(count: int) -> IntArray:
    return np.unique(np.linspace(0, count - 1, min(count, MAX_POINTS)).astype(np.int64))


def _svg(figure: Figure) -> Markup:
    """Return the SVG element alone, without names that lead elsewhere or occur twice in a page."""
    out = StringIO()
    figure.savefig(out, format="svg", metadata=NO_METADATA, transparent=True)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"font-family: [^;\"]*; ", "", text)
    text = re.sub(r"(\d\.\d\d)\d+", r"\1", text)
    return Markup(re.sub(r"\s*\n\s*", " ", text.replace("xlink:href", "href")))
