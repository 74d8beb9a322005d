"""Views: where they lie, which cells they have, and what is averaged."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.classification.config import NetworkConfig
from sppdet.classification.multi_view import (
    PAPER_SCALES,
    VIEW_SETS,
    ViewPlan,
    ViewSet,
    map_logits,
    plan_multi_view,
    predict,
    scale_to_side,
    view_boxes,
    view_logits,
    view_windows,
)
from sppdet.classification.network import ClassificationNetwork
from sppdet.classification.transforms import MAX_ASPECT_RATIO, limit_aspect_ratio, to_input
from sppdet.core.errors import ConfigError, SppdetError
from sppdet.core.images import read_image
from sppdet.core.types import ImageArray
from sppdet.datasets import load_dataset

CLASSES = ("cat", "dog", "person")
COUNTS = {"center": 1, "ten-crop": 10, "ten-map": 10, "full": 1, "multi": 96, "multi-full": 98}


@cache
def network(variant: str = "spp", side: int = 96, backbone: str = "zf5") -> ClassificationNetwork:
    config = NetworkConfig(
        backbone=backbone,
        width=0.125,
        variant="plain" if variant == "plain" else "spp",
        input_side=side,
        fc6=16,
        fc7=16,
        levels=(3, 2, 1),
    )
    # It may be asked for first inside a test's inference mode.
    with torch.inference_mode(False):
        made = ClassificationNetwork(config, CLASSES).eval().requires_grad_(False)
    # The initial weights of the last layer are so small that all views would agree.
    torch.nn.init.normal_(made.classify.weight, generator=torch.Generator().manual_seed(1))
    return made


def photo(height: int, width: int, seed: int = 0) -> ImageArray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width])


@pytest.mark.parametrize("views", VIEW_SETS)
@pytest.mark.parametrize("size", [(120, 160), (160, 120), (100, 100)])
def test_there_are_as_many_views_as_the_paper_has(views: ViewSet, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        logits = view_logits(network(), photo(*size), views)
    assert logits.shape == (COUNTS[views], len(CLASSES))


@pytest.mark.parametrize("views", VIEW_SETS)
def test_probabilities_are_the_mean_of_the_views_softmax(views: ViewSet) -> None:
    image = photo(120, 160)
    found = predict(network(), image, views)
    assert found.dtype == np.float32
    assert found.sum() == pytest.approx(1, abs=1e-5)
    with torch.inference_mode():
        rows = view_logits(network(), image, views).double().numpy()
    each = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
    assert found == pytest.approx(each.mean(axis=0), abs=1e-5)


def test_scales_are_the_papers_at_224_and_in_proportion_elsewhere() -> None:
    assert [scale_to_side(scale, 224) for scale in PAPER_SCALES] == list(PAPER_SCALES)
    assert [scale_to_side(scale, 112) for scale in PAPER_SCALES] == [112, 128, 150, 180, 224, 280]
    assert [scale_to_side(224, side) for side in range(1, 300)] == list(range(1, 300))
    plan = plan_multi_view(network(side=112), full=True)
    assert [views.scale for views in plan if views.full] == [128]


@settings(max_examples=200, deadline=None)
@given(
    width=st.integers(1, 900),
    height=st.integers(1, 900),
    side=st.integers(1, 300),
    corners=st.booleans(),
)
def test_views_lie_in_the_image_symmetrically(
    width: int, height: int, side: int, corners: bool
) -> None:
    if side > min(width, height):
        with pytest.raises(ValueError, match="larger"):
            view_boxes(width, height, side, corners=corners)
        return
    boxes = view_boxes(width, height, side, corners=corners)
    touches_short = side == min(width, height)
    assert len(boxes) == (5 if corners else 3 if touches_short else 9)
    assert (boxes[:, 2:] - boxes[:, :2] == side).all()
    assert boxes.min() >= 0
    assert (boxes[:, 2:] <= [width, height]).all()
    # Turned half around, they are the same views, up to the rounding of the middle.
    turned = np.array([width, height, width, height]) - boxes[:, [2, 3, 0, 1]]
    gaps = np.abs(boxes[:, None] - turned[None]).max(axis=2)
    assert gaps.min(axis=1).max() <= 1


def test_views_of_a_wide_image() -> None:
    assert view_boxes(12, 4, 4)[:, 0].tolist() == [0, 4, 8]
    corners = view_boxes(12, 8, 4, corners=True)
    assert corners[:, :2].tolist() == [[0, 0], [8, 0], [0, 4], [8, 4], [4, 2]]
    grid = view_boxes(12, 8, 4)[:, :2].tolist()
    assert grid == [[x, y] for y in (0, 2, 4) for x in (0, 4, 8)]


@settings(max_examples=50, deadline=None)
@given(
    width=st.integers(96, 400),
    height=st.integers(96, 400),
)
def test_windows_stay_on_the_map(width: int, height: int) -> None:
    made = network()
    rows, columns = made.conv_map(torch.zeros(1, 3, height, width)).shape[2:]
    boxes = view_boxes(width, height, 96)
    windows = view_windows(boxes, made, rows, columns)
    assert windows.min() >= 0
    assert (windows[:, 2:] <= [columns, rows]).all()
    assert (windows[:, 2:] - windows[:, :2] == made.map_side).all()


@pytest.mark.parametrize("backbone", ["zf5", "convnet5", "overfeat5"])
def test_a_view_has_the_cells_that_its_crop_has(backbone: str) -> None:
    """The invariant of `view_windows`: inside, out of the padding's reach, values are equal."""
    made = network(side=224, backbone=backbone)
    stride = made.geometry.stride
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, 224 + 4 * stride, 224 + 6 * stride, generator=generator)
    left, top = 4 * stride, 3 * stride
    box = np.array([[left, top, left + 224, top + 224]], np.float32)
    with torch.inference_mode():
        whole = made.conv_map(x)[0]
        rows, columns = whole.shape[1:]
        ((x1, y1, x2, y2),) = view_windows(box, made, rows, columns).tolist()
        crop = made.conv_map(x[:, :, top : top + 224, left : left + 224])[0]
    window = whole[:, y1:y2, x1:x2]
    assert window.shape == crop.shape
    inside = (slice(None), slice(5, -5), slice(5, -5))
    assert torch.allclose(window[inside], crop[inside], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(whole[:, y1:y2, x1 - 1 : x2 - 1][inside], crop[inside], atol=1e-2)


def test_an_image_of_the_views_size_gives_the_same_by_all_means() -> None:
    """With one place for the view and no rest around it, maps and crops see the same."""
    made, image = network(), photo(96, 96)
    whole = to_input(made.backbone, image, 96)
    with torch.inference_mode():
        alone = made(whole)
        views = map_logits(made, image, [ViewPlan(96, "corners", full=True)])
        mirror = made(whole.flip(3))
    assert views.shape == (12, 3)
    for row in (*views[:5], views[10]):
        assert torch.allclose(row, alone[0], atol=1e-4)
    for row in (*views[5:10], views[11]):
        assert torch.allclose(row, mirror[0], atol=1e-4)
    assert not torch.allclose(alone, mirror, atol=1e-2)


def test_a_mirror_image_has_the_same_mirrored_views() -> None:
    image = photo(120, 150)
    names: tuple[ViewSet, ...] = ("ten-crop", "ten-map", "multi-full")
    for views in names:
        first = predict(network(), image, views)
        second = predict(network(), np.ascontiguousarray(image[:, ::-1]), views)
        assert first == pytest.approx(second, abs=0.01)


def test_a_plain_network_takes_views_but_no_whole_image() -> None:
    made, image = network("plain"), photo(120, 160)
    for views in VIEW_SETS:
        if "full" not in views:
            assert np.isfinite(predict(made, image, views)).all()
            continue
        with pytest.raises(SppdetError, match="plain network"):
            predict(made, image, views)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (3, 400), (2000, 2)])
def test_odd_images_have_probabilities(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 200, np.uint8)
    for views in VIEW_SETS:
        assert predict(network(), image, views).sum() == pytest.approx(1, abs=1e-5)


def test_long_images_are_shrunk_and_others_left_alone() -> None:
    assert limit_aspect_ratio(photo(10, 400)).shape == (10, 10 * MAX_ASPECT_RATIO, 3)
    assert limit_aspect_ratio(photo(4000, 10)).shape == (10 * MAX_ASPECT_RATIO, 10, 3)
    image = photo(10, 40)
    assert limit_aspect_ratio(image) is image


def test_unknown_views_are_refused() -> None:
    with pytest.raises(ConfigError, match="use one of center"):
        predict(network(), photo(96, 96), cast(ViewSet, "some"))


def test_real_images_by_maps_and_by_crops(voc_root: Path) -> None:
    dataset = load_dataset(voc_root, "val")
    made = network()
    gaps = []
    for sample in dataset.samples[:10]:
        image = read_image(sample.path)
        gaps.append(np.abs(predict(made, image, "ten-map") - predict(made, image, "ten-crop")))
    assert np.mean(gaps) < 0.1
