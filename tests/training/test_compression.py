"""Principal directions against numpy's SVD, and a factorized fc6 against the whole one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sppdet.core.errors import ConfigError
from sppdet.core.types import FloatArray
from sppdet.heads.config import HeadConfig
from sppdet.heads.head import RegionHead
from sppdet.heads.prepared_maps import PreparedMaps
from sppdet.training.compression import ResponsePca
from tests.helpers.region_cases import FORMS, head_of, random_boxes, random_maps

WIDTH, HEIGHT = 150, 100


def seen(rows: Tensor, parts: int = 1) -> ResponsePca:
    responses = ResponsePca(rows.shape[1])
    for part in rows.chunk(parts):
        responses.add(part)
    return responses


def prepared_maps(head: RegionHead) -> PreparedMaps:
    return head.prepare(random_maps(head.pooler.rules, WIDTH, HEIGHT))


def answers(head: RegionHead, boxes: FloatArray) -> ResponsePca:
    return seen(head.fc6_response(prepared_maps(head), boxes))


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
    centered = rows.astype(np.float64) - rows.astype(np.float64).mean(axis=0)
    residual = np.square(rows - m - (rows - m) @ u @ u.T).sum()
    smallest = np.square(np.linalg.svd(centered, compute_uv=False)[rank:]).sum()
    assert residual == pytest.approx(smallest, rel=1e-3, abs=1e-5 * float(np.square(rows).sum()))


def test_nothing_is_known_before_the_first_row() -> None:
    with pytest.raises(ValueError, match="no rows"):
        ResponsePca(3).principal(1)


@pytest.mark.parametrize("form", FORMS)
def test_all_directions_lose_nothing(form: str) -> None:
    head = head_of(form)
    boxes = random_boxes(40, WIDTH, HEIGHT)
    pooled = head.pooler.pool(prepared_maps(head), boxes)
    expected = head.fc6_from_pooled(pooled)
    head.factorize_fc6(*answers(head, boxes).principal(head.config.fc6))
    torch.testing.assert_close(head.fc6_from_pooled(pooled), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_regions_that_were_seen_lose_nothing_if_there_are_directions_for_all(form: str) -> None:
    head = head_of(form)
    boxes = random_boxes(5, WIDTH, HEIGHT)
    pooled = head.pooler.pool(prepared_maps(head), boxes)
    expected = head.fc6_from_pooled(pooled)
    responses = answers(head, boxes)
    # Five points span four dimensions; with fewer directions something must be lost.
    other = head_of(form)
    other.factorize_fc6(*responses.principal(1))
    head.factorize_fc6(*responses.principal(4))
    torch.testing.assert_close(head.fc6_from_pooled(pooled), expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(other.fc6_from_pooled(pooled), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_the_short_way_to_a_factorized_fc6_is_the_long_one(form: str) -> None:
    head = head_of(form)
    boxes = random_boxes(200, WIDTH, HEIGHT)
    whole = torch.relu(head.fc6_response(prepared_maps(head), boxes))
    head.factorize_fc6(*answers(head, boxes[:40]).principal(3))
    prepared = prepared_maps(head)
    expected = head.fc6_from_pooled(head.pooler.pool(prepared, boxes))
    found = torch.relu(head.fc6_response(prepared, boxes))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected, whole, rtol=1e-4, atol=1e-4)


def test_a_factorized_head_is_loaded_into_its_shapes() -> None:
    head, other = head_of("context"), head_of("context", seed=1)
    boxes = random_boxes(40, WIDTH, HEIGHT)
    head.factorize_fc6(*answers(head, boxes).principal(3))
    other.make_factors(3)
    other.load_state_dict(head.state_dict())
    expected = head.fc6_response(prepared_maps(head), boxes)
    assert torch.equal(other.fc6_response(prepared_maps(other), boxes), expected)


def test_it_is_done_only_where_it_saves_work() -> None:
    head = head_of("pyramid")
    assert (head.pooler.dim, head.config.fc6) == (400, 16)
    # 15 (400 + 16) < 400 * 16 < 16 (400 + 16)
    assert [head.factorization_saves_work(rank) for rank in (0, 1, 15, 16, 100)] == [0, 1, 1, 0, 0]


def test_a_rank_below_0_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"head\.fc6_rank is -1"):
        HeadConfig(fc6_rank=-1)
