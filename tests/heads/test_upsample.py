"""Interpolation onto the finer grid: the compiled loop against torch's passes, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.heads.upsample import upsample2x


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 7),
    columns=st.integers(1, 7),
    cut=st.tuples(st.booleans(), st.booleans()),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 99),
)
def test_with_and_without_gradients_the_bits_are_equal(
    rows: int, columns: int, cut: tuple[bool, bool], dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    half = torch.randn(rows, columns, 5, generator=generator, dtype=dtype)
    size = 2 * rows - cut[0], 2 * columns - cut[1]
    learned = upsample2x(half.clone().requires_grad_(), *size)
    assert learned.requires_grad
    found = upsample2x(half, *size)
    assert not found.requires_grad
    assert found.dtype == dtype
    assert torch.equal(found, learned.detach())
    with torch.inference_mode():
        # A view whose memory runs the other way, as the upper stages give it.
        turned = half.flip((0, 1)).contiguous().flip((0, 1)).permute(2, 0, 1).contiguous()
        assert torch.equal(upsample2x(turned.permute(1, 2, 0), *size), found)


def test_by_hand() -> None:
    half = torch.tensor([[0.0, 4.0], [8.0, 16.0]])[..., None]
    expected = [[0, 0, 2, 4], [0, 0, 2, 4], [4, 4, 7, 10], [8, 8, 12, 16]]
    assert upsample2x(half, 4, 4)[..., 0].tolist() == expected
    assert upsample2x(half, 3, 3)[..., 0].tolist() == [row[:3] for row in expected[:3]]


@pytest.mark.parametrize("size", [(1, 1), (5, 6), (6, 5)])
def test_it_is_linear(size: tuple[int, int]) -> None:
    """Multiplied before or after is the same: `RegionPooler.reduced` lives by it."""
    half = torch.randn(3, 3, 8, generator=torch.Generator().manual_seed(1))
    weight = torch.randn(8, 2, generator=torch.Generator().manual_seed(2))
    np.testing.assert_allclose(
        upsample2x(half @ weight, *size), upsample2x(half, *size) @ weight, rtol=1e-4, atol=1e-5
    )
