"""The paper's layer: whole maps of any size, its rule of windows, and training through it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sppdet.core.errors import ConfigError
from sppdet.spp.roi_pooling import Mode, spatial_pyramid_pool
from sppdet.spp.spatial_pyramid_pooling import SpatialPyramidPooling, paper_window


@pytest.mark.parametrize("mode", ["max", "mean"])
def test_it_takes_every_size_and_agrees_with_region_pooling(mode: Mode) -> None:
    layer = SpatialPyramidPooling((4, 2, 1), mode)
    for side in range(1, 65):
        x = torch.randn(1, 3, side, 65 - side)
        whole = np.array([(0, 0, 65 - side, side)])
        out = layer(x)
        assert out.shape == (1, 3 * layer.bins)
        torch.testing.assert_close(out, spatial_pyramid_pool(x[0], whole, (4, 2, 1), mode))


def test_it_trains_at_two_sizes() -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(1, 4, 3, padding=1)
    net = torch.nn.Sequential(conv, SpatialPyramidPooling((2, 1)), torch.nn.Linear(20, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    losses = []
    for step in range(60):
        side = (13, 10)[step % 2]
        x = torch.randn(16, 1, side, side)
        label = torch.arange(16) % 2
        x[label == 1] *= 3
        loss = F.cross_entropy(net(x), label)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])


def test_papers_window_rule_on_its_own_example() -> None:
    # 13 cells: 3 by 3 windows give 5/4, 2 by 2 give 7/6, 1 by 1 gives 13/13 (paper, figure 4).
    assert [paper_window(13, n) for n in (3, 2, 1)] == [(5, 4), (7, 6), (13, 13)]
    x = torch.randn(2, 3, 13, 13)
    paper, exact = (SpatialPyramidPooling((6, 3, 2, 1), rule=r) for r in ("paper", "exact"))
    assert torch.equal(paper(x), exact(x))


@pytest.mark.parametrize("level", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("mode", ["max", "mean"])
def test_papers_window_rule_wherever_it_gives_its_bins(level: int, mode: Mode) -> None:
    layer = SpatialPyramidPooling((level,), mode, rule="paper")
    generator = torch.Generator().manual_seed(level)
    for side in range(1, 40):
        window, stride = math.ceil(side / level), math.floor(side / level)
        x = torch.randn(1, 2, side, side, generator=generator, dtype=torch.float64)
        if stride == 0 or (side - window) // stride + 1 != level:
            with pytest.raises(ConfigError, match="use the exact rule"):
                layer(x)
            continue
        expected = []
        for c, i, j in np.ndindex(2, level, level):
            rows = slice(i * stride, i * stride + window)
            cells = x[0, c, rows, j * stride : j * stride + window]
            expected.append(float(cells.max() if mode == "max" else cells.mean()))
        assert layer(x)[0].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_papers_window_rule_refuses_sides_that_it_does_not_cut_into_n_bins() -> None:
    def refused(level: int, side: int) -> bool:
        try:
            paper_window(side, level)
        except ConfigError:
            return True
        return False

    found = {n: [a for a in range(1, 24) if refused(n, a)] for n in (1, 2, 3, 4, 6)}
    assert found == {
        1: [],
        2: [1],
        3: [1, 2, 5],
        4: [1, 2, 3, 6, 7, 11],
        6: [1, 2, 3, 4, 5, 8, 9, 10, 11, 15, 16, 17, 22, 23],
    }
    with pytest.raises(ConfigError, match="side of 8 cells"):
        SpatialPyramidPooling((6,), rule="paper")(torch.zeros(1, 1, 8, 13))
