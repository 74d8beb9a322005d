"""The paper's networks: the release's constants, map sizes, and cells over what excites them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sppdet.backbones import load_backbone
from sppdet.backbones.paper_networks import PAPER_NETWORKS, WithinChannelLRN, paper_network
from sppdet.backbones.receptive_field import PIXELS, ConvWindow, ReceptiveField
from sppdet.backbones.sequential import map_side
from sppdet.spp.projection import project_boxes


def test_release_constants_come_out_of_the_layers() -> None:
    # The release counts pixels from 1: its 21 and 15 are half a pixel more than ours.
    windows = [ConvWindow(7, 2, 1), ConvWindow(3, 2), ConvWindow(5, 2), ConvWindow(3, 2)]
    assert PIXELS.after(windows).offset + 0.5 == 21
    zf5 = load_backbone("zf5", pretrained=False).geometry
    assert (zf5.stride, zf5.offset + 0.5) == (16, 21)
    for name in ("overfeat5", "overfeat7"):
        overfeat = load_backbone(name, pretrained=False).geometry
        assert (overfeat.stride, overfeat.offset + 0.5) == (12, 15)


def test_paper_networks_have_the_papers_map_sizes() -> None:
    sides = {
        name: [map_side(paper_network(name).layers, side) for side in (224, 180)]
        for name in PAPER_NETWORKS
    }
    assert sides["zf5"] == sides["convnet5"] == [13, 10]
    assert sides["overfeat5"] == sides["overfeat7"] == [18, 14]
    zf5 = paper_network("zf5").layers
    shorter = {180: 10, 480: 29, 576: 35, 688: 42, 864: 53, 874: 53, 1200: 74}
    assert {side: map_side(zf5, side) for side in shorter} == shorter


def test_within_channel_lrn_against_the_formula() -> None:
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64) * 100
    out = WithinChannelLRN()(x)
    for c, i, j in np.ndindex(2, 5, 6):
        around = x[0, c, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2]
        expected = x[0, c, i, j] * (1 + 5e-5 / 9 * around.square().sum()) ** -0.75
        assert out[0, c, i, j] == pytest.approx(expected.item(), rel=1e-12)


def test_the_box_of_a_bright_patch_projects_onto_the_cells_it_excites() -> None:
    net = load_backbone("zf5", pretrained=False)
    image = np.full((300, 400, 3), 128, np.uint8)
    image[150:200, 220:300] = 255
    x, factor_x, factor_y = net.preprocess(image, 600)
    cells = net(x)["conv"][0].sum(0)
    box = np.array([[220, 150, 300, 200]], np.float32)
    window = project_boxes(box, factor_x, factor_y, ReceptiveField(16, 20.5), *cells.shape)
    x1, y1, x2, y2 = window[0].tolist()
    rows, columns = torch.meshgrid(*(torch.arange(n) + 0.5 for n in cells.shape), indexing="ij")
    excited = (cells - cells.median()).abs()
    center = ((rows * excited).sum() / excited.sum(), (columns * excited).sum() / excited.sum())
    assert float(center[0]) == pytest.approx((y1 + y2) / 2, abs=0.6)
    assert float(center[1]) == pytest.approx((x1 + x2) / 2, abs=0.6)
