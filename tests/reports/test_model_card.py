"""A model card says what the file's header says, and nothing in a header becomes Markdown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sppdet.core.errors import ModelFormatError
from sppdet.core.model_file import CLASSIFIER, ModelHeader, save_model
from sppdet.detection.model_zoo import list_models
from sppdet.reports.model_card import CARD_FILE, model_card, write_card

PROVENANCE: dict[str, Any] = {
    "dataset": "birds train",
    "images": 30,
    "objects": 41,
    "steps": 500,
    "seed": 0,
    "sppdet": "1.0",
    "torch": "2.0",
    "started_from": {"name": "default", "datasets": ["VOC2007 trainval"]},
    "calibration": {"dataset": "birds val", "images": 8, "error": 0.0312, "ap50": 0.715},
}
HEADER = ModelHeader(("crow", "gull"), {}, "resnet18", "0" * 64, "two birds", PROVENANCE)


def saved(path: Path, **changes: Any) -> Path:
    save_model(path, replace(HEADER, **changes), {"a": np.zeros(3, np.float32)})
    return path


def test_it_says_what_the_header_says(tmp_path: Path) -> None:
    card = model_card(saved(tmp_path / "birds.safetensors"))
    for part in (
        "# birds.safetensors\n",
        "two birds",
        "2 classes on resnet18",
        "Trained: crow, gull.",
        "| data | birds train |",
        "| images | 30 |",
        "| started from | default |",
        "| which was trained on | VOC2007 trainval |",
        "| made by | sppdet 1.0, torch 2.0 |",
        "AP50 71.5",
        "birds val, 8 images",
        "expected calibration error 0.031",
        "sppdet detect photo.jpg --model birds.safetensors\n",
    ):
        assert part in card
    write_card(tmp_path / "birds.safetensors")
    assert (tmp_path / CARD_FILE).read_text() == card


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    card = model_card(saved(tmp_path / "a.safetensors", provenance={}, classes=("one",)))
    assert "1 class on" in card
    assert "random layers" not in card
    assert "no probabilities" in card
    assert "AP50" not in card
    assert "None" not in card
    figures = {"dataset": "x", "images": 3, "error": None, "ap50": None}
    card = model_card(saved(tmp_path / "b.safetensors", provenance={"calibration": figures}))
    assert "AP50" not in card
    assert "None" not in card


def test_added_and_removed_classes_are_told(tmp_path: Path) -> None:
    added = {
        "name": "owl",
        "objects": 9,
        "images": 5,
        "data": "owls",
        "ap50": 0.5,
        "date": "2026-01-02",
    }
    names = {"trained": ["crow", "gull"], "hidden": ["gull"], "added": [added]}
    card = model_card(
        saved(tmp_path / "a.safetensors", classes=("crow", "owl"), provenance={"classes": names})
    )
    assert "Trained: crow." in card
    assert "removed since: gull." in card
    assert "- owl, 9 objects in 5 images, of owls, cross-validated AP50 50, 2026-01-02" in card


def test_a_name_is_text(tmp_path: Path) -> None:
    name = "[x](http://a.b) | <b>*bold*</b>\n# title"
    card = model_card(
        saved(tmp_path / "a.safetensors", classes=(name,), provenance={"dataset": name})
    )
    assert "<b>" not in card.replace("\\<b", "")
    assert "\n# title" not in card
    assert r"\[x\](http://a.b) \| \<b\>\*bold\*\</b\> \# title" in card


def test_the_shipped_models_have_cards() -> None:
    for one in list_models():
        card = model_card(one.path)
        assert "VOC2007" in card
        assert "aeroplane" in card


def test_what_is_no_detector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="not a detector"):
        model_card(saved(tmp_path / "a.safetensors", kind=CLASSIFIER))
