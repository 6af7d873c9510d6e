"""The forward error bound covers every simulated rounding, and planted faults exceed it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from simulated_roundings import (
    KINDS,
    Model,
    cancelling_stack,
    conv_stack,
    simulate,
    sparse_images,
    tied_stack,
)

from tiedexport.rounding import (
    LAMBDA,
    PROBE_QUANTILE,
    PROBES,
    Bounded,
    errors,
    forward,
    forward_bound,
    ops,
)
from tiedexport.spec import ACTIVATIONS, Layer, Precision

FP32, FP16, BF16 = Precision
ARITHMETICS = [(FP32, FP32), (FP16, FP32), (BF16, FP32), (FP16, FP16)]


def bounded(model: Model, x: np.ndarray, precision: Precision, **types: Precision) -> Bounded:
    types = {"accumulation": FP32, "io": FP32} | types
    return forward_bound(*model, x, precision=precision, **types)


def worst(output: np.ndarray, reference: Bounded) -> float:
    return float(np.max(np.abs(output - reference.value) / reference.bound))


widths = st.lists(st.sampled_from([1, 2, 3, 7, 16, 31, 61, 127]), min_size=2, max_size=4)


# Values.


@pytest.mark.parametrize(
    "make", [conv_stack, lambda rng: tied_stack(rng, (17, 5), "tanh", KINDS[0])]
)
def test_the_bounded_value_is_the_float64_forward_pass_and_the_bound_is_positive(make):
    model = make(np.random.default_rng(0))
    shape = (3, 8, 5) if "k" in model[1] else (17,)
    x = np.random.default_rng(1).random((4, *shape))
    reference = bounded(model, x, FP16)
    np.testing.assert_array_equal(reference.value, forward(*model, x))
    assert reference.bound.shape == reference.value.shape
    assert (reference.bound > 0).all()
    assert reference.overflow == ""


# Derived constants.


@pytest.mark.parametrize("n", [1, 2, 7, 40])
@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_partial_sums_in_random_order_have_the_mean_square_of_the_formula(n, shift):
    rng = np.random.default_rng(n)
    terms = rng.standard_normal(n) + shift
    shuffled = rng.permuted(np.tile(terms, (20_000, 1)), axis=1)
    squares = np.sum(np.cumsum(shuffled, axis=1) ** 2, axis=1)
    derived = (n + 1) * (2 * terms.sum() ** 2 + np.sum(terms**2)) / 6
    standard_error = squares.std() / np.sqrt(len(squares))
    assert abs(squares.mean() - derived) <= 5 * standard_error + 1e-9 * derived


def test_the_probe_quantile_has_the_tail_of_lambda_standard_deviations():
    stats = pytest.importorskip("scipy.stats")
    assert pytest.approx(stats.t.isf(stats.norm.sf(LAMBDA), PROBES), abs=5e-4) == PROBE_QUANTILE


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_partial_sums_in_order_of_storage_are_those_of_the_sum(transposed, bias):
    rng = np.random.default_rng(14)
    x, w = rng.standard_normal((3, ops.SEGMENTS)), rng.standard_normal((5, ops.SEGMENTS))
    layer, weights = Layer("dense", "w", transposed=transposed), {"w": w.T if transposed else w}
    found = ops.squared_partial_sums(layer, weights, x, np.full(5, bias), lambda block: block)
    sums = np.cumsum(x[:, None] * w, axis=2)
    last = np.sum(sums**2, axis=2) + (sums[:, :, -1] + bias) ** 2
    first = np.sum((sums + bias) ** 2, axis=2) + bias**2
    np.testing.assert_allclose(found, np.maximum(first, last))


# Coverage.


@pytest.mark.parametrize("precision", [FP32, FP16])
def test_the_bound_covers_terms_that_are_stored_in_order_of_size(monkeypatch, precision):
    rng = np.random.default_rng(15)
    w = np.sort(rng.standard_normal((300, 400)), axis=1).astype(np.float32)
    w -= w.mean(axis=1, keepdims=True)
    model, x = ([Layer("dense", "w")], {"w": w}), np.ones((1, 400))
    output = simulate(model, x, precision, precision)
    assert worst(output, bounded(model, x, precision, accumulation=precision)) <= 1
    monkeypatch.setattr(ops, "squared_partial_sums", lambda *arguments: 0.0)
    assert worst(output, bounded(model, x, precision, accumulation=precision)) > 1


@given(
    seed=st.integers(0, 2**32 - 1),
    widths=widths,
    activation=st.sampled_from(ACTIVATIONS),
    kind=st.sampled_from(KINDS),
    arithmetic=st.sampled_from(ARITHMETICS),
    io=st.sampled_from([FP32, FP16]),
)
@settings(deadline=None, max_examples=150)
def test_the_bound_covers_roundings_of_a_tied_stack(seed, widths, activation, kind, arithmetic, io):
    rng = np.random.default_rng(seed)
    model = tied_stack(rng, tuple(widths), activation, kind)
    x = sparse_images(rng, 8, widths[0])
    precision, accumulation = arithmetic
    reference = bounded(model, x, precision, accumulation=accumulation, io=io)
    assert worst(simulate(model, x, precision, accumulation, io), reference) <= 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("precision", "accumulation"), ARITHMETICS)
def test_the_bound_covers_long_sums_and_is_not_vacuous(kind, precision, accumulation):
    rng = np.random.default_rng(3)
    model = tied_stack(rng, (784, 784, 392, 196), "relu", kind)
    x = sparse_images(rng, 2, 784)
    reference = bounded(model, x, precision, accumulation=accumulation)
    output = simulate(model, x, precision, accumulation)
    assert worst(output, reference) <= 1
    if kind == "random signs":
        error = np.abs(output - reference.value)
        assert np.median(reference.bound / np.maximum(error, 1e-300)) < 300


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("precision", "accumulation"), ARITHMETICS)
def test_the_bound_covers_roundings_of_convolutions(activation, precision, accumulation):
    rng = np.random.default_rng(4)
    model = conv_stack(rng, activation)
    x = rng.random((8, 3, 8, 5))
    reference = bounded(model, x, precision, accumulation=accumulation)
    assert worst(simulate(model, x, precision, accumulation), reference) <= 1


def test_the_bound_covers_one_sign_sums_that_begin_to_stagnate(monkeypatch):
    rng = np.random.default_rng(6)
    model = ([Layer("dense", "w")], {"w": (rng.random((50, 4096)) / 2048).astype(np.float32)})
    x = rng.random((8, 4096))
    output = simulate(model, x, FP16, FP16)
    assert worst(output, bounded(model, x, FP16, accumulation=FP16)) <= 1
    monkeypatch.setattr(errors.Errors, "known", lambda self: np.abs(self.rounded - self.golden))
    assert worst(output, bounded(model, x, FP16, accumulation=FP16)) > 1  # without the drift


@pytest.mark.parametrize("scale", [1.0, 2.0**-12, 2.0**-20])
@pytest.mark.parametrize(("precision", "accumulation"), ARITHMETICS)
def test_the_bound_covers_subnormal_weights_and_inputs(scale, precision, accumulation):
    rng = np.random.default_rng(7)
    smallest_normal = float(np.finfo(np.float16).tiny)
    model = (
        [Layer("dense", "w", "b"), Layer("relu"), Layer("dense", "w", transposed=True)],
        {
            "w": (rng.standard_normal((13, 29)) * scale).astype(np.float32),
            "b": (rng.standard_normal(13) * smallest_normal).astype(np.float32),
        },
    )
    x = rng.random((16, 29)) * smallest_normal
    reference = bounded(model, x, precision, accumulation=accumulation)
    assert worst(simulate(model, x, precision, accumulation), reference) <= 1


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_bound_covers_a_runtime_that_keeps_more_than_it_must(precision, activation):
    rng = np.random.default_rng(12)
    layers, weights = tied_stack(rng, (127, 61, 31, 7), activation, "random signs")
    x = sparse_images(rng, 16, 127)
    reference = bounded((layers, weights), x, precision)
    stored = {name: w.astype(precision.dtype).astype(np.float64) for name, w in weights.items()}
    rounded = x.astype(np.float32).astype(precision.dtype).astype(np.float64)
    assert worst(forward(layers, stored, rounded), reference) <= 1
    assert worst(forward(layers, stored, x), reference) <= 1
    assert worst(simulate((layers, stored), x, FP32), reference) <= 1


def test_only_the_probes_cover_errors_that_many_units_share(monkeypatch):
    rng = np.random.default_rng(8)
    probed, squared_weights = [], []
    for _ in range(20):
        x = rng.integers(0, 16, (1, 300)) / 16
        model = cancelling_stack(rng, x)
        output = simulate(model, x, FP16)
        probed.append(worst(output, bounded(model, x, FP16)))
        with monkeypatch.context() as patch:
            patch.setattr(errors, "PROBE_QUANTILE", 0.0)
            squared_weights.append(worst(output, bounded(model, x, FP16)))
    assert max(probed) <= 1
    assert max(squared_weights) > 1


# Faults.


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("bias", ["e0", "e1", "e2", "d0", "d1", "d2"])
def test_a_dropped_bias_exceeds_the_bound(precision, bias):
    rng = np.random.default_rng(9)
    layers, weights = tied_stack(rng, (127, 61, 31, 7), "relu", "random signs")
    x = sparse_images(rng, 8, 127)
    dropped = weights | {bias: np.zeros_like(weights[bias])}
    assert (
        worst(simulate((layers, dropped), x, precision), bounded((layers, weights), x, precision))
        > 1
    )


@pytest.mark.parametrize("precision", Precision)
def test_a_weight_transposed_wrongly_exceeds_the_bound(precision):
    rng = np.random.default_rng(10)
    layers, weights = tied_stack(rng, (61, 61, 61), "relu", "random signs")
    x = sparse_images(rng, 8, 61)
    reference = bounded((layers, weights), x, precision)
    for i, layer in enumerate(layers):
        if layer.op == "dense":
            flipped = Layer("dense", layer.weight, layer.bias, transposed=not layer.transposed)
            wrong = [*layers[:i], flipped, *layers[i + 1 :]]
            assert worst(simulate((wrong, weights), x, precision), reference) > 1


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize(("declared", "actual"), [(FP32, FP16), (FP32, BF16), (FP16, BF16)])
def test_one_layer_in_a_lower_precision_than_declared_exceeds_the_bound(
    activation, declared, actual
):
    rng = np.random.default_rng(11)
    layers, weights = tied_stack(rng, (127, 61, 31), activation, "random signs")
    x = sparse_images(rng, 32, 127)
    reference = bounded((layers, weights), x, declared)
    assert worst(simulate((layers, weights), x, declared), reference) <= 1
    others = dict.fromkeys(weights, declared)
    for i, layer in enumerate(layers):
        if layer.op == "dense":
            alone = [*layers[:i], replace(layer, weight="alone"), *layers[i + 1 :]]
            model = alone, weights | {"alone": weights[layer.weight]}
            assert worst(simulate(model, x, actual, kept=others), reference) > 1


# Range.


def test_values_beyond_the_largest_number_are_reported_and_leave_the_bound_finite():
    layers = [Layer("dense", "w"), Layer("tanh")]
    big = {"w": np.full((3, 4), 30_000.0, np.float32)}
    reference = bounded((layers, big), np.ones((2, 4)), FP16)
    assert reference.overflow.startswith("the output of layer 0 (dense) may overflow fp16: 1.2e+05")
    assert np.isfinite(reference.bound).all()
    assert bounded((layers, big), np.ones((2, 4)), BF16).overflow == ""


@pytest.mark.parametrize(
    ("weight", "bias", "x", "where"),
    [
        (1e5, 0.0, 1e-3, "a weight"),
        (1.0, 1e5, 1e-3, "bias b"),
        (1e-3, 0.0, 1e5, "the input"),
    ],
)
def test_an_overflow_names_what_overflows(weight, bias, x, where):
    layers = [Layer("dense", "w", "b")]
    weights = {"w": np.full((2, 3), weight, np.float32), "b": np.full(2, bias, np.float32)}
    reference = bounded((layers, weights), np.full((1, 3), x), FP16)
    assert reference.overflow.startswith(f"{where} may overflow fp16")
