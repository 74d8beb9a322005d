"""What the shipped models find in photos that installed packages carry stays as it was.

`golden.json` holds all detections of margins above -1. Quantized layers round in another way on
another processor, so figures are compared within a tolerance; a change that is meant to move them
by more writes the file anew: `python -m tests.detection.test_golden`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sppdet.core.types import Detections
from sppdet.detection.ensemble import load_detector

GOLDEN = Path(__file__).with_name("golden.json")
MODELS = ("default", "fast", "balanced", "accurate")
PHOTOS = ("chelsea.png", "astronaut.png", "coffee.png", "motorcycle_left.png")
LOWEST = -1.0
MARGIN_TOLERANCE = 0.15
# Of the box's longer side.
BOX_TOLERANCE = 0.04

Row = Mapping[str, Any]


def photo(name: str) -> Path:
    """The file of a photo that scikit-image carries."""
    return Path(str(files("skimage") / "data" / name))


def as_rows(found: Detections) -> list[Row]:
    """Detections as the file holds them."""
    return [
        {
            "name": one.name,
            "margin": round(float(one.margin), 3),
            "box": [round(float(side), 1) for side in one.box],
        }
        for one in found
        if one.margin >= LOWEST
    ]


def is_same(found: Row, expected: Row) -> bool:
    """Tell whether two detections are one, but for rounding."""
    box = np.array(expected["box"])
    most = BOX_TOLERANCE * float(max(box[2:] - box[:2]))
    return (
        found["name"] == expected["name"]
        and abs(found["margin"] - expected["margin"]) <= MARGIN_TOLERANCE
        and float(np.abs(np.array(found["box"]) - box).max()) <= most
    )


@pytest.mark.parametrize("model", MODELS)
def test_detections_are_what_they_were(model: str) -> None:
    golden = json.loads(GOLDEN.read_text())[model]
    assert set(golden) == set(PHOTOS)
    detector = load_detector(model)
    for name, expected in golden.items():
        found = as_rows(detector.detect(photo(name)))
        # A margin so near to the lowest may be on either side of it.
        for ours, theirs in ((found, expected), (expected, found)):
            sure = [one for one in ours if one["margin"] > LOWEST + MARGIN_TOLERANCE]
            for one in sure:
                assert any(is_same(one, other) for other in theirs), (name, one, theirs)


def test_the_photos_show_something() -> None:
    golden = json.loads(GOLDEN.read_text())
    assert tuple(golden) == MODELS
    for rows in golden.values():
        best = {name: found[0]["name"] for name, found in rows.items()}
        assert best["chelsea.png"] == "cat"
        assert best["motorcycle_left.png"] == "motorbike"


def main() -> None:
    """Write the file anew."""
    found: dict[str, dict[str, list[Row]]] = {}
    for model in MODELS:
        detector = load_detector(model)
        found[model] = {name: as_rows(detector.detect(photo(name))) for name in PHOTOS}
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
