"""Principal directions against numpy's SVD, and a squeezed fc6 against the whole one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sppdet.compression import CompressionConfig, Responses
from sppdet.errors import ConfigError
from sppdet.head import FEW_BOXES, RegionHead
from sppdet.types import FloatArray
from tests.region_cases import random_boxes, random_maps
from tests.test_head import FORMS, HEIGHT, WIDTH, head_of


def seen(rows: Tensor, parts: int = 1) -> Responses:
    responses = Responses(rows.shape[1])
    for part in rows.chunk(parts):
        responses.add(part)
    return responses


def answers(head: RegionHead, boxes: FloatArray) -> Responses:
    return seen(head.fc6_response(random_maps(head.features, WIDTH, HEIGHT), boxes))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), width=st.integers(1, 9), parts=st.integers(1, 3))
def test_no_affine_space_is_nearer(seed: int, width: int, parts: int) -> None:
    rng = np.random.default_rng(seed)
    # Columns of very different size, far from 0: the mean must not count as a direction.
    rows = rng.normal(size=(30, width)) * 3.0 ** np.arange(width) @ rng.normal(size=(width, width))
    rows = (rows + 20).astype(np.float32)
    rank = int(rng.integers(1, width + 1))
    directions, mean = seen(torch.from_numpy(rows), parts).principal(rank)
    u, m = directions.double().numpy(), mean.double().numpy()
    np.testing.assert_allclose(u.T @ u, np.eye(rank), atol=1e-5)
    centred = rows.astype(np.float64) - rows.astype(np.float64).mean(axis=0)
    residual = np.square(rows - m - (rows - m) @ u @ u.T).sum()
    smallest = np.square(np.linalg.svd(centred, compute_uv=False)[rank:]).sum()
    assert residual == pytest.approx(smallest, rel=1e-3, abs=1e-5 * float(np.square(rows).sum()))


def test_nothing_is_known_before_the_first_row() -> None:
    with pytest.raises(ValueError, match="no rows"):
        Responses(3).principal(1)


@pytest.mark.parametrize("form", FORMS)
def test_all_directions_lose_nothing(form: str) -> None:
    head = head_of(form)
    maps, boxes = random_maps(head.features, WIDTH, HEIGHT), random_boxes(40, WIDTH, HEIGHT)
    pooled = head.pool(maps, boxes)
    expected = head.run_fc6(pooled)
    head.squeeze_fc6(head.config.fc6, answers(head, boxes))
    torch.testing.assert_close(head.run_fc6(pooled), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_regions_that_were_seen_lose_nothing_if_there_are_directions_for_all(form: str) -> None:
    head = head_of(form)
    maps, boxes = random_maps(head.features, WIDTH, HEIGHT), random_boxes(5, WIDTH, HEIGHT)
    pooled = head.pool(maps, boxes)
    expected = head.run_fc6(pooled)
    responses = answers(head, boxes)
    # Five points span four dimensions; with fewer directions something must be lost.
    other = head_of(form)
    other.squeeze_fc6(1, responses)
    head.squeeze_fc6(4, responses)
    torch.testing.assert_close(head.run_fc6(pooled), expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(other.run_fc6(pooled), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_the_short_way_to_a_squeezed_fc6_is_the_long_one(form: str) -> None:
    head = head_of(form)
    maps, boxes = random_maps(head.features, WIDTH, HEIGHT), random_boxes(FEW_BOXES, WIDTH, HEIGHT)
    whole = head.pool_fc6(maps, boxes)
    head.squeeze_fc6(3, answers(head, boxes[:40]))
    expected = head.run_fc6(head.pool(maps, boxes))
    torch.testing.assert_close(head.pool_fc6(maps, boxes), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected, whole, rtol=1e-4, atol=1e-4)


def test_a_squeezed_head_is_loaded_into_its_shapes() -> None:
    head, other = head_of("context"), head_of("context", seed=1)
    boxes = random_boxes(40, WIDTH, HEIGHT)
    head.squeeze_fc6(3, answers(head, boxes))
    other.squeeze_fc6(3)
    other.load_state_dict(head.state_dict())
    maps = random_maps(head.features, WIDTH, HEIGHT)
    assert torch.equal(other.pool_fc6(maps, boxes), head.pool_fc6(maps, boxes))


def test_it_is_done_only_where_it_saves_work() -> None:
    head = head_of("pyramid")
    assert (head.dim, head.config.fc6) == (400, 16)
    # 15 (400 + 16) < 400 * 16 < 16 (400 + 16)
    assert [head.squeeze_saves(rank) for rank in (0, 1, 15, 16, 100)] == [0, 1, 1, 0, 0]


def test_a_rank_below_0_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"compression\.fc6_rank is -1"):
        CompressionConfig(fc6_rank=-1)
