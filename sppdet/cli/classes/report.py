"""What a model file says of its classes: `sppdet models FILE`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sppdet.core.errors import ModelFormatError


def describe_file(path: Path) -> Iterator[str]:
    """Yield lines about a model file: where its classes came from; only its header is read.

    Raises ModelFormatError as `read_header`, and where it is no detector.
    """
    from sppdet.core.model_file import DETECTOR, read_header
    from sppdet.detection.model_zoo import read_names

    header = read_header(path)
    if header.kind != DETECTOR:
        raise ModelFormatError(
            f"is a {header.kind}, not a {DETECTOR}", path=path, hint="give a detector"
        )
    provenance = header.provenance
    names = read_names(header, path)
    size = path.stat().st_size / 1e6
    yield f"{path}: {size:.1f} MB, {len(header.classes)} classes, on {header.backbone}"
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


def format_added(info: Mapping[str, Any]) -> str:
    """Format what is known of an added class in a line."""
    counts = [_count(info.get(f"{one}s", "?"), one) for one in ("object", "image")]
    facts = [" in ".join(counts)]
    facts.append(f"of {info.get('data') or 'unnamed data'}")
    ap, interval = info.get("ap50"), info.get("interval")
    if isinstance(ap, int | float):
        text = f"cross-validated AP50 {100 * ap:.0f}"
        if isinstance(interval, list) and len(interval) == 2 and None not in interval:
            text += f" ({100 * interval[0]:.0f} to {100 * interval[1]:.0f})"
        facts.append(text)
    if info.get("corrected"):
        facts.append(f"corrected by {info['corrected']} regions")
    if info.get("date"):
        facts.append(str(info["date"]))
    return f"{info['name']}, {', '.join(facts)}"


def _count(number: Any, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _of_data(entry: Mapping[str, Any]) -> str:
    """Name a data set and its number of images, with a word before them; empty if not known."""
    name, images = entry.get("dataset"), entry.get("images")
    if not name:
        return ""
    return f" on {name}, {_count(images, 'image')}" if images else f" on {name}"
