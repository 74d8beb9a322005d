"""Region pooling against one adaptive pooling call a region, and its gradient against autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import roi_pool

from sppdet.core.errors import SppdetError
from sppdet.core.parallel import WORTH_THREADS
from sppdet.core.types import IntArray
from sppdet.spp.roi_pooling import PAPER_LEVELS, Mode, pyramid_bins, spatial_pyramid_pool
from sppdet.spp.torch_ops import pool_max_by_torch, pool_mean_by_torch

PYRAMIDS = [(6, 3, 2, 1), (1, 2, 3, 6), (4, 3, 2, 1), (4, 2, 1), (5,), (3, 7), (8, 4, 2)]


def random_windows(count: int, height: int, width: int, seed: int = 0) -> IntArray:
    rng = np.random.default_rng(seed)
    sides = rng.integers(1, [width + 1, height + 1], (count, 2))
    first = rng.integers(0, np.array([width, height]) - sides + 1)
    return np.concatenate([first, first + sides], axis=1)


def oracle(feature_map: Tensor, windows: IntArray, levels: tuple[int, ...], mode: Mode) -> Tensor:
    pool = F.adaptive_max_pool2d if mode == "max" else F.adaptive_avg_pool2d
    return torch.stack(
        [
            torch.cat([pool(feature_map[:, y1:y2, x1:x2], n).flatten() for n in levels])
            for x1, y1, x2, y2 in windows.tolist()
        ]
    )


@pytest.mark.parametrize("mode", ["max", "mean"])
def test_no_windows_give_no_rows(mode: Mode) -> None:
    feature_map = torch.randn(3, 4, 5, requires_grad=True)
    pooled = spatial_pyramid_pool(feature_map, np.zeros((0, 4), np.int64), mode=mode)
    assert pooled.shape == (0, 150)
    (grad,) = torch.autograd.grad(pooled.sum(), feature_map)
    assert torch.equal(grad, torch.zeros(3, 4, 5))


@pytest.mark.parametrize("levels", PYRAMIDS)
@pytest.mark.parametrize("shape", [(5, 7, 9), (33, 38, 20), (20, 40, 3), (1, 1, 1)])
@pytest.mark.parametrize("count", [1, 150])
def test_max_equals_adaptive_pooling_of_each_region_bit_for_bit(
    levels: tuple[int, ...], shape: tuple[int, int, int], count: int
) -> None:
    feature_map = torch.randn(shape, generator=torch.Generator().manual_seed(1)) - 5
    windows = random_windows(count, *shape[1:])
    pooled = spatial_pyramid_pool(feature_map, windows, levels)
    assert torch.equal(pooled, oracle(feature_map, windows, levels, "max"))


@pytest.mark.parametrize("levels", PYRAMIDS[:4])
def test_mean_equals_adaptive_pooling_of_each_region(levels: tuple[int, ...]) -> None:
    feature_map = torch.randn(17, 12, 9, generator=torch.Generator().manual_seed(2)) + 100
    windows = random_windows(60, 12, 9)
    pooled = spatial_pyramid_pool(feature_map, windows, levels, "mean")
    torch.testing.assert_close(pooled, oracle(feature_map, windows, levels, "mean"))


@pytest.mark.parametrize("mode", ["max", "mean"])
@pytest.mark.parametrize("levels", [(6, 3, 2, 1), (4, 3, 2, 1)])
def test_gradient_equals_that_of_adaptive_pooling(mode: Mode, levels: tuple[int, ...]) -> None:
    # Few distinct values, so that maxima tie: the first in reading order gets the gradient.
    values = torch.randint(0, 4, (6, 9, 11), generator=torch.Generator().manual_seed(3))
    feature_map = values.double().requires_grad_()
    windows = random_windows(40, 9, 11)
    pooled = spatial_pyramid_pool(feature_map, windows, levels, mode)
    expected = oracle(feature_map, windows, levels, mode)
    weight = torch.randn(pooled.shape, dtype=torch.float64)
    (mine,) = torch.autograd.grad(pooled, feature_map, weight)
    (theirs,) = torch.autograd.grad(expected, feature_map, weight)
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("levels", [levels for levels in PYRAMIDS if 7 not in levels])
def test_what_a_gpu_does_equals_what_a_cpu_does(levels: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(4)
    feature_map = (torch.randn(6, 37, 50, generator=generator) - 3).requires_grad_()
    windows = random_windows(80, 37, 50)
    pyramid = spatial_pyramid_pool(feature_map, windows, levels)
    theirs = pool_max_by_torch(feature_map, windows, levels)
    assert torch.equal(pyramid, theirs)
    means = spatial_pyramid_pool(feature_map, windows, levels, "mean")
    their_means = pool_mean_by_torch(feature_map, windows, levels)
    torch.testing.assert_close(means, their_means)
    for mine, other in ((pyramid, theirs), (means, their_means)):
        weight = torch.randn(mine.shape, generator=generator)
        grads = [torch.autograd.grad(one, feature_map, weight)[0] for one in (mine, other)]
        torch.testing.assert_close(*grads)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("mode", ["max", "mean"])
def test_a_map_on_a_gpu_is_pooled_there(mode: Mode) -> None:
    feature_map = torch.randn(6, 37, 50, generator=torch.Generator().manual_seed(4))
    windows = random_windows(80, 37, 50)
    found = spatial_pyramid_pool(feature_map.cuda(), windows, mode=mode)
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), spatial_pyramid_pool(feature_map, windows, mode=mode))


def test_equals_roi_pool_at_every_level() -> None:
    feature_map = torch.randn(16, 20, 26, generator=torch.Generator().manual_seed(4))
    windows = random_windows(100, 20, 26)
    rois = torch.zeros(100, 5)
    rois[:, 1:] = torch.from_numpy(windows - [0, 0, 1, 1])
    levels = (6, 3, 2, 1)
    theirs = torch.cat([roi_pool(feature_map[None], rois, n).flatten(1) for n in levels], dim=1)
    assert torch.equal(spatial_pyramid_pool(feature_map, windows, levels), theirs)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 9), st.data())
@settings(max_examples=60, deadline=None)
def test_a_region_does_not_depend_on_the_others(
    height: int, width: int, channels: int, data: st.DataObject
) -> None:
    seed = data.draw(st.integers(0, 99))
    feature_map = torch.randn(channels, height, width)
    windows = random_windows(30, height, width, seed)
    alone = [spatial_pyramid_pool(feature_map, windows[k : k + 1]) for k in range(30)]
    assert torch.equal(spatial_pyramid_pool(feature_map, windows), torch.cat(alone))


@pytest.mark.parametrize("mode", ["max", "mean"])
def test_memory_layout_and_thread_count_change_nothing(mode: Mode) -> None:
    cells = torch.randn(13, 17, 40, generator=torch.Generator().manual_seed(5))
    last, first = cells.permute(2, 0, 1), cells.permute(2, 0, 1).contiguous()
    windows = random_windows(600, 13, 17)
    assert len(windows) * 40 * pyramid_bins(PAPER_LEVELS) > WORTH_THREADS
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            for each in (last, first):
                leaf = each.clone().requires_grad_()
                pooled = spatial_pyramid_pool(leaf, windows, mode=mode)
                (grad,) = torch.autograd.grad(pooled.square().sum(), leaf)
                results.append((pooled.detach(), grad))
    finally:
        torch.set_num_threads(threads)
    for pooled, grad in results[1:]:
        assert torch.equal(pooled, results[0][0])
        assert torch.equal(grad, results[0][1])


@pytest.mark.parametrize(
    "window", [(0, 0, 0, 1), (2, 2, 1, 3), (-1, 0, 1, 1), (0, 0, 6, 1), (0, 0, 1, 5)]
)
def test_bad_windows_are_refused(window: tuple[int, ...]) -> None:
    windows = np.array([(0, 0, 5, 4), window])
    with pytest.raises(ValueError, match="window 1"):
        spatial_pyramid_pool(torch.zeros(2, 4, 5), windows)


def test_a_map_with_nan_is_refused() -> None:
    feature_map = torch.zeros(2, 4, 5)
    feature_map[1, 2, 3] = torch.nan
    with pytest.raises(SppdetError, match="not numbers"):
        spatial_pyramid_pool(feature_map, np.array([(0, 0, 1, 1)]))


@pytest.mark.parametrize("levels", [(), (0,), (2, 2), (3, -1)])
def test_bad_pyramids_are_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="levels"):
        pyramid_bins(levels)
