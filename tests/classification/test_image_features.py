"""Image features: vectors, windows, norms, what depends on what, and the cache on disk."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sppdet.classification.config import ImageFeatureConfig
from sppdet.classification.image_features import ImageFeatureExtractor, extract_features
from sppdet.core.errors import ConfigError
from sppdet.core.progress import NullProgress
from sppdet.core.tensor_files import save_tensors
from sppdet.core.types import FloatArray, ImageArray

SMALL: dict[str, Any] = {"scales": (64,), "windows": 0}


@cache
def extractor(seed: int = 0, **changes: Any) -> ImageFeatureExtractor:
    return ImageFeatureExtractor(ImageFeatureConfig(**{**SMALL, **changes}), seed=seed)


def photo(height: int = 70, width: int = 90, seed: int = 0) -> ImageArray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def cells(made: ImageFeatureExtractor, image: ImageArray, scale: int, layer: str) -> FloatArray:
    x, _, _ = made.backbone.preprocess(image, scale)
    with torch.inference_mode():
        found: FloatArray = made.backbone(x, (layer,))[layer][0].numpy()
    return found


def unit_root(values: FloatArray) -> FloatArray:
    root = np.sign(values) * np.sqrt(np.abs(values))
    unit: FloatArray = root / np.linalg.norm(root)
    return unit


def test_a_vector_is_the_root_of_the_pooled_map_of_norm_one() -> None:
    made = extractor()
    mean = cells(made, photo(), 64, "head").mean((1, 2))
    found = made(photo())
    assert found.dtype == np.float32
    assert found.shape == (1, made.dim) == (1, 1280)
    assert found[0] == pytest.approx(unit_root(mean), abs=1e-5)


def test_scales_are_averaged() -> None:
    image = photo()
    total = extractor(scales=(64,))(image) + extractor(scales=(96,))(image)
    found = extractor(scales=(64, 96))(image)
    assert found == pytest.approx(total / np.linalg.norm(total), abs=1e-4)


def test_a_crop_sees_the_center_only() -> None:
    made, image = extractor(crop=32), photo(64, 96)
    edges = image.copy()
    edges[:, :31] = 0
    edges[:15] = 255
    assert np.array_equal(made(image), made(edges))
    assert not np.array_equal(extractor()(image), extractor()(edges))


def test_windows_are_small_images_to_the_map() -> None:
    """A window's vector is that of its bin of the map alone."""
    made = extractor(windows=2, scales=(128,))
    image = photo(128, 256)
    whole = cells(made, image, 128, "head")
    assert whole.shape[1:] == (4, 8)
    found = made(image)
    assert found.shape == (5, 1280)
    assert np.array_equal(found[:1], extractor(scales=(128,))(image))
    places = [(slice(0, 2), slice(0, 4)), (slice(0, 2), slice(4, 8))]
    places += [(slice(2, 4), slice(0, 4)), (slice(2, 4), slice(4, 8))]
    for row, (ys, xs) in zip(found[1:], places, strict=True):
        assert row == pytest.approx(unit_root(whole[:, ys, xs].mean((1, 2))), abs=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (3, 500)])
def test_odd_images_have_finite_features(size: tuple[int, int]) -> None:
    for value in (0, 127, 255):
        found = extractor(windows=3)(np.full((*size, 3), value, np.uint8))
        assert np.isfinite(found).all()
        assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"scales": ()},
        {"scales": (0,)},
        {"crop": 65},
        {"crop": -1},
        {"windows": -1},
        {"window_weight": -0.1},
        {"window_weight": float("nan")},
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ImageFeatureConfig(**{**SMALL, **changes})


def test_any_backbone_may_be_used() -> None:
    """One without EfficientNet's head gives its last map."""
    made = extractor(backbone="zf5", pretrained=False, scales=(96,))
    mean = cells(made, photo(), 96, "conv").mean((1, 2))
    assert made(photo())[0] == pytest.approx(unit_root(mean), abs=1e-5)


def test_the_cache_gives_what_the_network_gives(tmp_path: Path) -> None:
    made = extractor(scales=(64, 96), windows=2)
    paths = [tmp_path / f"{seed}.png" for seed in range(2)]
    for seed, path in enumerate(paths):
        Image.fromarray(photo(seed=seed)).save(path)
    cache_dir = tmp_path / "cache"
    for _ in range(2):
        rows, errors = extract_features(paths, made, cache_dir, NullProgress())
        assert not errors
        assert np.array_equal(rows, [made(photo(seed=seed)) for seed in range(2)])
    files = list(cache_dir.rglob("*.safetensors"))
    assert len(files) == 2
    # A file is what is read, and one that is damaged is computed anew.
    save_tensors(files[0], {"features": np.zeros((5, 1280), np.float32)})
    files[1].write_bytes(files[1].read_bytes()[:-9])
    again, _ = extract_features(paths, made, cache_dir, NullProgress())
    changed = [not row.any() for row in again]
    assert sorted(changed) == [False, True]
    assert np.array_equal(again[changed.index(False)], rows[changed.index(False)])


def test_features_of_other_settings_and_weights_are_kept_apart() -> None:
    zf5 = {"backbone": "zf5", "pretrained": False}
    digests = {
        made.digest()
        for made in (
            extractor(),
            extractor(scales=(65,)),
            extractor(crop=64),
            extractor(windows=2),
            extractor(**zf5),
            extractor(seed=1, **zf5),
        )
    }
    assert len(digests) == 6
    assert extractor(window_weight=0.25).digest() in digests
