"""Names of models: what comes with the package, presets, and that a wrong name says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sppdet.core.errors import ConfigError, ModelFormatError
from sppdet.core.model_file import DETECTOR, load_model, save_model
from sppdet.detection import model_zoo
from sppdet.detection.model_zoo import (
    Member,
    Preset,
    find_members,
    find_preset,
    list_models,
    list_presets,
    parse_members,
    resolve_model,
)
from sppdet.detection.probabilities.calibration import Calibration
from tests.core.test_model_file import HEADER, TENSORS


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
    monkeypatch.setattr(model_zoo, "SHIPPED", folder)
    monkeypatch.setattr(model_zoo, "PRESETS", folder / "presets")
    return folder


def test_without_shipped_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_zoo, "SHIPPED", tmp_path / "none")
    monkeypatch.setattr(model_zoo, "PRESETS", tmp_path / "none")
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


def test_every_shipped_model_is_a_detector() -> None:
    for info in list_models():
        assert load_model(info.path)[0].kind == DETECTOR


PRESET = """fusion = "union"
[[members]]
model = "default"
[[members]]
model = "fast"
detection.nms_iou = 0.5
[proposals]
max_proposals = 9
"""


def test_a_preset_is_members_with_settings_for_all_and_their_own(shelf: Path, model: Path) -> None:
    path = shelf / "presets" / "both.toml"
    path.parent.mkdir()
    path.write_text(PRESET)
    (found,) = list_presets()
    assert (found.name, found.models, found.fusion) == ("both", ("default", "fast"), "union")
    assert find_preset("both") == found
    assert find_preset("default") is None
    every, own = (
        (path, {"proposals": {"max_proposals": 9}}),
        (path, {"detection": {"nms_iou": 0.5}}),
    )
    first, second = find_members("both")
    assert first == Member(shelf / "default.safetensors", (every,))
    assert second == Member(shelf / "fast.safetensors", (every, own))
    # Files may stand in for shipped models.
    assert [one.path for one in found.members({"fast": model})] == [first.path, model]
    assert [one.path for one in find_members(f"both+{model}")] == [first.path, second.path, model]
    with pytest.raises(ModelFormatError, match=r"no such model.*default, fast, both"):
        resolve_model("gone")


def test_a_preset_has_a_calibration_of_its_own(shelf: Path) -> None:
    path = shelf / "presets" / "both.toml"
    path.parent.mkdir()
    made = Calibration(np.array([1.5, 2.25], np.float32), np.array([0.1, -1], np.float32))
    path.write_text(f"{PRESET}\n{made.toml()}")
    for member in find_members("both"):
        assert member.calibration is not None
        assert np.array_equal(member.calibration.slope, made.slope)
        assert np.array_equal(member.calibration.intercept, made.intercept)
    assert find_members("default")[0].calibration is None


@pytest.mark.parametrize(
    "table",
    [
        "calibration = 3",
        "[calibration]\nslope = [1.0]",
        "[calibration]\nslope = [-1]\nintercept = [0]",
    ],
)
def test_a_preset_with_a_broken_calibration_is_refused(tmp_path: Path, table: str) -> None:
    path = tmp_path / "odd.toml"
    path.write_text(f"{table}\n[[members]]\nmodel = 'default'")
    with pytest.raises(ConfigError, match=r"odd\.toml.*\[calibration\].*a number per class"):
        Preset.read(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no models"),
        ("[[members]]\nname = 'default'", "names no models"),
        ("[[members]]\nmodel = 3", "names no models"),
        ("fusion = 'median'\n[[members]]\nmodel = 'default'", "fusion is 'median'.*mean, union"),
    ],
)
def test_a_preset_without_models_or_of_an_unknown_fusion_is_refused(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "odd.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"odd\.toml.*{said}"):
        Preset.read(path)


def test_a_plus_parts_names_but_not_a_files_own(model: Path) -> None:
    assert parse_members("a+b") == ["a", "b"]
    assert parse_members("a") == ["a"]
    assert parse_members("runs/07+12/m.safetensors") == ["runs/07+12/m.safetensors"]
    plus = model.with_name("x+y.safetensors")
    plus.write_bytes(model.read_bytes())
    assert parse_members(plus) == [str(plus)]
    assert [one.path for one in find_members(plus)] == [plus]
