"""Image features: blocks, norms, what depends on what, and the store on disk."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sppdet.classification.features import FeatureStore, ImageFeatures, RepresentationConfig
from sppdet.errors import ConfigError
from sppdet.files import sha256
from sppdet.types import FloatArray, ImageArray

SMALL: dict[str, Any] = {"scales": (64,), "taps": ("stage5",), "power": 1.0, "windows": 0}


@cache
def features(**changes: Any) -> ImageFeatures:
    return ImageFeatures(RepresentationConfig(**{**SMALL, **changes}))


def photo(height: int = 70, width: int = 90, seed: int = 0) -> ImageArray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def norm(values: FloatArray) -> float:
    return float(np.linalg.norm(values))


def test_a_vector_is_the_pooled_map_of_norm_one() -> None:
    made = features()
    x, _, _ = made.backbone.preprocess(photo(), 64)
    with torch.inference_mode():
        cells = made.backbone(x, ("stage5",))["stage5"][0]
    mean = cells.mean((1, 2)).numpy()
    found = made(photo())
    assert found.dtype == np.float32
    assert found.shape == (1, made.dim) == (1, 112)
    assert found[0] == pytest.approx(mean / norm(mean), abs=1e-5)


def test_blocks_are_joined_in_order_and_weigh_the_same() -> None:
    made = features(levels=(2, 1), modes=("max", "mean"), taps=("stage5", "bottleneck"))
    assert made.config.blocks[:3] == ("stage5/max/2", "stage5/max/1", "stage5/mean/2")
    assert made.dim == (112 + 320) * 10
    found, at = made(photo())[0], 0
    for name in made.config.blocks:
        tap, mode, level = name.split("/")
        size = made.backbone.channels[tap] * int(level) ** 2
        part = found[at : at + size]
        assert norm(part) == pytest.approx(1 / np.sqrt(8), abs=1e-5)
        alone = features(taps=(tap,), modes=(mode,), levels=(int(level),))(photo())[0]
        assert part * np.sqrt(8) == pytest.approx(alone, abs=1e-5)
        at += size
    assert at == made.dim


def test_scales_and_the_mirror_image_are_averaged() -> None:
    made = features(scales=(64, 96), mirror=True)
    assert made.passes == ((64, False), (64, True), (96, False), (96, True))
    image = photo()
    mirrored = np.ascontiguousarray(image[:, ::-1])
    parts = [features(scales=(s,))(i) for s in (64, 96) for i in (image, mirrored)]
    total = np.sum(parts, axis=0)
    assert made(image) == pytest.approx(total / norm(total), abs=1e-4)
    assert made(mirrored) == pytest.approx(made(image), abs=1e-4)


def test_a_crop_sees_the_middle_only() -> None:
    made, image = features(crop=32), photo(64, 96)
    edges = image.copy()
    edges[:, :31] = 0
    edges[:15] = 255
    assert np.array_equal(made(image), made(edges))
    assert not np.array_equal(features()(image), features()(edges))


def test_a_power_flattens() -> None:
    plain, root = features()(photo()), features(power=0.5)(photo())
    expected = np.sign(plain) * np.sqrt(np.abs(plain))
    assert root == pytest.approx(expected / norm(expected), abs=1e-5)


def test_windows_are_small_images_to_the_map() -> None:
    """A window's vector is that of its bin of the map alone; a mirror image's windows swap."""
    made = features(windows=2, modes=("mean", "max"))
    image = photo(64, 128)
    x, _, _ = made.backbone.preprocess(image, 64)
    with torch.inference_mode():
        cells = made.backbone(x, ("stage5",))["stage5"][0].numpy()
    assert cells.shape[1:] == (4, 8)
    found = made(image)
    assert found.shape == (5, 224)
    assert np.array_equal(found[:1], features(modes=("mean", "max"))(image))
    places = [(slice(0, 2), slice(0, 4)), (slice(0, 2), slice(4, 8))]
    places += [(slice(2, 4), slice(0, 4)), (slice(2, 4), slice(4, 8))]
    for row, (ys, xs) in zip(found[1:], places, strict=True):
        part = cells[:, ys, xs].reshape(112, -1)
        mean, top = part.mean(axis=1), part.max(axis=1)
        expected = np.concatenate([mean / norm(mean), top / norm(top)]) / np.sqrt(2)
        assert row == pytest.approx(expected, abs=1e-4)
    both = features(windows=2, mirror=True)
    swapped = both(np.ascontiguousarray(image[:, ::-1]))[[0, 2, 1, 4, 3]]
    assert both(image) == pytest.approx(swapped, abs=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (3, 500)])
def test_odd_images_have_finite_features(size: tuple[int, int]) -> None:
    for value in (0, 127, 255):
        found = features(levels=(1, 3), modes=("max", "mean"))(np.full((*size, 3), value, np.uint8))
        assert np.isfinite(found).all()
        assert norm(found) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"taps": ()},
        {"levels": ()},
        {"modes": ()},
        {"scales": ()},
        {"levels": (0,)},
        {"scales": (0,)},
        {"crop": 65},
        {"crop": -1},
        {"windows": -1},
        {"window_weight": -0.1},
        {"windows": 2, "levels": (2, 1)},
        {"power": 0.0},
        {"power": float("nan")},
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        RepresentationConfig(**{**SMALL, **changes})


def test_an_unknown_map_is_refused() -> None:
    with pytest.raises(ConfigError, match="no map 'conv9'"):
        ImageFeatures(RepresentationConfig(taps=("conv9",)))


def test_any_backbone_may_be_used() -> None:
    config = RepresentationConfig(
        backbone="zf5", pretrained=False, taps=("conv",), levels=(3, 1), scales=(96,), windows=0
    )
    made = ImageFeatures(config)
    assert made(photo()).shape == (1, 2560)


def test_the_store_gives_what_the_network_gives(tmp_path: Path) -> None:
    made = features(scales=(64, 96), mirror=True, levels=(1, 2))
    store = FeatureStore(tmp_path, made)
    image, digest = photo(), sha256("image")
    assert store.load(digest) is None
    computed = store.compute(digest, image)
    assert np.array_equal(computed, made(image))
    kept = store.load(digest)
    assert kept is not None
    assert np.array_equal(kept, computed)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 4
    assert store.load(sha256("another")) is None


def test_the_store_shares_blocks_between_settings(tmp_path: Path) -> None:
    digest, image = sha256("image"), photo()
    FeatureStore(tmp_path, features(levels=(1, 2), modes=("mean", "max"))).compute(digest, image)
    part = features(levels=(2,), modes=("max",), power=0.5)
    found = FeatureStore(tmp_path, part).load(digest)
    assert found is not None
    assert np.array_equal(found, part(image))
    # What is missing is added to the file, and what was there stays.
    FeatureStore(tmp_path, features(taps=("bottleneck",))).compute(digest, image)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
    again = FeatureStore(tmp_path, part).load(digest)
    assert again is not None
    assert np.array_equal(again, found)


def test_other_sizes_crops_and_weights_are_kept_apart(tmp_path: Path) -> None:
    digest = sha256("image")
    zf5 = {"backbone": "zf5", "pretrained": False, "taps": ("conv",)}
    paths = {
        FeatureStore(tmp_path, made).path(digest, *made.passes[0])
        for made in (
            features(),
            features(scales=(65,)),
            features(crop=64),
            features(dilated=True),
            ImageFeatures(RepresentationConfig(**{**SMALL, **zf5})),
            ImageFeatures(RepresentationConfig(**{**SMALL, **zf5}), seed=1),
        )
    }
    assert len(paths) == 6


@pytest.mark.parametrize("damage", ["truncated", "empty", "other"])
def test_a_damaged_file_is_computed_anew(tmp_path: Path, damage: str) -> None:
    made, digest = features(), sha256("image")
    store = FeatureStore(tmp_path, made)
    store.compute(digest, photo())
    path = store.path(digest, *made.passes[0])
    data = path.read_bytes()
    path.write_bytes({"truncated": data[:-9], "empty": b"", "other": b"{}" * 99}[damage])
    assert store.load(digest) is None
    store.compute(digest, photo())
    assert path.read_bytes() == data
