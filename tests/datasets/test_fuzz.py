"""The driver that reads mutated data sets: some of its inputs, and that it sees what is wrong."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from sppdet.core.errors import DatasetError

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def driver() -> ModuleType:
    path = ROOT / "scripts" / "fuzz" / "datasets.py"
    spec = importlib.util.spec_from_file_location("fuzz_datasets", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_mutated_data_sets_give_a_data_set_or_a_typed_error(driver: ModuleType) -> None:
    outcomes, failures = driver.fuzz(66, seed=7)
    assert failures == []
    assert outcomes.total() == 66
    assert outcomes["data set"] > 5


def test_every_format_is_among_the_seeds(driver: ModuleType, tmp_path: Path) -> None:
    driver.write_seeds(tmp_path)
    for folder in tmp_path.iterdir():
        assert driver.read(folder, folder.name.split("-")[0], None, 0.1) == "data set"
        assert driver.read(folder, None, None, 0.1) == "data set"


def test_what_is_wrong_is_seen(
    driver: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("a")

    def hang(*_: object, **__: object) -> None:
        while True:
            pass

    def refuse(*_: object, **__: object) -> None:
        raise DatasetError("no hint is given")

    monkeypatch.setattr(driver, "LIMIT_SECONDS", 1)
    for reader, outcome in ((fail, "KeyError"), (hang, "takes longer"), (refuse, "no hint")):
        monkeypatch.setattr(driver, "load_dataset", reader)
        assert driver.read(tmp_path, None, None, 0.1).startswith(outcome)
