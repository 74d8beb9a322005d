"""Conv maps and stage results on disk: what is found again, and what must not be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sppdet.features import FeatureConfig, FeatureExtractor
from sppdet.mapstore import MapStore
from sppdet.training.store import StageStore, as_tensors
from sppdet.types import ImageArray

KEY = "0123456789abcdef" * 4
DIGEST = "fe" * 32


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor(FeatureConfig(scales=(64, 96)))


@pytest.fixture(scope="module")
def image() -> ImageArray:
    return np.random.default_rng(0).integers(0, 256, (70, 111, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def maps_file(
    extractor: FeatureExtractor, image: ImageArray, tmp_path_factory: pytest.TempPathFactory
) -> bytes:
    """The bytes of a whole file of maps."""
    store = MapStore(tmp_path_factory.mktemp("maps"), extractor)
    store.compute(DIGEST, image)
    return store.path(DIGEST).read_bytes()


def test_an_empty_map_store_has_nothing(extractor: FeatureExtractor, tmp_path: Path) -> None:
    store = MapStore(tmp_path / "none", extractor)
    assert not store.has(DIGEST)
    assert not (tmp_path / "none").exists()


def test_maps_come_back_as_they_were_in_float16(
    extractor: FeatureExtractor, image: ImageArray, tmp_path: Path
) -> None:
    store = MapStore(tmp_path, extractor)
    store.compute(DIGEST, image)
    assert store.has(DIGEST)
    assert [path.name for path in tmp_path.iterdir()] == [store.path(DIGEST).name]
    found, made = store.load(DIGEST), extractor(image).to(torch.float16)
    assert (found.width, found.height) == (111, 70)
    assert len(found.scaled) == 2
    for one, other in zip(found.scaled, made.scaled, strict=True):
        assert one.map.dtype == torch.float16
        assert torch.equal(one.map, other.map)
        assert (one.factor_x, one.factor_y) == (other.factor_x, other.factor_y)


def test_the_same_maps_are_the_same_bytes(
    extractor: FeatureExtractor, image: ImageArray, maps_file: bytes, tmp_path: Path
) -> None:
    store = MapStore(tmp_path, extractor)
    store.compute(DIGEST, image)
    assert store.path(DIGEST).read_bytes() == maps_file


@pytest.mark.parametrize(
    "other",
    [
        FeatureConfig(scales=(96, 64)),
        FeatureConfig(scales=(64, 96), taps=("bottleneck",)),
        FeatureConfig(scales=(64, 96), max_elongation=2.0),
        FeatureConfig(scales=(64, 96), pretrained=False),
    ],
    ids=["scales", "taps", "max_elongation", "weights"],
)
def test_maps_of_another_image_config_or_network_are_other_files(
    extractor: FeatureExtractor, other: FeatureConfig, tmp_path: Path
) -> None:
    store = MapStore(tmp_path, extractor)
    assert store.path(DIGEST) == MapStore(tmp_path, FeatureExtractor(extractor.config)).path(DIGEST)
    assert store.path(DIGEST) != store.path("fd" * 32)
    assert store.path(DIGEST) != MapStore(tmp_path, FeatureExtractor(other)).path(DIGEST)


def test_random_weights_of_another_seed_are_another_network(tmp_path: Path) -> None:
    config = FeatureConfig(pretrained=False)
    paths = {MapStore(tmp_path, FeatureExtractor(config, seed=s)).path(DIGEST) for s in (0, 1)}
    assert len(paths) == 2


def test_a_truncated_file_of_maps_is_noticed(
    extractor: FeatureExtractor, maps_file: bytes, tmp_path: Path
) -> None:
    store = MapStore(tmp_path, extractor)
    lengths = [*range(12), *np.linspace(12, len(maps_file) - 1, 60).astype(int).tolist()]
    for length in lengths:
        store.path(DIGEST).write_bytes(maps_file[:length])
        assert not store.has(DIGEST), length
    store.path(DIGEST).write_bytes(maps_file)
    assert store.has(DIGEST)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"\0",
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data.replace(b"F16", b"F32"),
        lambda data: data[::-1],
    ],
    ids=["longer", "endless header", "other type", "reversed"],
)
def test_a_file_that_is_not_one_of_maps_is_noticed(
    change: Callable[[bytes], bytes],
    extractor: FeatureExtractor,
    maps_file: bytes,
    tmp_path: Path,
) -> None:
    store = MapStore(tmp_path, extractor)
    store.path(DIGEST).write_bytes(change(maps_file))
    assert not store.has(DIGEST)


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


def test_an_empty_stage_store_has_nothing(tmp_path: Path) -> None:
    store = StageStore(tmp_path / "none")
    assert store.load("svm", KEY) is None
    assert store.load("svm", KEY, partial=True) is None


def test_stage_results_come_back_with_types_and_shapes(tmp_path: Path) -> None:
    store = StageStore(tmp_path / "run")
    store.save("svm", KEY, _tensors())
    assert _same(store.load("svm", KEY), _tensors())


def test_stage_results_are_found_under_their_own_name_alone(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    store.save("svm", KEY, _tensors())
    assert store.load("finetune", KEY) is None
    assert store.load("svm", KEY[::-1]) is None
    assert store.load("svm", KEY, partial=True) is None


def test_a_result_takes_the_place_of_its_own_partial_state(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    store.save("svm", KEY, {"step": torch.tensor(1)}, partial=True)
    store.save("finetune", KEY, {"step": torch.tensor(2)}, partial=True)
    assert store.load("svm", KEY) is None
    store.save("svm", KEY, _tensors())
    assert store.load("svm", KEY, partial=True) is None
    assert _same(store.load("finetune", KEY, partial=True), {"step": torch.tensor(2)})


def test_views_and_parameters_are_saved_by_value(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    tensors = {"turned": base.T.clone().T, "learned": torch.nn.Parameter(base[:, 1:])}
    store.save("svm", KEY, tensors)
    assert _same(store.load("svm", KEY), {k: v.detach() for k, v in tensors.items()})


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_truncated_stage_file_is_noticed(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = StageStore(tmp_path_factory.mktemp("run"))
    store.save("svm", KEY, _tensors())
    (path,) = store.folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert store.load("svm", KEY) is None


def test_as_tensors_owns_its_memory() -> None:
    array = np.zeros(3)
    tensors = as_tensors({"a": array, "flag": np.array([True])})
    array[:] = 1
    assert tensors["a"].tolist() == [0, 0, 0]
    assert tensors["flag"].dtype == torch.bool
