"""What a model file says of its classes: `sppdet models FILE`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sppdet.core.errors import ModelFormatError, count_noun


def describe_file(path: Path) -> Iterator[str]:
    """Yield lines about a model file: where its classes came from; only its header is read.

    Raises ModelFormatError as `read_header`, and where it is no detector.
    """
    from sppdet.core.model_file import DETECTOR, read_header
    from sppdet.detection.model_zoo import read_names
    from sppdet.reports.model_card import format_added

    header = read_header(path)
    if header.kind != DETECTOR:
        raise ModelFormatError(
            f"is a {header.kind}, not a {DETECTOR}", path=path, hint="give a detector"
        )
    provenance = header.provenance
    names = read_names(header, path)
    size = path.stat().st_size / 1e6
    count = count_noun(len(header.classes), "class", "classes")
    yield f"{path}: {size:.1f} MB, {count}, on {header.backbone}"
    if header.description:
        yield f"  {header.description}"
    shown = [name for name in names.trained if name not in names.hidden]
    data = _of_data(provenance)
    yield f"  trained{data}: {', '.join(shown) or 'none that is shown'}"
    if names.hidden:
        yield f"  removed: {', '.join(names.hidden)}"
    for one in names.added:
        yield f"  added: {format_added(one)}"
    start = provenance.get("started_from")
    if isinstance(start, Mapping):
        sets = ", ".join(map(str, start.get("datasets") or ()))
        yield f"  started from {start.get('name')}" + (f", trained on {sets}" if sets else "")
    fitted = provenance.get("calibration")
    yield f"  calibrated{_of_data(fitted)}" if isinstance(fitted, Mapping) else "  not calibrated"


def _of_data(entry: Mapping[str, Any]) -> str:
    """Name a data set and its number of images, with a word before them; empty if not known."""
    name, images = entry.get("dataset"), entry.get("images")
    if not name:
        return ""
    return f" on {name}, {count_noun(images, 'image')}" if images else f" on {name}"
