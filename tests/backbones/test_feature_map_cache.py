"""Feature maps on disk: what is found again, and what must not be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sppdet.backbones.feature_maps import FeatureConfig, FeatureExtractor, FeatureMapCache
from sppdet.core.errors import SppdetError
from sppdet.core.types import ImageArray

DIGEST = "fe" * 32


@pytest.fixture(scope="module")
def two_scales() -> FeatureExtractor:
    return FeatureExtractor(FeatureConfig(scales=(64, 96)))


@pytest.fixture(scope="module")
def photo() -> ImageArray:
    return np.random.default_rng(0).integers(0, 256, (70, 111, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def maps_file(
    two_scales: FeatureExtractor, photo: ImageArray, tmp_path_factory: pytest.TempPathFactory
) -> bytes:
    """The bytes of a whole file of maps."""
    cache = FeatureMapCache(tmp_path_factory.mktemp("maps"), two_scales)
    cache.save(DIGEST, two_scales(photo))
    return cache.path(DIGEST).read_bytes()


def test_an_empty_cache_has_nothing(two_scales: FeatureExtractor, tmp_path: Path) -> None:
    cache = FeatureMapCache(tmp_path / "none", two_scales)
    assert not cache.has(DIGEST)
    assert not (tmp_path / "none").exists()


def test_maps_come_back_as_they_were_in_float16(
    two_scales: FeatureExtractor, photo: ImageArray, tmp_path: Path
) -> None:
    cache = FeatureMapCache(tmp_path, two_scales)
    cache.save(DIGEST, two_scales(photo))
    assert cache.has(DIGEST)
    assert list(tmp_path.rglob("*.*")) == [cache.path(DIGEST)]
    found, made = cache.load(DIGEST), two_scales(photo).to(torch.float16)
    assert (found.width, found.height) == (111, 70)
    assert len(found.maps) == 2
    for one, other in zip(found.maps, made.maps, strict=True):
        assert one.values.dtype == torch.float16
        assert torch.equal(one.values, other.values)
        assert (one.scale_x, one.scale_y) == (other.scale_x, other.scale_y)
        assert one.short_side == other.short_side


def test_the_same_maps_are_the_same_bytes(
    two_scales: FeatureExtractor, photo: ImageArray, maps_file: bytes, tmp_path: Path
) -> None:
    cache = FeatureMapCache(tmp_path, two_scales)
    cache.save(DIGEST, two_scales(photo))
    assert cache.path(DIGEST).read_bytes() == maps_file


@pytest.mark.parametrize(
    "other",
    [
        FeatureConfig(scales=(96, 64)),
        FeatureConfig(scales=(64, 96), layers=("bottleneck",)),
        FeatureConfig(scales=(64, 96), max_aspect_ratio=2.0),
        FeatureConfig(scales=(64, 96), pretrained=False),
    ],
    ids=["scales", "layers", "aspect ratio", "weights"],
)
def test_maps_of_another_image_config_or_network_are_other_files(
    two_scales: FeatureExtractor, other: FeatureConfig, tmp_path: Path
) -> None:
    cache = FeatureMapCache(tmp_path, two_scales)
    assert cache.path(DIGEST) == FeatureMapCache(
        tmp_path, FeatureExtractor(two_scales.config)
    ).path(DIGEST)
    assert cache.path(DIGEST) != cache.path("fd" * 32)
    assert cache.path(DIGEST) != FeatureMapCache(tmp_path, FeatureExtractor(other)).path(DIGEST)


def test_maps_of_other_scales_or_of_the_flipped_image_are_other_files(
    two_scales: FeatureExtractor, tmp_path: Path
) -> None:
    usual = FeatureMapCache(tmp_path, two_scales).path(DIGEST)
    assert FeatureMapCache(tmp_path, two_scales, (64, 96)).path(DIGEST) == usual
    others = [
        FeatureMapCache(tmp_path, two_scales, (64,)),
        FeatureMapCache(tmp_path, two_scales, flipped=True),
        FeatureMapCache(tmp_path, two_scales, (64,), flipped=True),
    ]
    assert len({usual, *(other.path(DIGEST) for other in others)}) == 4


def test_random_weights_of_another_seed_are_another_network(tmp_path: Path) -> None:
    config = FeatureConfig(pretrained=False)
    paths = {
        FeatureMapCache(tmp_path, FeatureExtractor(config, seed=s)).path(DIGEST) for s in (0, 1)
    }
    assert len(paths) == 2


def test_a_truncated_file_of_maps_is_noticed(
    two_scales: FeatureExtractor, maps_file: bytes, tmp_path: Path
) -> None:
    cache = FeatureMapCache(tmp_path, two_scales)
    cache.path(DIGEST).parent.mkdir()
    lengths = [*range(12), *np.linspace(12, len(maps_file) - 1, 60).astype(int).tolist()]
    for length in lengths:
        cache.path(DIGEST).write_bytes(maps_file[:length])
        assert not cache.has(DIGEST), length
    cache.path(DIGEST).write_bytes(maps_file)
    assert cache.has(DIGEST)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"\0",
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data.replace(b"F16", b"F32"),
        lambda data: data[::-1],
        lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
    ],
    ids=["longer", "endless header", "other type", "reversed", "changed bit"],
)
def test_a_file_that_is_not_one_of_maps_is_noticed(
    change: Callable[[bytes], bytes],
    two_scales: FeatureExtractor,
    maps_file: bytes,
    tmp_path: Path,
) -> None:
    cache = FeatureMapCache(tmp_path, two_scales)
    cache.path(DIGEST).parent.mkdir()
    cache.path(DIGEST).write_bytes(change(maps_file))
    assert not cache.has(DIGEST)


def test_maps_that_are_gone_name_their_file(two_scales: FeatureExtractor, tmp_path: Path) -> None:
    cache = FeatureMapCache(tmp_path, two_scales)
    with pytest.raises(SppdetError, match="missing or damaged; start again") as caught:
        cache.load(DIGEST)
    assert caught.value.path == str(cache.path(DIGEST))
