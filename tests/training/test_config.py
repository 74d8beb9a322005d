"""The detector's own settings: round trip, files in `configs/`, and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sppdet.classification.config import ClassificationConfig
from sppdet.core.errors import ConfigError
from sppdet.core.settings import (
    Settings,
    differences,
    digest,
    from_dict,
    keys,
    load,
    to_dict,
    to_toml,
)
from sppdet.detection.config import DetectorConfig
from sppdet.training.config import TrainingConfig

CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs"


def test_no_source_gives_the_defaults() -> None:
    assert TrainingConfig() == TrainingConfig()
    assert from_dict(TrainingConfig, {}) == TrainingConfig()


def test_json_round_trip() -> None:
    config = load(TrainingConfig, None, ["svm.c=0.01", "seed=7", "detection.nms_iou=0.4"])
    again = from_dict(TrainingConfig, json.loads(json.dumps(to_dict(config), allow_nan=False)))
    assert again == config
    assert digest(again) == digest(config) != digest(TrainingConfig())
    assert differences(config, TrainingConfig()) == ["detection.nms_iou", "seed", "svm.c"]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda p: str(p.name))
def test_shipped_files_load_and_hold_differences_only(path: Path) -> None:
    config = load(TrainingConfig, path)
    changed = differences(config, TrainingConfig())
    text = path.read_text()
    assert len(changed) == sum("=" in line.partition("#")[0] for line in text.splitlines())


def test_a_stage_refuses_a_value_with_its_source_named() -> None:
    with pytest.raises(ConfigError, match=r"--set svm\.c=-1: svm\.c is -1"):
        load(TrainingConfig, None, ["svm.c=-1"])
    with pytest.raises(ConfigError, match="seed is -1"):
        load(TrainingConfig, None, ["seed=-1"])


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'detection\.nms_iou'"):
        load(TrainingConfig, None, ["nms_iou=0.4"])


def test_a_source_is_named_for_its_own_key(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[svm]\nc = 0\n")
    changes = ["svm.evict_threshold=0", "svm.hard_threshold=1"]
    with pytest.raises(ConfigError, match=r"mine\.toml: svm\.c is 0; give a number above 0"):
        load(TrainingConfig, path, changes)
    # Together they are right, though neither is alone.
    assert load(TrainingConfig, None, changes).svm.hard_threshold == 1
    with pytest.raises(ConfigError, match=r"evict_threshold 0.0 is not below svm.hard_threshold"):
        load(TrainingConfig, None, changes[:1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("head.dropout=1", r"head.dropout is 1; give a number in \[0, 1\)"),
        ("features.scales=[]", "features.scales has 0 values; give at least 1"),
        ("features.scales=[0]", r"features.scales\[0\] is 0; give a whole number in \[1, 4000\]"),
        ("finetune.steps=-2", "finetune.steps is -2; give 0 or more, or -1 for as many as"),
        ("finetune.background_iou=[0.1]", "background_iou has 1 values; give 2"),
        ("proposals.engine=mine", "proposals.engine is 'mine'; give 'selective-search' or"),
    ],
)
def test_a_wrong_value_is_told_with_what_may_be_given(change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(TrainingConfig, None, [change])


@pytest.mark.parametrize("config", [TrainingConfig(), ClassificationConfig()])
def test_every_setting_is_described_in_its_toml(config: Settings, tmp_path: Path) -> None:
    path = tmp_path / "all.toml"
    path.write_text(to_toml(config))
    assert load(type(config), path) == config
    lines = to_toml(config).splitlines()
    values = [number for number, line in enumerate(lines) if " = " in line and line[0] != "#"]
    assert len(values) == len(list(keys(type(config))))
    assert all(lines[number - 1].startswith("# ") for number in values)


def test_a_detectors_settings_are_those_of_its_training_but_for_the_training() -> None:
    config = load(TrainingConfig, None, ["head.fc6=8", "svm.c=1"])
    assert type(config.detector()) is DetectorConfig
    assert config.detector() == DetectorConfig(head=config.head)
