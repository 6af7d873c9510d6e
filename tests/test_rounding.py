"""The forward error bound: float64 values, coverage of simulated roundings, and planted faults.

The simulation shares nothing with the bound: torch makes each linear map's dense matrix, numpy adds
its products one by one in the type of accumulation.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812

from tiedexport import rounding
from tiedexport.rounding import LAMBDA, PROBE_QUANTILE, PROBES, Bounded, forward, forward_bound
from tiedexport.rounding.ops import BLOCK_BYTES, slope
from tiedexport.spec import ACTIVATIONS, WEIGHTED_OPS, Layer, Precision

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    Weights = dict[str, np.ndarray[Any, Any]]
    Model = tuple[list[Layer], Weights]

torch.set_num_threads(1)

FP32, FP16, BF16 = Precision
ARITHMETICS = [(FP32, FP32), (FP16, FP32), (BF16, FP32), (FP16, FP16)]
KINDS = ["random signs", "one sign", "rank 1", "rank 4"]
TORCH = {"relu": torch.relu, "gelu": F.gelu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}


def linear(layer: Layer, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    if layer.op == "dense":
        return F.linear(x, w.T if layer.transposed else w)
    if layer.op == "conv":
        return F.conv2d(x, w, stride=layer.strides, padding=layer.pads)
    return F.conv_transpose2d(
        x, w, stride=layer.strides, padding=layer.pads, output_padding=layer.output_padding
    )


def simulate(
    model: Model,
    x: np.ndarray,
    precision: Precision,
    accumulation: Precision = FP32,
    io: Precision = FP32,
    lowered: Mapping[int, Precision] | None = None,
) -> np.ndarray:
    """Run a stage as the slowest and least exact runtime would; some layers in a lower type."""
    layers, weights = model
    last = max((i for i, layer in enumerate(layers) if layer.op in WEIGHTED_OPS), default=-1)
    h = x.astype(io.dtype).astype(precision.dtype)
    for i, layer in enumerate(layers):
        if layer.op == "reshape":
            h = h.reshape(len(h), *layer.shape)
        elif layer.op in WEIGHTED_OPS:
            storage = (lowered or {}).get(i, precision)
            h = weighed(layer, weights, h.astype(storage.dtype), accumulation)
            h = h.astype(precision.dtype)
            h = h.astype(np.float32) if i == last else h
        else:
            h = h.astype(np.float32)
            h = TORCH[layer.op](torch.from_numpy(h)).numpy()
            h = h if i > last else h.astype(precision.dtype)
    return h.astype(io.dtype).astype(np.float64)


def weighed(layer: Layer, weights: Weights, h: np.ndarray, accumulation: Precision) -> np.ndarray:
    storage, size = h.dtype, int(np.prod(h.shape[1:]))
    stored = torch.from_numpy(weights[layer.weight].astype(storage).astype(np.float64))
    eye = torch.eye(size, dtype=torch.float64).reshape(size, *h.shape[1:])
    image = linear(layer, eye, stored)
    matrix = image.reshape(size, -1).numpy().astype(accumulation.dtype)
    terms = h.reshape(len(h), -1).astype(accumulation.dtype)
    total = np.zeros((len(h), matrix.shape[1]), accumulation.dtype)
    for k in range(size):
        total = total + terms[:, k : k + 1] * matrix[k]
    if layer.bias is not None:
        bias = weights[layer.bias].astype(storage).astype(accumulation.dtype)
        total = total + np.repeat(bias, matrix.shape[1] // len(bias))
    return total.astype(storage).reshape(len(h), *image.shape[1:])


def matrix(rng: np.random.Generator, rows: int, columns: int, kind: str) -> np.ndarray:
    if kind == "random signs":
        return rng.standard_normal((rows, columns)) * np.sqrt(2 / columns)
    if kind == "one sign":
        return rng.random((rows, columns)) * 2 / columns
    rank = int(kind.split()[1])
    low = rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns))
    return 1.5 * low / np.sqrt(rows * columns)


def tied_stack(
    rng: np.random.Generator, widths: tuple[int, ...], activation: str, kind: str
) -> Model:
    layers: list[Layer] = []
    mirrored: list[Layer] = []
    weights: Weights = {}
    for i, (wide, narrow) in enumerate(pairwise(widths)):
        weights[f"w{i}"] = matrix(rng, narrow, wide, kind).astype(np.float32)
        weights[f"e{i}"] = (0.05 * rng.standard_normal(narrow)).astype(np.float32)
        weights[f"d{i}"] = (0.05 * rng.standard_normal(wide)).astype(np.float32)
        layers += [Layer("dense", f"w{i}", f"e{i}"), Layer(activation)]
        output = Layer(activation if i else "sigmoid")
        mirrored = [Layer("dense", f"w{i}", f"d{i}", transposed=True), output, *mirrored]
    return layers + mirrored, weights


def conv_stack(rng: np.random.Generator, activation: str = "relu") -> Model:
    geometry = {"strides": (2, 2), "pads": (1, 1)}
    weights = {
        "k": rng.standard_normal((5, 3, 3, 3)) * np.sqrt(2 / 27),
        "a": 0.05 * rng.standard_normal(5),
        "w": rng.standard_normal((7, 5 * 4 * 3)) * np.sqrt(2 / 60),
        "b": 0.05 * rng.standard_normal(3),
    }
    layers = [
        Layer("conv", "k", "a", **geometry),
        Layer(activation),
        Layer("reshape", shape=(60,)),
        Layer("dense", "w"),
        Layer("dense", "w", transposed=True),
        Layer(activation),
        Layer("reshape", shape=(5, 4, 3)),
        Layer("conv_transpose", "k", "b", output_padding=(1, 0), **geometry),
        Layer("sigmoid"),
    ]
    return layers, {name: w.astype(np.float32) for name, w in weights.items()}


def sparse_images(rng: np.random.Generator, n: int, size: int) -> np.ndarray:
    images: np.ndarray = (rng.random((n, size)) < 0.3) * rng.random((n, size))
    return images


def bounded(model: Model, x: np.ndarray, precision: Precision, **types: Precision) -> Bounded:
    types = {"accumulation": FP32, "io": FP32} | types
    return forward_bound(*model, x, precision=precision, **types)


def worst(output: np.ndarray, reference: Bounded) -> float:
    return float(np.max(np.abs(output - reference.value) / reference.bound))


widths = st.lists(st.sampled_from([1, 2, 3, 7, 16, 31, 61, 127]), min_size=2, max_size=4)


# Values.


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


# Coverage.


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


@pytest.mark.parametrize(("precision", "accumulation"), ARITHMETICS)
def test_the_bound_covers_one_sign_sums_that_begin_to_stagnate(precision, accumulation):
    rng = np.random.default_rng(6)
    model = tied_stack(rng, (2500, 11), "relu", "one sign")
    x = sparse_images(rng, 4, 2500)
    reference = bounded(model, x, precision, accumulation=accumulation)
    assert worst(simulate(model, x, precision, accumulation), reference) <= 1


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


def cancelling_stack(rng: np.random.Generator, x: np.ndarray) -> Model:
    """Rank one after a sum that its bias cancels: one error, spread over every unit, adds up."""
    n = x.shape[1]
    w = rng.standard_normal((n, n)).astype(np.float16)
    u = rng.standard_normal(n).astype(np.float16)
    v = (1 + rng.integers(0, 16, n) / 16).astype(np.float16)
    total = (u.astype(np.float64) @ w.astype(np.float64) @ x[0]) * v.astype(np.float64)
    weights = {"w": w, "uv": v[:, None] * u, "b": -total.astype(np.float16), "mean": v[None] / n}
    layers = [Layer("dense", "w"), Layer("dense", "uv", "b"), Layer("dense", "mean")]
    return layers, {name: array.astype(np.float32) for name, array in weights.items()}


def test_only_the_probes_cover_errors_that_many_units_share(monkeypatch):
    rng = np.random.default_rng(8)
    probed, squared_weights = [], []
    for _ in range(20):
        x = rng.integers(0, 16, (1, 300)) / 16
        model = cancelling_stack(rng, x)
        output = simulate(model, x, FP16)
        probed.append(worst(output, bounded(model, x, FP16)))
        with monkeypatch.context() as patch:
            patch.setattr(rounding, "PROBE_QUANTILE", 0.0)
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
    model = tied_stack(rng, (127, 61, 31), activation, "random signs")
    x = sparse_images(rng, 32, 127)
    reference = bounded(model, x, declared)
    assert worst(simulate(model, x, declared), reference) <= 1
    for i, layer in enumerate(model[0]):
        if layer.op == "dense":
            assert worst(simulate(model, x, declared, lowered={i: actual}), reference) > 1


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
