"""Stage results on disk: what is found again, and what must not be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sppdet.core.settings import Settings, flatten, load
from sppdet.training.checkpoints import DEPENDS, UPSTREAM, WITHOUT_EFFECT, StageStore
from sppdet.training.config import TrainingConfig

DATA_KEY = "0123456789abcdef" * 4


def _tensors() -> dict[str, Tensor]:
    return {
        "weights": torch.arange(12, dtype=torch.float32).reshape(3, 4),
        "trained": torch.tensor([True, False]),
        "next_image": torch.tensor(3),
        "keys": torch.zeros(0, dtype=torch.uint8),
        "float64": torch.tensor([1e300]),
    }


def _same(found: dict[str, Tensor] | None, saved: dict[str, Tensor]) -> bool:
    return (
        found is not None
        and found.keys() == saved.keys()
        and all(
            found[name].dtype == value.dtype and torch.equal(found[name], value)
            for name, value in saved.items()
        )
    )


def _store(folder: Path, *changes: str) -> StageStore:
    return StageStore(folder, load(TrainingConfig, None, changes), DATA_KEY)


def test_an_empty_stage_store_has_nothing(tmp_path: Path) -> None:
    store = _store(tmp_path / "none")
    assert store.load("svm") is None
    assert store.load("svm", partial=True) is None


def test_stage_results_come_back_with_types_and_shapes(tmp_path: Path) -> None:
    store = _store(tmp_path / "run")
    store.save("svm", _tensors())
    assert _same(store.load("svm"), _tensors())
    store.save("svm", {name: value.numpy() for name, value in _tensors().items()})
    assert _same(store.load("svm"), _tensors())


def test_stage_results_are_found_under_their_own_inputs_alone(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.save("svm", _tensors())
    assert store.load("finetune") is None
    assert _store(tmp_path, "svm.c=0.5").load("svm") is None
    assert StageStore(tmp_path, store.config, "other data").load("svm") is None
    assert store.load("svm", partial=True) is None
    assert _same(_store(tmp_path).load("svm"), _tensors())


def test_a_result_takes_the_place_of_its_own_partial_state(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.save("svm", {"step": torch.tensor(1)}, partial=True)
    store.save("finetune", {"step": torch.tensor(2)}, partial=True)
    assert store.load("svm") is None
    store.save("svm", _tensors())
    assert store.load("svm", partial=True) is None
    assert _same(store.load("finetune", partial=True), {"step": torch.tensor(2)})


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_damaged_stage_file_is_noticed(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = _store(tmp_path_factory.mktemp("run"))
    store.save("svm", _tensors())
    (path,) = store.folder.iterdir()
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:at])
    assert store.load("svm") is None
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
    found = store.load("svm")
    # Space after the JSON is the one place where a change may do no harm.
    assert found is None or _same(found, _tensors())


def _keys(config: TrainingConfig, data_key: str = DATA_KEY) -> dict[str, str]:
    store = StageStore(Path("run"), config, data_key)
    return {stage: store.key(stage) for stage in DEPENDS}


def test_every_stage_has_a_key_of_its_own() -> None:
    keys = _keys(TrainingConfig())
    assert len(set(keys.values())) == len(keys) == len(DEPENDS)
    assert _keys(load(TrainingConfig, None, ())) == keys


ALL = {"finetune", "compression", "regions", "svm"}
# The stages that a setting, or else its section, changes the result of.
CHANGES: dict[str, set[str]] = {
    "seed": ALL,
    # Proposals are in the data's key, and detection comes after training.
    "proposals": set(),
    "detection": set(),
    "features": ALL,
    "features.download": set(),
    "head": ALL,
    "head.fc6_rank": {"compression", "regions", "svm"},
    "head.svm_layer": {"regions", "svm"},
    "head.regression_layer": {"regions", "svm"},
    # Follows from the settings of fine-tuning.
    "head.learned_boxes": set(),
    "finetune": ALL,
    "finetune.checkpoint_every": set(),
    "svm": {"svm"},
    "svm.feature_norm": {"regions", "svm"},
    "regression": {"regions"},
    "context": {"regions"},
}


def _changed(name: str) -> TrainingConfig:
    """Give the defaults with another value, right or not: keys do not ask."""
    config = TrainingConfig()
    section, _, field = name.partition(".")
    if not field:
        return config.model_copy(update={section: config.seed + 1})
    part: Settings = getattr(config, section)
    return config.model_copy(update={section: part.model_copy(update={field: "another value"})})


@pytest.mark.parametrize("name", list(flatten(TrainingConfig())))
def test_a_changed_setting_redoes_the_stages_that_depend_on_it_and_no_other(name: str) -> None:
    before, after = _keys(TrainingConfig()), _keys(_changed(name))
    expected = CHANGES.get(name, CHANGES[name.partition(".")[0]])
    assert {stage for stage in ALL if after[stage] != before[stage]} == expected


def test_stages_depend_on_settings_that_there_are() -> None:
    names = set(flatten(TrainingConfig()))
    known = names | {name.partition(".")[0] for name in names}
    for table in (DEPENDS, WITHOUT_EFFECT):
        assert {name for parts in table.values() for name in parts} <= known
    assert set(CHANGES) <= known
    assert set(UPSTREAM) | {"finetune"} == set(DEPENDS) - {"calibration"} == ALL


def test_the_calibration_is_redone_where_the_detector_detects_in_another_way() -> None:
    # What the detector is, is in the data's key of its store.
    before = _keys(TrainingConfig())["calibration"]
    names = flatten(TrainingConfig())
    redo = {name for name in names if _keys(_changed(name))["calibration"] != before}
    sections = ("proposals.", "features.", "head.", "detection.")
    expected = {name for name in names if name.startswith(sections)} - {"features.download"}
    assert redo == expected


def test_other_data_redo_every_stage() -> None:
    config = TrainingConfig()
    before, after = _keys(config), _keys(config, "other data")
    assert not set(before.values()) & set(after.values())


def test_another_model_to_start_from_redoes_every_stage() -> None:
    found = [
        StageStore(Path("run"), TrainingConfig(), DATA_KEY, digest).key(stage)
        for digest in (None, "one", "other")
        for stage in DEPENDS
    ]
    assert len(set(found)) == len(found)
