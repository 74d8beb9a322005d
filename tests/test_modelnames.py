"""Names of models: what comes with the package, presets, and that a wrong name says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sppdet import modelnames
from sppdet.errors import ModelFormatError
from sppdet.modelfile import DETECTOR, load_model, save_model
from sppdet.modelnames import list_models, resolve_model
from tests.test_modelfile import HEADER, TENSORS


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_model(path, HEADER, TENSORS)
    return path


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder with two shipped models."""
    folder = tmp_path / "models"
    for name in ("fast", "default"):
        header = replace(HEADER, description=f"the {name} one")
        save_model(folder / f"{name}.safetensors", header, TENSORS)
    (folder / "notes.txt").write_text("not a model")
    monkeypatch.setattr(modelnames, "SHIPPED", folder)
    return folder


def test_without_shipped_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modelnames, "SHIPPED", tmp_path / "none")
    assert list_models() == []
    with pytest.raises(ModelFormatError, match="default: no such model; give the path"):
        resolve_model("default")


def test_shipped_models_are_listed_by_name(shelf: Path) -> None:
    found = list_models()
    assert [info.name for info in found] == ["default", "fast"]
    assert [info.description for info in found] == ["the default one", "the fast one"]
    for info in found:
        assert info.path == shelf / f"{info.name}.safetensors"
        assert info.classes == HEADER.classes
        assert info.size_bytes == len(info.path.read_bytes())
        assert info.provenance == HEADER.provenance


@pytest.mark.parametrize(
    ("provenance", "told"),
    [
        ({}, ""),
        ({"dataset": 3, "images": 4}, ""),
        ({"dataset": "VOC2007 train"}, "VOC2007 train"),
        ({"dataset": "VOC2007 train", "images": 4008}, "VOC2007 train, 4008 images"),
    ],
)
def test_what_a_model_was_trained_on_is_told(
    shelf: Path, provenance: dict[str, Any], told: str
) -> None:
    save_model(shelf / "fast.safetensors", replace(HEADER, provenance=provenance), TENSORS)
    assert list_models()[1].trained_on == told


def test_a_broken_shipped_model_is_named(shelf: Path) -> None:
    (shelf / "broken.safetensors").write_bytes(b"")
    with pytest.raises(ModelFormatError, match=r"broken\.safetensors"):
        list_models()


def test_names_and_paths_resolve(shelf: Path, tmp_path: Path, model: Path) -> None:
    assert resolve_model("fast") == shelf / "fast.safetensors"
    assert resolve_model(model) == model
    assert resolve_model(str(model)) == model
    for wrong in ("fats", str(tmp_path / "gone.safetensors"), Path("default"), "~nobody-here/m"):
        with pytest.raises(ModelFormatError, match=r"no such model.*default, fast"):
            resolve_model(wrong)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_names_that_no_file_can_have(name: str) -> None:
    with pytest.raises(ModelFormatError, match="no such model"):
        resolve_model(name)


def test_the_models_of_this_package_load() -> None:
    for info in list_models():
        header, tensors = load_model(info.path)
        assert header.classes == info.classes
        assert tensors
        assert resolve_model(info.name) == info.path


def test_the_shipped_model_from_before_there_were_kinds_is_a_detector() -> None:
    for info in list_models():
        assert load_model(info.path)[0].kind == DETECTOR
