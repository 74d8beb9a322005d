"""The detector's own settings: round trip, files in `configs/`, and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sppdet.config import Config, differences, digest, from_dict, load_config, to_dict
from sppdet.errors import ConfigError

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def test_no_source_gives_the_defaults() -> None:
    assert load_config() == Config()
    assert from_dict(Config, {}) == Config()


def test_json_round_trip() -> None:
    config = load_config(None, ["svm.c=0.01", "seed=7", "detection.nms_iou=0.4"])
    again = from_dict(Config, json.loads(json.dumps(to_dict(config), allow_nan=False)))
    assert again == config
    assert digest(again) == digest(config) != digest(Config())
    assert differences(config, Config()) == ["svm.c", "detection.nms_iou", "seed"]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda p: str(p.name))
def test_shipped_files_load_and_hold_differences_only(path: Path) -> None:
    config = load_config(path)
    changed = differences(config, Config())
    text = path.read_text()
    assert len(changed) == sum("=" in line.partition("#")[0] for line in text.splitlines())


def test_a_stage_refuses_a_value_with_its_source_named() -> None:
    with pytest.raises(ConfigError, match=r"--set svm\.c=-1: svm\.c is -1"):
        load_config(None, ["svm.c=-1"])
    with pytest.raises(ConfigError, match="seed is -1"):
        load_config(None, ["seed=-1"])


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'detection\.nms_iou'"):
        load_config(None, ["nms_iou=0.4"])
