"""The frozen head's layers in 8-bit integers: nearly what they are in floats."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sppdet.compression import Responses
from sppdet.head import FEW_BOXES, RegionHead
from sppdet.head_config import HeadConfig
from tests.region_cases import CUT, PLAIN, PRETRAINED, extractor, random_boxes, random_maps

WIDTH, HEIGHT = 150, 100
WIDE = HeadConfig((3, 1), 16, (1,), (2.0,), fc6=48, fc7=32, upper=False)
FORMS = {
    "pyramid": (PLAIN, replace(WIDE, semantic_levels=(), context=())),
    "averages": (PRETRAINED, replace(WIDE, levels=(), reduce=0)),
    "both": (PRETRAINED, WIDE),
    "upper": (CUT, replace(WIDE, upper=True)),
}


def frozen(form: str, rank: int = 0) -> RegionHead:
    features, config = FORMS[form]
    head = RegionHead(config, extractor(features), 3).eval()
    if rank:
        responses = Responses(config.fc6)
        with torch.no_grad():
            maps = random_maps(features, WIDTH, HEIGHT)
            responses.add(head.fc6_response(maps, random_boxes(200, WIDTH, HEIGHT)))
        head.squeeze_fc6(rank, responses)
    return head.freeze()


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("rank", [0, 24])
@pytest.mark.parametrize("form", FORMS)
def test_rounded_layers_give_nearly_the_same(form: str, rank: int) -> None:
    head = frozen(form, rank)
    floats = head.reading(replace(head.features, eight_bits=False))
    assert head.features.eight_bits
    maps = floats.join(random_maps(head.features, WIDTH, HEIGHT))
    boxes = random_boxes(300, WIDTH, HEIGHT)
    exact, rounded = floats.pool_fc6(maps, boxes), head.pool_fc6(maps, boxes)
    if form != "averages" or rank:
        assert not torch.equal(rounded, exact)
    assert difference(rounded, exact) < 0.05
    assert difference(head.run_fc6(head.pool(maps, boxes)), exact) < 0.05
    assert 0 < difference(head.run_fc7(exact), floats.run_fc7(exact)) < 0.05


@pytest.mark.parametrize("form", FORMS)
def test_other_boxes_change_nothing(form: str) -> None:
    head = frozen(form)
    maps = head.join(random_maps(head.features, WIDTH, HEIGHT))
    boxes = random_boxes(FEW_BOXES, WIDTH, HEIGHT)
    few = head.pool_fc6(maps, boxes[:20])
    assert few.any()
    assert torch.equal(few, head.pool_fc6(maps, boxes)[:20])


def test_layers_that_may_still_be_trained_are_not_rounded() -> None:
    features, config = FORMS["both"]
    head = RegionHead(config, extractor(features), 3).eval()
    rows = torch.rand(5, config.fc6)
    before = head.run_fc7(rows)
    assert torch.equal(before, torch.relu(head.fc7(rows)))
    head.freeze()
    assert not torch.equal(head.run_fc7(rows), before)
