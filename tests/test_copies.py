"""A copy of a weight is found by content, however it was laid out or cast; chance is not a copy."""

from __future__ import annotations

from itertools import permutations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tiedexport.copies import relation

DTYPES = (np.float32, np.float16, ml_dtypes.bfloat16)
shapes = st.one_of(
    st.tuples(st.integers(1, 300), st.integers(1, 4)),
    st.tuples(*[st.integers(1, 4)] * 4),
).filter(lambda shape: np.prod(shape) > 1)


@st.composite
def weights(draw: st.DrawFn) -> np.ndarray:
    """Distinct values in every type, so that no arrangement equals another by chance."""
    shape = draw(shapes)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = int(np.prod(shape))
    # bf16 has eight bits: 128 mantissas an octave, and as many octaves as it takes.
    mantissa, exponent = np.arange(size) % 128 + 128, np.arange(size) // 128
    values = np.ldexp(mantissa.astype(np.float32), exponent - 10)
    return rng.permutation(values).reshape(shape)


@settings(max_examples=60, deadline=None)
@given(weight=weights(), data=st.data())
def test_every_transpose_in_every_type_is_found(weight: np.ndarray, data: st.DataObject):
    axes = data.draw(st.sampled_from(list(permutations(range(weight.ndim)))))
    of, to = data.draw(st.sampled_from(DTYPES)), data.draw(st.sampled_from(DTYPES))
    copy = np.ascontiguousarray(weight.transpose(axes).astype(to))
    found = relation(weight.astype(of), copy)
    assert found is not None
    assert ("cast" in found) == (of != to)
    moved = weight.shape != copy.shape or not np.array_equal(weight.astype(to), copy)
    assert ("transposed" in found) == moved


def test_a_copy_that_kept_more_bits_than_the_weight_is_found():
    master = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    assert relation(master.astype(np.float16), master) == "cast"
    assert relation(master.astype(ml_dtypes.bfloat16), master.T) == "cast and transposed"


def test_a_cast_that_overflows_is_no_warning():
    weight = np.array([[1e6, 2.0], [3.0, 4.0]], dtype=np.float32)
    with np.errstate(over="ignore"):
        half = weight.astype(np.float16)
    assert relation(weight, half) == "cast"
    assert relation(weight, np.array([[1, 2], [3, 4]], np.float16)) is None


@settings(max_examples=60, deadline=None)
@given(weight=weights(), data=st.data())
def test_one_changed_element_is_no_copy(weight: np.ndarray, data: st.DataObject):
    other = weight.copy()
    other.flat[data.draw(st.integers(0, weight.size - 1))] = -1.0
    assert relation(weight, other) is None


@settings(max_examples=60, deadline=None)
@given(weight=weights(), axis=st.integers(0, 3), seed=st.integers(0, 999))
def test_flips_and_permutations_along_an_axis_are_no_copies(weight, axis, seed):
    axis %= weight.ndim
    order = np.random.default_rng(seed).permutation(weight.shape[axis])
    for other in (np.flip(weight, axis), np.take(weight, order, axis)):
        if not np.array_equal(other, weight):
            # Two axes of which one has length 1 cannot tell a flip from nothing else.
            assert relation(weight, other) is None


@settings(max_examples=40, deadline=None)
@given(value=st.floats(-10, 10, width=16), shape=arrays.array_shapes(min_dims=2, max_dims=4))
def test_constant_tensors_are_never_copies(value: float, shape: tuple[int, ...]):
    constant = np.full(shape, value, np.float32)
    for dtype in DTYPES:
        assert relation(constant, constant.T.astype(dtype)) is None


@pytest.mark.parametrize("shape", [(6,), (2, 3, 1), (3, 3), (1, 1)])
def test_other_ranks_and_sizes_are_no_copies(shape: tuple[int, ...]):
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert relation(weight, np.resize(weight, shape)) is None


def test_a_single_element_and_a_nan_are_no_copies():
    assert relation(np.ones((1, 1)), np.ones((1, 1))) is None
    broken = np.full((2, 2), np.nan)
    assert relation(broken, broken) is None
