"""The frozen head's layers in 8-bit integers: nearly what they are in floats."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sppdet.heads.config import HeadConfig
from sppdet.heads.head import RegionHead
from tests.helpers.region_cases import CUT, PLAIN, PRETRAINED, extractor, random_boxes, random_maps

WIDTH, HEIGHT = 150, 100
WIDE = HeadConfig(
    pyramid_levels=(3, 1),
    pyramid_channels=16,
    context_scales=(1.0, 2.0),
    fc6=48,
    fc7=32,
    train_top_stages=False,
)
FORMS = {
    "pyramid": (PLAIN, WIDE.replace(context_scales=())),
    "averages": (PRETRAINED, WIDE.replace(pyramid_levels=(), pyramid_channels=0)),
    "both": (PRETRAINED, WIDE),
    "top": (CUT, WIDE.replace(train_top_stages=True)),
}


def trained(form: str, rank: int = 0) -> RegionHead:
    features, config = FORMS[form]
    head = RegionHead(config, extractor(features), 3).eval()
    if rank:
        # Along the main directions of the responses, as training does it.
        prepared = head.prepare(random_maps(features, WIDTH, HEIGHT))
        with torch.no_grad():
            responses = head.fc6_response(prepared, random_boxes(200, WIDTH, HEIGHT))
        mean = responses.mean(dim=0)
        directions = torch.linalg.svd(responses - mean).Vh[:rank].T
        head.factorize_fc6(directions, mean)
    return head


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("rank", [0, 24])
@pytest.mark.parametrize("form", FORMS)
def test_rounded_layers_give_nearly_the_same(form: str, rank: int) -> None:
    whole = trained(form, rank)
    head, floats = whole.freeze(quantize=True), whole.freeze(quantize=False)
    # The top stages, whose rounding is another test's, stay floats.
    head.pooler.rules = floats.pooler.rules
    maps = random_maps(head.pooler.rules, WIDTH, HEIGHT)
    boxes = random_boxes(300, WIDTH, HEIGHT)
    exact = torch.relu(floats.fc6_response(floats.prepare(maps), boxes))
    prepared = head.prepare(maps)
    rounded = torch.relu(head.fc6_response(prepared, boxes))
    assert not torch.equal(rounded, exact)
    assert difference(rounded, exact) < 0.05
    assert difference(head.fc6_from_pooled(head.pooler.pool(prepared, boxes)), exact) < 0.05
    assert 0 < difference(head.fc7_from_fc6(exact), floats.fc7_from_fc6(exact)) < 0.05


@pytest.mark.parametrize("form", FORMS)
def test_other_boxes_change_nothing(form: str) -> None:
    head = trained(form).freeze(quantize=True)
    prepared = head.prepare(random_maps(head.pooler.rules, WIDTH, HEIGHT))
    boxes = random_boxes(300, WIDTH, HEIGHT)
    few = head.fc6_response(prepared, boxes[:20])
    assert few.any()
    assert torch.equal(few, head.fc6_response(prepared, boxes)[:20])


def test_layers_that_may_still_be_trained_are_not_rounded() -> None:
    features, config = FORMS["both"]
    head = RegionHead(config, extractor(features), 3).eval()
    rows = torch.rand(5, config.fc6)
    before = head.fc7_from_fc6(rows)
    assert torch.equal(before, torch.relu(head.fc7(rows)))
    frozen = head.freeze(quantize=True)
    assert not torch.equal(frozen.fc7_from_fc6(rows), before)


@pytest.mark.parametrize("form", FORMS)
def test_a_frozen_head_is_a_copy_that_shares_the_weights(form: str) -> None:
    head = trained(form)
    maps, boxes = random_maps(head.pooler.rules, WIDTH, HEIGHT), random_boxes(20, WIDTH, HEIGHT)
    rounded = head.freeze(quantize=True)
    plain = head.freeze(quantize=False)
    assert rounded.pooler is not head.pooler
    assert (rounded.pooler.is_quantized, rounded.pooler.rules.quantize) == (True, True)
    assert (plain.pooler.is_quantized, plain.pooler.rules.quantize) == (False, False)
    assert not head.pooler.is_quantized
    assert not any(parameter.requires_grad for parameter in rounded.parameters())
    for name, values in head.state_dict().items():
        assert rounded.state_dict()[name].data_ptr() == values.data_ptr()
    # Neither copy changes what the other gives.
    first = plain.regions(plain.prepare(maps), boxes).layers["fc7"]
    rounded.regions(rounded.prepare(maps), boxes)
    again = head.freeze(quantize=False)
    assert (again.regions(again.prepare(maps), boxes).layers["fc7"] == first).all()
