"""Each tie gets the type that the evidence asks for, whatever the others get."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scaled_stacks import HUGE, TINY, named, samples, stack, types_of
from simulated_roundings import conv_stack

from tiedexport.precision_choice import choose
from tiedexport.results.precision import TieChoice
from tiedexport.rounding import forward_bound
from tiedexport.spec import ACTIVATIONS, Layer, Precision

FP32, FP16, BF16 = Precision


# What is chosen.


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_model_of_ordinary_numbers_is_fp16_throughout(activation):
    choice = choose(*stack(activation), samples())
    assert (choice.precisions, choice.kept) == ((FP32, FP16), {})
    assert all(max(tie.errors.values()) < 1 for tie in choice.ties if tie.errors)


def test_ties_that_would_overflow_fp16_are_bf16_and_the_others_fp16():
    choice = choose(*stack(**HUGE), samples())
    # w1 has small numbers of its own, but the large ones are its input.
    assert types_of(choice) == {"w0": BF16, "w1": BF16, "w2": FP16}
    assert choice.precisions == (FP32, BF16)
    assert choice.kept == {BF16: {"w2": FP16}}
    assert [tie.peak > 65504 for tie in choice.ties] == [True, True, False]
    assert [FP16 in tie.errors for tie in choice.ties] == [False, False, True]
    assert "overflow fp16" in choice.lines[1]
    assert "headroom" in choice.lines[3]


def test_ties_whose_numbers_would_underflow_with_an_effect_are_bf16():
    choice = choose(*stack(**TINY), samples())
    assert types_of(choice) == {"w0": BF16, "w1": BF16, "w2": FP16}
    tiny = choice.ties[0]
    assert tiny.underflow > 0.5
    assert tiny.errors[FP16] > max(tiny.errors[BF16], 1 / 8)
    assert choice.ties[2].underflow < 0.2


def test_a_model_whose_code_is_tiny_is_bf16_throughout():
    choice = choose(*stack(w0=1e-7, e0=1e-7, e1=1e-7, e2=1e-7), samples())
    assert (choice.precisions, choice.kept) == ((FP32, BF16), {})


@pytest.mark.parametrize("name", ["w1", "d0", "e0"])
def test_harmless_underflow_changes_nothing(name):
    layers, weights = stack()
    weights[name] = weights[name] * np.random.default_rng(0).choice([1e-7, 1], weights[name].shape)
    usual, choice = choose(*stack(), samples()), choose(layers, weights, samples())
    assert types_of(choice) == types_of(usual)
    assert sum(t.underflow for t in choice.ties) > sum(t.underflow for t in usual.ties) + 1e-3


def test_underflow_that_no_output_shows_is_harmless_though_bf16_were_more_exact():
    # Of a hidden activation of 1e-6 nothing is left behind the next layer's bias.
    first = choose(*stack(w0=1e-6, e0=1e-6, d0=0.0), samples()).ties[0]
    assert first.precision is FP16
    assert first.errors[BF16] < first.errors[FP16] < 1 / 8
    assert first.underflow > 0.5


def test_partial_sums_that_overflow_count_though_they_cancel():
    weights = {"w": np.array([[3e4, -3e4, 1.0]], np.float32), "b": np.ones(3, np.float32)}
    layers = [Layer("dense", "w", output="code"), Layer("dense", "w", "b", transposed=True)]
    (tie,) = choose(layers, weights, np.array([[1.5, 1.5, 1.0]], np.float32)).ties
    assert max(tensor.largest for tensor in tie.tensors) < FP16.largest < tie.peak
    assert tie.precision is not FP16
    assert FP16 not in tie.errors


def test_an_unacceptable_error_in_bf16_makes_it_fp32():
    layers, weights = stack(**HUGE)
    layers = [msgspec.structs.replace(layer, output="") for layer in layers]  # no code to judge
    first = choose(layers, weights, samples(), test_rmse=1.0).ties[0]
    assert first.precision is BF16
    choice = choose(layers, weights, samples(), test_rmse=0.9 * first.errors[BF16])
    assert types_of(choice)["w0"] is FP32
    assert choice.ties[0].errors[BF16] == pytest.approx(1 / 0.9)
    assert choice.precisions == (FP32, FP16)
    assert choice.kept[FP16]["w0"] is FP32


def test_where_nothing_is_acceptable_only_fp32_is_left():
    choice = choose(*stack(), samples(), test_rmse=1e-9)
    assert (choice.precisions, choice.kept) == ((FP32,), {})
    assert all("error in fp16" in line for line in choice.lines[1:])


def test_errors_that_are_acceptable_alone_may_not_be_together():
    layers, weights = stack()
    model = [msgspec.structs.replace(layer, output="") for layer in layers], weights
    alone = [tie.errors[FP16] for tie in choose(*model, samples(), test_rmse=1.0).ties]
    rmse = 1.01 * max(alone)
    choice = choose(*model, samples(), test_rmse=rmse)
    raised = [tie for tie in choice.ties if tie.precision is FP32]
    assert 0 < len(raised) < 3
    worst = max(choice.ties, key=lambda tie: tie.errors[FP16])
    assert worst in raised
    assert all("with those of other ties" in tie.reason for tie in raised)
    kept = choice.kept[FP16]
    together = forward_bound(
        *model, samples(), precision=FP16, accumulation=FP32, io=FP32, kept=kept
    )
    assert math.sqrt(np.mean(together.bound**2)) <= rmse


@pytest.mark.parametrize("name", ["w0", "w1", "w2"])
def test_what_is_asked_for_stays_in_fp32_and_the_others_are_chosen_as_before(name):
    free, asked = (choose(*stack(**HUGE), samples(), keep_fp32=n) for n in ([], [name]))
    assert types_of(asked) == types_of(free) | {name: FP32}
    assert f"{name}  fp32: as asked" in asked.lines


@given(
    seed=st.integers(0, 2**32 - 1),
    exponents=st.lists(st.floats(-9, 6), min_size=3, max_size=3),
    activation=st.sampled_from(ACTIVATIONS),
)
@settings(deadline=None, max_examples=25)
def test_what_is_chosen_neither_overflows_nor_exceeds_what_is_acceptable(
    seed, exponents, activation
):
    scales = {f"w{i}": 10.0**exponent for i, exponent in enumerate(exponents)}
    layers, weights = stack(activation, seed, **scales)
    choice = choose(layers, weights, samples(8, seed))
    assert choice.precisions[0] is FP32
    assert len(choice.ties) == 3
    for tie in choice.ties:
        assert tie.errors.get(tie.precision, 0.0) <= 1
        assert 0 <= tie.underflow <= 1
        if tie.precision is BF16:
            assert tie.errors.get(FP16, math.inf) > tie.errors[BF16]
    base = choice.precisions[-1]
    kept = choice.kept.get(base, {})
    assert {**dict.fromkeys(("w0", "w1", "w2"), base), **kept} == types_of(choice)
    bounded = forward_bound(
        layers, weights, samples(8, seed), precision=base, accumulation=FP32, io=FP32, kept=kept
    )
    assert bounded.overflow == ""


def test_a_convolutional_stack_is_judged_by_its_kernels_too():
    layers, weights = named(conv_stack(np.random.default_rng(0)))
    x = np.random.default_rng(1).random((8, 3, 8, 5))
    assert types_of(choose(layers, weights, x)) == {"k": FP16, "w": FP16}
    weights["a"] = weights["a"] + np.float32(1e6)
    assert types_of(choose(layers, weights, x)) == {"k": FP32, "w": FP32}


def test_batches_change_nothing(monkeypatch):
    from tiedexport.precision_choice import evidence

    whole = choose(*stack(**HUGE), samples())
    monkeypatch.setattr(evidence, "_BATCH_BYTES", 1)
    pieces = choose(*stack(**HUGE), samples())
    assert types_of(pieces) == types_of(whole)
    for one, other in zip(pieces.ties, whole.ties, strict=True):
        assert one.peak == pytest.approx(other.peak)
        assert one.underflow == other.underflow


# What is said.


def test_every_tensor_that_would_change_its_type_has_its_range():
    layers, weights = stack(**HUGE)
    first, second, third = choose(layers, weights, samples()).ties
    names = [tensor.name for tensor in first.tensors]
    # The encoder's first layer and its activation, and the decoder's last, whose sigmoid is fp32.
    assert names == ["input", "w0", "e0", "h0", "h1", "h9", "d0", "h10"]
    assert {t.name for t in second.tensors} & {t.name for t in third.tensors} == {"h3", "h7"}
    found = {tensor.name: tensor for tensor in (*first.tensors, *second.tensors, *third.tensors)}
    assert found["w1"].largest == np.abs(weights["w1"]).max()
    assert found["h1"].largest > 65504 > found["code"].largest
    assert found["input"].rms == pytest.approx(np.sqrt(np.mean(samples().astype(float) ** 2)))
    assert (found["h1"].underflow, found["w1"].underflow) == (0, 1)
    assert first.peak >= max(tensor.largest for tensor in first.tensors)


def test_a_line_a_tie_says_the_type_and_the_figures():
    choice = choose(*stack(**HUGE), samples(), test_rmse=0.25, random_samples=True)
    first, *lines = choice.lines
    assert first.startswith("calibrated on 32 samples, random in [0, 1): no data was given; ")
    assert "0.25 in the reconstruction, its test RMSE" in first
    assert "in the code" in first
    assert lines == [str(tie) for tie in choice.ties]
    assert "random" not in choose(*stack(), samples()).lines[0]
    for tie, line in zip(choice.ties, lines, strict=True):
        assert line.startswith(f"{tie.weights[0]}  {tie.precision}: |numbers| ≤ ")


def test_the_evidence_survives_json():
    for model in (stack(**HUGE), stack(**TINY)):
        ties = choose(*model, samples()).ties
        assert msgspec.json.decode(msgspec.json.encode(ties), type=tuple[TieChoice, ...]) == ties


@pytest.mark.parametrize("dead", ["code", "everything"])
def test_an_output_that_is_zero_throughout_is_no_division_by_zero(dead):
    layers, weights = stack()
    weights["w2"] = -np.abs(weights["w2"]) * (dead == "code")
    weights["e2"] = weights["e2"] * 0 - 1
    if dead == "everything":
        layers = layers[:-1]
        weights = {name: w * 0 for name, w in weights.items()}
    choice = choose(layers, weights, samples())
    assert all(math.isfinite(error) for tie in choice.ties for error in tie.errors.values())
