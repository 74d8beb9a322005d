"""A model card: what a model file says of itself, as Markdown (Mitchell et al. 2019)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sppdet.core.errors import ModelFormatError, count_noun
from sppdet.core.files import atomic_write_text
from sppdet.core.model_file import DETECTOR, ModelHeader, read_header
from sppdet.detection.added.names import ClassNames
from sppdet.detection.model_zoo import read_names

CARD_FILE = "model_card.md"
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#])")


def write_card(path: Path) -> None:
    """Write the card of a model file as `model_card.md` beside it, if it is not there already."""
    card, target = model_card(path), path.with_name(CARD_FILE)
    if not (target.is_file() and target.read_bytes() == card.encode()):
        atomic_write_text(target, card)


def model_card(path: Path) -> str:
    """Return the card of a detector's file; only its header is read.

    Raises ModelFormatError as `read_header`, and where it is no detector.
    """
    header = read_header(path)
    if header.kind != DETECTOR:
        problem = f"is a {header.kind}, not a {DETECTOR}"
        raise ModelFormatError(problem, path=path, hint="give a detector")
    lines = [
        *_what_it_is(header, path),
        *_classes(header, read_names(header, path)),
        *_training(header.provenance),
        *_figures(header.provenance),
        *_limits(),
        *_use(path),
    ]
    return "\n".join(lines) + "\n"


def format_added(info: Mapping[str, Any]) -> str:
    """Format what is known of an added class in a line."""
    counts = [count_noun(info.get(f"{one}s", "?"), one) for one in ("object", "image")]
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


def _what_it_is(header: ModelHeader, path: Path) -> Iterator[str]:
    yield f"# {_text(path.name)}"
    yield ""
    if header.description:
        yield _text(header.description)
        yield ""
    size = path.stat().st_size / 1e6
    classes = "1 class" if len(header.classes) == 1 else f"{len(header.classes)} classes"
    yield (
        f"An SPP-net object detector of {classes} on {_text(header.backbone)}, {size:.1f} MB: "
        "image in, boxes with class and score out."
    )


def _classes(header: ModelHeader, names: ClassNames) -> Iterator[str]:
    yield from ("", "## Classes", "")
    shown = [name for name in names.trained if name not in names.hidden]
    yield f"Trained: {_list(shown)}."
    if names.hidden:
        yield ""
        yield f"Trained, and removed since: {_list(names.hidden)}."
    if names.added:
        yield from ("", "Added later, each by itself:", "")
        yield from (f"- {_text(format_added(one))}" for one in names.added)


def _training(provenance: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", "## Training", "", "| | |", "|---|---|")
    start = provenance.get("started_from")
    layers = "random layers" if "steps" in provenance else None
    rows = {
        "data": provenance.get("dataset"),
        "images": provenance.get("images"),
        "objects": provenance.get("objects"),
        "started from": start.get("name") if isinstance(start, Mapping) else layers,
        "steps of fine-tuning": provenance.get("steps"),
        "seed": provenance.get("seed"),
        "made by": ", ".join(
            f"{name} {provenance[name]}" for name in ("sppdet", "torch") if name in provenance
        ),
    }
    for name, value in rows.items():
        if value not in (None, ""):
            yield f"| {name} | {_text(value)} |"
    if isinstance(start, Mapping) and start.get("datasets"):
        yield f"| which was trained on | {_list(start['datasets'])} |"


def _figures(provenance: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", "## Figures", "")
    fitted = provenance.get("calibration")
    if not isinstance(fitted, Mapping):
        yield "Not calibrated: scores order detections, and are no probabilities."
        return
    data = f"{_text(fitted.get('dataset') or 'held-out data')}, {fitted.get('images')} images"
    ap, error = fitted.get("ap50"), fitted.get("error")
    if isinstance(ap, int | float):
        yield f"- AP50 {100 * ap:.1f} (mean over classes, area under the curve) on {data}."
    close = f", expected calibration error {error:.3f}" if isinstance(error, int | float) else ""
    yield f"- Scores are probabilities that a box is right, fitted on {data}{close}."


def _limits() -> Iterator[str]:
    yield from ("", "## Before you rely on it", "")
    yield (
        "Figures hold for photos like those named above; measure it on yours (`sppdet evaluate`). "
        "It finds nothing but the classes above, and misses most objects that are a few pixels "
        "large."
    )
    yield ""
    yield (
        "sppdet is under the Apache License 2.0. What may be done with this model also depends on "
        "the licenses of the data above and of the backbone's weights."
    )


def _use(path: Path) -> Iterator[str]:
    name = path.name
    yield from (
        "",
        "## Use",
        "",
        "```sh",
        f"sppdet detect photo.jpg --model {shlex.quote(name)}",
        "```",
    )
    yield from ("", "```python", "from sppdet import Detector", "")
    yield f"detector = Detector.load({name!r})"
    yield 'for found in detector.detect("photo.jpg").above(0.5):'
    yield from ("    print(found.name, found.score, found.box)", "```")


def _list(names: Any) -> str:
    return ", ".join(_text(name) for name in names) or "none"


def _text(value: Any) -> str:
    """Format a value on one line, so that nothing in it is Markdown."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(value).split()))
