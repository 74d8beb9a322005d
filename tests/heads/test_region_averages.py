"""The pretrained head's averages: those of the map are those in pooled vectors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.heads.head import RegionHead
from sppdet.heads.region_averages import averages_of_pooled, has_averages, region_averages
from tests.helpers.region_cases import FORMS, head_of, random_boxes, random_maps

WITH_AVERAGES = ("averages", "context", "scales", "paper")
HEADS: dict[str, RegionHead] = {}


def head(form: str) -> RegionHead:
    if form not in HEADS:
        HEADS[form] = head_of(form)
    return HEADS[form]


def test_they_need_a_pretrained_head_over_the_regions_themselves() -> None:
    found = {
        form for form in ("pyramid", "unreduced", *WITH_AVERAGES) if has_averages(head(form).pooler)
    }
    assert found == set(WITH_AVERAGES)


@settings(deadline=None, max_examples=12)
@given(
    form=st.sampled_from(WITH_AVERAGES),
    width=st.integers(20, 200),
    height=st.integers(20, 200),
    count=st.integers(0, 12),
    seed=st.integers(0, 99),
)
def test_they_are_a_part_of_pooled_vectors(
    form: str, width: int, height: int, count: int, seed: int
) -> None:
    one = head(form)
    prepared = one.prepare(random_maps(FORMS[form][0], width, height, seed))
    boxes = random_boxes(count, width, height, seed)
    found = region_averages(one.pooler, prepared, boxes)
    assert found.shape == (count, one.pooler.head_channels)
    pooled = one.pooler.pool(prepared, boxes)
    torch.testing.assert_close(found, averages_of_pooled(one.pooler, pooled), rtol=1e-4, atol=1e-4)
    # Weights before the average or after it.
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(one.pooler.head_channels, 2, generator=generator)
    weights /= len(weights) ** 0.5
    early = region_averages(one.pooler, prepared, boxes, weights)
    torch.testing.assert_close(early, found @ weights, rtol=1e-3, atol=1e-3)
    late = averages_of_pooled(one.pooler, pooled, weights)
    torch.testing.assert_close(late, found @ weights, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("form", WITH_AVERAGES)
def test_a_constant_map_has_its_value_as_average(form: str) -> None:
    one, maps = head(form), random_maps(FORMS[form][0], 90, 60)
    for part in maps.maps:
        part.values[:] = 0.5
    prepared = one.prepare(maps)
    (first, *others) = region_averages(one.pooler, prepared, random_boxes(6, 90, 60))
    for row in others:
        torch.testing.assert_close(row, first, rtol=1e-4, atol=1e-4)
