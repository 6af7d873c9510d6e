"""What shares a weight or a bias shares a type, and names say which stay in fp32."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from scaled_stacks import HUGE, samples, stack, types_of

from tiedexport.errors import UsageError
from tiedexport.precision_choice import choose, groups, keep_in_fp32, stored_types
from tiedexport.rounding import layer_types
from tiedexport.spec import WEIGHTED_OPS, Layer, Precision

FP32, FP16, BF16 = Precision


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("a", "x"), ("b", "y"), ("a", "z")], (("a",), ("b",))),
        ([("a", None), ("b", None)], (("a",), ("b",))),
        ([("a", "x"), ("b", "x"), ("c", "y")], (("a", "b"), ("c",))),
        ([("a", "x"), ("b", "y"), ("c", "y"), ("a", "y")], (("a", "b", "c"),)),
    ],
)
def test_weights_that_share_a_bias_share_a_type(pairs, expected):
    layers = [Layer("dense", weight, bias) for weight, bias in pairs]
    assert groups([Layer("relu"), *layers]) == expected
    types = {name: kind for group, kind in zip(expected, Precision, strict=False) for name in group}
    stored = stored_types(layers, FP32, types)
    assert all(stored[layer.bias] is types[layer.weight] for layer in layers if layer.bias)


def test_two_weights_with_one_bias_are_chosen_together():
    layers, weights = stack(**HUGE)
    shared = [msgspec.structs.replace(la, bias="e0") if la.bias == "d1" else la for la in layers]
    weights["e0"] = np.full(40, 1e5, np.float32)
    choice = choose(shared, weights, samples())
    assert choice.ties[0].weights == ("w0", "w1")
    assert len({types_of(choice)[name] for name in ("w0", "w1")}) == 1


def test_stored_types_are_those_that_layers_compute_in():
    layers, weights = stack()
    kept = {"w1": BF16, "w2": FP32}
    stored = stored_types(layers, FP16, kept)
    assert stored.keys() == weights.keys()
    for layer, kind in zip(layers, layer_types(layers, FP16, kept), strict=True):
        if layer.op in WEIGHTED_OPS:
            assert stored[layer.weight] is stored[layer.bias] is kind


def test_keeping_by_name_touches_every_precision_but_fp32():
    layers, _ = stack()
    kept = {"w1": FP32}
    assert keep_in_fp32(layers, ["w1"], Precision) == {FP16: kept, BF16: kept}
    assert keep_in_fp32(layers, [], Precision) == {}


@pytest.mark.parametrize("name", ["w9", "e0", ""])
def test_an_unknown_name_lists_the_weights(name):
    layers, weights = stack()
    for call in (
        lambda: keep_in_fp32(layers, [name], [FP16]),
        lambda: choose(layers, weights, samples(), keep_fp32=["w0", name]),
    ):
        with pytest.raises(UsageError, match="no weight of this model") as caught:
            call()
        assert caught.value.expected == "w0, w1, w2"
        assert caught.value.got == name
