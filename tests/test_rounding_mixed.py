"""The bound of a chain whose layers are of different types, and of every layer on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_roundings import (
    KINDS,
    conv_stack,
    simulate,
    simulated_layers,
    sparse_images,
    tied_stack,
)

from tiedexport.rounding import forward_bound, layer_bounds, layer_types
from tiedexport.spec import ACTIVATIONS, Layer, Precision

if TYPE_CHECKING:
    from collections.abc import Mapping

FP32, FP16, BF16 = Precision
TYPES = {"precision": FP16, "accumulation": FP32, "io": FP32}


def drawn_types(weights: Mapping[str, np.ndarray], seed: int) -> dict[str, Precision]:
    """Each matrix in any type, or in that of the others."""
    rng = np.random.default_rng(seed)
    names = [name for name, array in weights.items() if array.ndim > 1]
    drawn = {name: [*Precision, None][rng.integers(4)] for name in names}
    return {name: kind for name, kind in drawn.items() if kind is not None}


def worst(output: np.ndarray, value: np.ndarray, bound: np.ndarray) -> float:
    return float(np.max(np.abs(output - value) / bound, initial=0.0))


@given(
    seed=st.integers(0, 2**32 - 1),
    widths=st.lists(st.sampled_from([1, 3, 7, 16, 31, 61]), min_size=2, max_size=4),
    activation=st.sampled_from(ACTIVATIONS),
    kind=st.sampled_from(KINDS),
    precision=st.sampled_from(list(Precision)),
    as_stored=st.booleans(),
    io=st.sampled_from([FP32, FP16]),
)
@settings(deadline=None, max_examples=100)
def test_every_layer_of_mixed_types_stays_within_its_bound(
    seed, widths, activation, kind, precision, as_stored, io
):
    model = tied_stack(np.random.default_rng(seed), tuple(widths), activation, kind)
    x = sparse_images(np.random.default_rng(seed + 1), 8, widths[0])
    kept = drawn_types(model[1], seed)
    if as_stored and BF16 in {precision, *kept.values()}:
        as_stored = False  # a sum in bf16 stagnates
    types = {"accumulation": precision if as_stored else FP32, "io": io, "kept": kept}
    found = simulated_layers(model, x, precision, **types)
    bounds = list(layer_bounds(*model, x, precision=precision, **types))
    assert [layer for layer, _ in bounds] == model[0]
    for output, (_, bounded) in zip(found, bounds, strict=True):
        assert output.shape == bounded.value.shape == bounded.bound.shape
        assert worst(output, bounded.value, bounded.bound) <= 1


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("seed", range(6))
def test_every_layer_of_a_mixed_convolution_stays_within_its_bound(activation, seed):
    rng = np.random.default_rng(seed)
    model = conv_stack(rng, activation)
    x, kept = rng.random((4, 3, 8, 5)), drawn_types(model[1], seed)
    bounds = layer_bounds(*model, x, kept=kept, **TYPES)
    found = simulated_layers(model, x, FP16, kept=kept)
    for output, (_, bounded) in zip(found, bounds, strict=True):
        assert worst(output, bounded.value, bounded.bound) <= 1


@pytest.mark.parametrize("precision", Precision)
def test_the_last_layer_is_the_bound_of_the_stage_and_one_type_is_no_special_case(precision):
    rng = np.random.default_rng(0)
    model, x = tied_stack(rng, (31, 16, 7), "gelu", KINDS[0]), sparse_images(rng, 4, 31)
    types = {"precision": precision, "accumulation": FP32, "io": FP32}
    whole = forward_bound(*model, x, **types)
    *_, (_, last) = layer_bounds(*model, x, **types)
    same = forward_bound(*model, x, kept=dict.fromkeys(model[1], precision), **types)
    for bounded in (last, same):
        np.testing.assert_array_equal(bounded.value, whole.value)
        np.testing.assert_array_equal(bounded.bound, whole.bound)
    assert worst(simulate(model, x, precision), whole.value, whole.bound) <= 1


def test_a_layer_kept_in_fp32_has_the_smaller_bound_and_one_in_bf16_the_larger():
    rng = np.random.default_rng(1)
    model, x = tied_stack(rng, (61, 31, 7), "relu", KINDS[0]), sparse_images(rng, 8, 61)
    means = [
        forward_bound(*model, x, kept={"w0": kind}, **TYPES).bound.mean() for kind in Precision
    ]
    assert means[0] < means[1] < means[2] / 2


@pytest.mark.parametrize(("declared", "actual"), [(FP32, FP16), (FP32, BF16), (FP16, BF16)])
@pytest.mark.parametrize("weight", ["w0", "w1"])
def test_a_kept_weight_in_a_lower_type_than_declared_exceeds_the_bound(declared, actual, weight):
    rng = np.random.default_rng(11)
    model = tied_stack(rng, (127, 61, 31), "relu", "random signs")
    x = sparse_images(rng, 32, 127)
    types = dict.fromkeys(model[1], declared)
    bounds = list(layer_bounds(*model, x, kept=types, **TYPES))
    good = simulated_layers(model, x, FP16, kept=types)
    bad = simulated_layers(model, x, FP16, kept=types | {weight: actual})
    ratios = [
        [worst(out, b.value, b.bound) for out, (_, b) in zip(found, bounds, strict=True)]
        for found in (good, bad)
    ]
    assert max(ratios[0]) <= 1
    first = next(i for i, layer in enumerate(model[0]) if layer.weight == weight)
    assert max(ratios[1][:first], default=0.0) <= 1  # nothing is wrong before it
    assert ratios[1][first] > 1  # and the first that is wrong is the one that does it


@pytest.mark.parametrize("bias", ["e0", "e1", "d1", "d0"])
def test_a_bias_dropped_from_a_mixed_chain_is_found_at_its_layer(bias):
    rng = np.random.default_rng(5)
    layers, weights = tied_stack(rng, (61, 31, 7), "relu", "random signs")
    x, kept = sparse_images(rng, 8, 61), {"w0": FP32}
    dropped = weights | {bias: np.zeros_like(weights[bias])}
    found = simulated_layers((layers, dropped), x, FP16, kept=kept)
    bounds = layer_bounds(layers, weights, x, kept=kept, **TYPES)
    first = next(
        layer
        for output, (layer, b) in zip(found, bounds, strict=True)
        if worst(output, b.value, b.bound) > 1
    )
    assert first.bias == bias


# Types, range and peak.

CHAIN = [
    Layer("reshape", shape=(4,)),
    Layer("dense", "a"),
    Layer("relu"),
    Layer("dense", "b"),
    Layer("dense", "a", transposed=True),
    Layer("sigmoid"),
    Layer("reshape", shape=(2, 2)),
]


@pytest.mark.parametrize(
    ("kept", "types"),
    [
        ({}, (FP16, FP16, FP16, FP16, FP16, FP32, FP32)),
        ({"a": BF16}, (BF16, BF16, BF16, FP16, BF16, FP32, FP32)),
        ({"b": FP32}, (FP16, FP16, FP16, FP32, FP16, FP32, FP32)),
    ],
)
def test_a_layer_has_the_type_of_its_weight_or_of_the_one_before_it(kept, types):
    assert layer_types(CHAIN, FP16, kept) == types


def test_layers_without_weights_are_in_fp32():
    assert layer_types([Layer("relu"), Layer("reshape", shape=(1,))], FP16, {}) == (FP32, FP32)


def test_a_cast_into_a_narrower_range_is_where_the_overflow_is():
    weights = {name: np.full((3, 3), 100.0, np.float32) for name in "ab"}
    layers = [Layer("dense", "a"), Layer("dense", "b")]
    found = [
        forward_bound(layers, weights, np.full((1, 3), 1000.0), kept=kept, **TYPES).overflow
        for kept in ({}, {"a": BF16}, {"a": BF16, "b": FP32})
    ]
    assert found[0].startswith("the output of layer 0 (dense) may overflow fp16: 3e+05")
    assert found[1].startswith("the input of layer 1 (dense) may overflow fp16: 3")
    assert found[2] == ""


def test_the_peak_of_a_layer_covers_its_weights_bias_and_partial_sums_but_not_others():
    weights = {
        "w": np.array([[500.0, -500.0], [0.0, 0.0]], np.float32),
        "b": np.array([0.0, 70.0], np.float32),
        "v": np.full((2, 2), 3.0, np.float32),
    }
    layers = [Layer("dense", "w", "b"), Layer("relu"), Layer("dense", "v")]
    first, second, third = (
        bounded.peak for _, bounded in layer_bounds(layers, weights, np.ones((1, 2)), **TYPES)
    )
    assert first > 500  # which cancel to zero
    assert second == 70
    assert 210 < third < 210 + 5 * 210


def test_a_chain_without_layers_has_no_bound():
    with pytest.raises(ValueError, match="not enough values"):
        forward_bound([], {}, np.ones((1, 2)), **TYPES)
