"""What a training takes over from a model file, and which settings go with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sppdet.core.errors import ConfigError, ModelFormatError
from sppdet.core.files import sha256
from sppdet.core.settings import load
from sppdet.detection.model_zoo import training_datasets
from sppdet.detection.starting_model import StartingModel
from sppdet.training.config import TrainingConfig
from tests.helpers.made_detector import CLASSES, SMALL, make_detector


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "mine.safetensors"
    earlier = {"datasets": ["VOC2007 trainval", 3]}
    provenance: dict[str, object] = {"dataset": "mine", "started_from": earlier}
    make_detector().save(path, description="made", provenance=provenance)
    return path


def test_a_model_says_what_it_is_and_what_it_has_seen(path: Path) -> None:
    start = StartingModel.load(path)
    assert start.classes == CLASSES
    assert start.provenance() == {
        "name": "mine.safetensors",
        "description": "made",
        "digest": sha256(path.read_bytes()),
        "datasets": ["mine", "VOC2007 trainval"],
    }
    assert training_datasets(path) == ["mine", "VOC2007 trainval"]


def test_settings_that_the_layers_depend_on_cannot_be_others(path: Path) -> None:
    start = StartingModel.load(path)
    free = ("features.scales=[64]", "head.dropout=0.5", "head.fc6_rank=0", "head.svm_layer=fc6")
    config = load(TrainingConfig, None, [*SMALL, *free, "svm.c=1", "seed=3"])
    assert start.changed_settings(config) == []
    start.check(config)
    other = load(TrainingConfig, None, [*SMALL, "head.fc7=16", "features.layers=['stage4']"])
    assert start.changed_settings(other) == ["features.layers", "head.fc7"]
    with pytest.raises(ConfigError, match=r"\['stage4'\], .* has \['stage5'\]; --from none"):
        start.check(other)


def test_several_models_are_none_to_start_from() -> None:
    with pytest.raises(ModelFormatError, match="several models"):
        StartingModel.load("default+lite0")
