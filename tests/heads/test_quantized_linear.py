"""Fully connected layers in 8-bit integers: exact arithmetic on what was rounded, row by row."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppdet.core.jit import warm_up
from sppdet.heads import quantized_linear
from sppdet.heads.quantized_linear import ROWS, QuantizedLinear


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def oracle(weight: torch.Tensor, bias: torch.Tensor, rows: torch.Tensor) -> np.ndarray:
    """Weights to 63 steps either way, a row to 255 steps over its range with 0; then float64."""
    w, x = weight.double().numpy(), rows.double().numpy()
    largest = np.abs(w).max(axis=1, keepdims=True)
    steps = np.where(largest > 0, largest, 1) / 63
    low, high = np.minimum(x.min(axis=1), 0), np.maximum(x.max(axis=1), 0)
    step = np.where(high > low, (high - low) / 255, 1)[:, None]
    zero = np.round(-low[:, None] / step)
    rounded = (np.clip(np.round(x / step + zero), 0, 255) - zero) * step
    return np.asarray(rounded @ (np.round(w / steps) * steps).T + bias.double().numpy())


@settings(deadline=None)
@given(
    st.integers(1, 2 * ROWS + 3),
    st.integers(1, 70),
    st.integers(1, 40),
    st.sampled_from([1e-3, 1.0, 1e3]),
    st.sampled_from([-2.0, 0.0, 2.0]),
    st.integers(0, 1000),
)
def test_it_is_the_product_of_what_was_rounded(
    n: int, inputs: int, outputs: int, size: float, shift: float, seed: int
) -> None:
    weight, bias = drawn(outputs, inputs, seed=seed), drawn(outputs, seed=seed + 1)
    rows = size * (drawn(n, inputs, seed=seed + 2) + shift)
    expected = oracle(weight, bias, rows)
    found = QuantizedLinear(weight, bias)(rows).numpy()
    # A value halfway between two bytes may go to either: a step of one input, times its weights.
    step = float((rows.max() - rows.min().clamp_max(0)) / 255)
    tolerance = 2 * step * float(weight.abs().max()) + 1e-5 * (1 + np.abs(expected).max())
    np.testing.assert_allclose(found, expected, atol=tolerance)
    near = (weight.double() @ rows.double().T).T.numpy() + bias.numpy()
    lengths = np.linalg.norm(rows.numpy(), axis=1)[:, None] * np.linalg.norm(weight.numpy(), axis=1)
    assert (np.abs(found - near) <= 0.1 * (lengths + 1e-6) + tolerance).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_depends_on_itself_alone(threads: int) -> None:
    layer, rows = QuantizedLinear(drawn(64, 3200), drawn(64)), drawn(700, 3200, seed=1)
    usual = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = layer(rows)
    finally:
        torch.set_num_threads(usual)
    for part in (slice(0, 1), slice(3, 200), slice(650, 700)):
        assert torch.equal(layer(rows[part]), whole[part])
    rows[5] *= 1e6
    assert torch.equal(layer(rows)[:5], whole[:5])


def test_relu_cuts_off_and_changes_nothing_else() -> None:
    layer, rows = QuantizedLinear(drawn(9, 20), drawn(9)), drawn(30, 20, seed=1)
    plain = layer(rows)
    assert (plain < 0).any()
    assert torch.equal(layer(rows, relu=True), plain.clamp_min(0))


def test_rows_and_weights_of_zeros_give_the_bias() -> None:
    bias = drawn(4)
    assert torch.equal(QuantizedLinear(drawn(4, 6), bias)(torch.zeros(3, 6)), bias.expand(3, -1))
    zeros = QuantizedLinear(torch.zeros(4, 6), bias)
    assert torch.equal(zeros(drawn(3, 6)), bias.expand(3, -1))
    assert zeros(torch.zeros(0, 6)).shape == (0, 4)


def test_the_largest_sums_do_not_overflow() -> None:
    layer = QuantizedLinear(torch.ones(2, 6000), torch.zeros(2))
    torch.testing.assert_close(layer(torch.ones(1, 6000)), torch.full((1, 2), 6000.0))
    torch.testing.assert_close(layer(-torch.ones(1, 6000)), torch.full((1, 2), -6000.0))


def test_values_that_are_no_numbers_stay_none() -> None:
    rows = drawn(3, 5)
    rows[1, 2] = torch.nan
    found = QuantizedLinear(drawn(2, 5), drawn(2))(rows)
    assert found[1].isnan().all()
    assert not found[[0, 2]].isnan().any()


def test_later_changes_to_the_weights_are_not_seen() -> None:
    weight, bias = drawn(2, 5), drawn(2)
    layer, rows = QuantizedLinear(weight, bias), drawn(3, 5, seed=1)
    before = layer(rows)
    weight.zero_()
    bias.zero_()
    assert torch.equal(layer(rows), before)
    assert copy.deepcopy(layer) is layer


def test_warming_up_compiles_it() -> None:
    warm_up()
    assert quantized_linear.round_rows.signatures  # type: ignore[attr-defined]
    assert quantized_linear.finish_rows.signatures  # type: ignore[attr-defined]
