"""The parsed network, evaluated, against exact values of the ONNX graph that it was parsed from."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import needs_rtx
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import MULTILINEAR, RandomGraph, exact, random_graphs

from tiedexport import network, trt
from tiedexport.network.evaluate import evaluate
from tiedexport.spec import Precision

pytestmark = needs_rtx
FP32, FP16, BF16 = Precision


def handle() -> trt.Handle:
    return trt.load("tensorrt_rtx")


def check(graph: RandomGraph, batch: int, *, weights_as_inputs: bool) -> None:
    """Every node's result is its exact value of the operands it got, rounded, within the bound."""
    model = graph.model(weights_as_inputs=weights_as_inputs)
    parsed = network.parse(handle(), model.SerializeToString())
    x = graph.random.normal(size=(batch, *graph.input_shape)).astype(graph.precision.dtype)
    wanted = {value for node in graph.nodes for value in node.output}
    feeds = {"x": x, **graph.weights} if weights_as_inputs else {"x": x}
    found = feeds | graph.weights | evaluate(parsed, feeds, wanted)
    makers = {node.output[0]: node for node in graph.nodes}
    for node in graph.nodes:
        operands, result = [found[name] for name in node.input], found[node.output[0]]
        value = exact(node, operands)
        assert result.dtype == graph.precision.dtype
        assert result.shape == value.shape
        error = np.abs(result.astype(np.float64) - value)
        allowed = bound(graph.precision, node, operands, value)
        if node.op_type == "Add":  # it may get a product that is not rounded yet
            for name, operand in zip(node.input, operands, strict=True):
                if name in makers and makers[name].op_type in MULTILINEAR:
                    allowed = allowed + rounding(graph.precision, operand.astype(np.float64))
        assert np.all(error <= allowed), (node.op_type, float(np.max(error / allowed)))


def rounding(precision: Precision, value: np.ndarray) -> np.ndarray:
    return precision.unit_roundoff * np.abs(value) * (1 + 1e-6) + precision.underflow


def bound(precision, node, operands, value) -> np.ndarray:
    """Rounding the result once, and of what is summed in float32 every product and partial sum."""
    allowed = rounding(precision, value)
    if node.op_type in MULTILINEAR:
        magnitudes = exact(node, [np.abs(operand.astype(np.float64)) for operand in operands])
        terms = 2 + max(operand.size for operand in operands[1:])
        # With factors, or more padding behind than is cut off, the parser makes several layers.
        several = {a.name for a in node.attribute} & {"alpha", "beta", "output_padding"}
        steps = 4 * rounding(precision, magnitudes) if several else 0.0
        return allowed + terms * FP32.unit_roundoff * magnitudes + steps
    scale = np.max([np.abs(operand).max() for operand in operands if operand.size], initial=1.0)
    # Attributes such as alpha are float32, and so is the evaluation of what has 16 bits.
    return allowed + 8 * FP32.unit_roundoff * float(scale)


@pytest.mark.parametrize("precision", Precision)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), batch=st.integers(1, 3), weights_as_inputs=st.booleans())
def test_every_value_of_a_random_graph_is_right_and_has_its_name(
    precision: Precision, data: st.DataObject, batch: int, weights_as_inputs: bool
):
    check(data.draw(random_graphs(precision)), batch, weights_as_inputs=weights_as_inputs)
