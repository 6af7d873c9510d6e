"""What is equal by chance is no copy; what carries information is one, however plain."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from arrays_searched import FP16, FP32, found, random


def rotary(dimensions: int, base: float) -> np.ndarray:
    """Inverse frequencies of rotary embeddings, computed in float32 as models do, [d / 2]."""
    exponents = torch.arange(0, dimensions, 2, dtype=torch.int64).float() / dimensions
    return (1.0 / (base**exponents)).numpy()


CHANCE = {
    "constant": np.full((30, 30), 0.5),
    "zeros": np.zeros(500),
    "tiny": random(15),
    "identity": np.eye(64),
    "shifted identity": np.eye(40, 60, 7),
    "one-hot vector": np.eye(1, 200, 7),
    "one-hot rows": np.eye(64)[np.random.default_rng(0).permutation(64)],
    "triangle": np.tril(np.ones((1, 1, 200, 200))),
    "causal mask": np.triu(np.full((64, 64), -np.inf), 1),
    "bools": np.random.default_rng(0).random((40, 40)) < 0.5,
    "band": np.tri(64, 64, 3) - np.tri(64, 64, -3),
    "blocks": np.kron(np.eye(8), np.ones((8, 8))),
    "checkerboard": np.indices((50, 50)).sum(0) % 2,
    "arange": np.arange(1000),
    "linspace": np.linspace(0, 1, 1000, dtype=FP16),
    "tiled arange": np.tile(np.arange(50), (20, 1)),
    **{
        f"inverse frequencies, {d} of {base:g}, {dtype.__name__}": rotary(d, base).astype(dtype)
        for d, base in ((64, 1e4), (128, 1e4), (128, 5e5), (256, 1e6))
        for dtype in (np.float32, ml_dtypes.bfloat16)
    },
    "inverse frequencies in float16": rotary(128, 1e4).astype(FP16),
    "inverse frequencies in float64": 1e4 ** (-np.arange(0, 128, 2) / 128),
    "slopes of ALiBi": 2.0 ** -np.arange(0.25, 8.25, 0.25).reshape(32, 1, 1),
    "negative slopes": -(2.0 ** -np.arange(0.25, 8.25, 0.25, dtype=FP32)),
    "powers of two": 2 ** np.arange(30),
    "distances": np.subtract.outer(np.arange(64), np.arange(64)),
    "table of indices": np.random.default_rng(0).integers(0, 225, (49, 49)),
    "one NaN": np.full((20, 20), np.nan),
    "half of it ones": np.repeat([0.0, 1.0], 500),
}


@pytest.mark.parametrize("name", CHANCE)
def test_what_is_equal_by_chance_is_no_copy(name: str):
    array = CHANCE[name]
    assert found(a=array, b=array.copy(), c=array.T) == {}


_rng = np.random.default_rng(0)
WEIGHTS = {
    "16 floats": _rng.standard_normal(16),
    "64 signs": _rng.choice([-1.0, 1.0], 64),
    "signs": _rng.choice([-1.0, 1.0], (200, 300)),
    "ternary int8": _rng.choice([-1, 0, 1], (30, 40)).astype(np.int8),
    "sparse ternary": _rng.choice([-1.0, 0.0, 1.0], (100, 100), p=[0.025, 0.95, 0.025]),
    "pruned": _rng.standard_normal((500, 500)) * (_rng.random((500, 500)) < 0.02),
    "scales near 1 in bfloat16": (1 + _rng.standard_normal(64) / 10).astype(ml_dtypes.bfloat16),
    "sorted": np.sort(_rng.standard_normal(64)),
    "sorted magnitudes": np.sort(np.exp(_rng.standard_normal(64))).astype(ml_dtypes.bfloat16),
    "sines of positions": np.sin(np.outer(np.arange(40), rotary(64, 1e4))),
    "Hann window": np.hanning(64),
    "squares": np.arange(64.0) ** 2,
    "distances either way": np.abs(np.subtract.outer(np.arange(64.0), np.arange(64.0))),
    "zero rows first": np.concatenate([np.zeros((500, 64)), _rng.standard_normal((500, 64))]),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_what_carries_information_is_a_copy(name: str):
    array = WEIGHTS[name]
    copies = {"b": array.copy(), "c": array.T} if array.ndim > 1 else {"b": array.copy()}
    assert set(found(a=array, **copies)) == set(copies)


def test_what_a_cast_leaves_without_information_is_no_copy():
    assert found(w=random(50, 50) * 1e-12, zeros=np.zeros((50, 50), FP16)) == {}
