"""Layers in float64: equal to torch, block by block, with slopes that no secant exceeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_roundings import TORCH, linear

from tiedexport.rounding import forward
from tiedexport.rounding.ops import BLOCK_BYTES, slope
from tiedexport.spec import ACTIVATIONS, Layer, Precision


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_equals_torch_in_float64(activation):
    x = np.linspace(-30, 30, 1201)[None]
    expected = TORCH[activation](torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(forward([Layer(activation)], {}, x), expected, rtol=0, atol=1e-14)


@given(
    seed=st.integers(0, 2**32 - 1),
    op=st.sampled_from(["conv", "conv_transpose"]),
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    data=st.data(),
)
@settings(deadline=None, max_examples=80)
def test_convolutions_equal_torch_in_float64(seed, op, size, kernel, strides, channels, data):
    rng = np.random.default_rng(seed)
    pads = tuple(data.draw(st.integers(0, (k - 1) // 2)) for k in kernel)
    extra = tuple(data.draw(st.integers(0, s - 1)) for s in strides)
    output_padding = extra if op == "conv_transpose" else ()
    layer = Layer(op, "w", strides=strides, pads=pads, output_padding=output_padding)
    w = rng.standard_normal((*channels, *kernel))
    x = rng.standard_normal((2, channels[1] if op == "conv" else channels[0], *size))
    expected = linear(layer, torch.from_numpy(x), torch.from_numpy(w)).numpy()
    np.testing.assert_allclose(forward([layer], {"w": w}, x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [p.dtype for p in Precision], ids=str)
def test_a_memory_mapped_weight_of_many_blocks_is_mapped_exactly(
    tmp_path: Path, transposed: bool, dtype: np.dtype
):
    rng = np.random.default_rng(5)
    columns = 3001
    rows = 2 * BLOCK_BYTES // (8 * columns) + 7
    weight = rng.standard_normal((rows, columns)).astype(np.float32).astype(dtype)
    weight.tofile(tmp_path / "w")
    mapped = np.memmap(tmp_path / "w", dtype=dtype, mode="r", shape=weight.shape)
    x = rng.standard_normal((2, rows if transposed else columns))
    w = weight.astype(np.float64)
    value = forward([Layer("dense", "w", transposed=transposed)], {"w": mapped}, x)
    np.testing.assert_allclose(value, x @ (w if transposed else w.T), rtol=0, atol=1e-11)


@given(
    op=st.sampled_from(ACTIVATIONS),
    centre=st.floats(-6, 6),
    reach=st.floats(1e-6, 4),
    places=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
@settings(deadline=None, max_examples=300)
def test_no_secant_in_an_interval_is_steeper_than_its_slope(op, centre, reach, places):
    low, high = np.array([centre - reach]), np.array([centre + reach])
    a, b = (low + (high - low) * place for place in places)
    rise = forward([Layer(op)], {}, b[None])[0] - forward([Layer(op)], {}, a[None])[0]
    assert np.abs(rise) <= slope(op, low, high) * np.abs(b - a) + 1e-14
