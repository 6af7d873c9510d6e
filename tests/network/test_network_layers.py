"""Kinds of layers that the random graphs do not reach, and those that are refused by name."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import needs_rtx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tiedexport import network, trt
from tiedexport.errors import RuntimeFailedError
from tiedexport.network.evaluate import evaluate
from tiedexport.network.ops import OPERATIONS
from tiedexport.network.ops_constants import array_of

if TYPE_CHECKING:
    import onnx

pytestmark = needs_rtx
FLOAT = TensorProto.FLOAT
Shape = tuple[int | str, ...]


def model_of(
    nodes: list[onnx.NodeProto], shape: Shape = ("n", 3, 4), **constants: np.ndarray
) -> onnx.ModelProto:
    """A graph from x to y; whatever it reads besides x is a constant."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    graph.output[0].type.tensor_type.elem_type = FLOAT
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def evaluated(model: onnx.ModelProto, x: np.ndarray, wanted: str = "y") -> np.ndarray:
    parsed = network.parse(trt.load("tensorrt_rtx"), model.SerializeToString())
    return evaluate(parsed, {"x": x}, [wanted])[wanted]


def node(op: str, inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], f"the_{op}", **attributes)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(0.5, 2.0, shape).astype(np.float32)


RESHAPED_BY_HAND = [
    node("Shape", "x", "shape"),
    node("Gather", "shape zero", "batch", axis=0),
    node("Unsqueeze", "batch first", "batches"),
    node("Concat", "batches rest", "wanted", axis=0),
    node("Reshape", "x wanted"),
]
HALVED_BY_HAND = [
    node("Shape", "x", "shape"),
    node("Slice", "shape one two", "middle"),
    node("Div", "middle two", "half"),
    node("Sub", "middle half", "rest"),
    node("Concat", "minus half rest minus_one", "wanted", axis=0),
    node("Reshape", "x wanted"),
]
GRAPHS: dict[str, onnx.ModelProto] = {
    "reshaped by a computed shape": model_of(
        RESHAPED_BY_HAND, zero=np.array(0), first=ints(0), rest=ints(-1)
    ),
    "integers divided": model_of(
        [*HALVED_BY_HAND[:3], node("Mul", "half half", "square"),
         node("Concat", "minus_one square", "wanted", axis=0), node("Reshape", "x wanted")],
        ("n", 5, 4), one=ints(1), two=ints(2), minus_one=ints(-1),
    ),
    "squeezed": model_of([node("Squeeze", "x axes")], ("n", 1, 4), axes=ints(1)),
    "unsqueezed": model_of([node("Unsqueeze", "x axes")], axes=ints(-1)),
    "sliced": model_of(
        [node("Slice", "x starts ends axes steps")],
        ("n", 5, 6), starts=ints(1, -1), ends=ints(5, 0), axes=ints(1, 2), steps=ints(2, -2),
    ),
    "gathered": model_of([node("Gather", "x picked", axis=2)], picked=ints(3, 0, 0)),
    "concatenated": model_of([node("Concat", "x w x", axis=1)], (2, 3, 4), w=floats(2, 1, 4)),
    "stacks multiplied": model_of([node("MatMul", "x w")], ("n", 3, 4), w=floats(4, 2)),
    "stack by stack": model_of([node("MatMul", "x x_")], (2, 3, 4), x_=floats(2, 4, 5)),
    "a vector on the right": model_of([node("MatMul", "x w")], w=floats(4)),
    "a vector on the left": model_of([node("MatMul", "w x")], (3, 4), w=floats(3)),
    "two vectors": model_of([node("MatMul", "x w")], (4,), w=floats(4)),
    "transposed on the left": model_of(
        [node("Gemm", "x w b", transA=1, transB=1, alpha=0.5, beta=3.0)],
        (4, 5), w=floats(3, 4), b=floats(3),
    ),
    "a bias first": model_of(
        [node("MatMul", "x w", "product"), node("Add", "b product")], w=floats(4, 2), b=floats(2)
    ),
    "clipped": model_of([node("Clip", "x low high")], low=np.float32(-0.5), high=np.float32(0.7)),
    "to a power": model_of([node("Abs", "x", "a"), node("Pow", "a w")], w=floats(4)),
    "functions": model_of(
        [node("Abs", "x", "a"), node("Sqrt", "a", "b"), node("Exp", "b", "c"),
         node("Log", "c", "d"), node("Reciprocal", "c", "e"), node("Sinh", "e", "f"),
         node("Cosh", "d", "g"), node("Atan", "g", "h"), node("Asinh", "h", "i"),
         node("Tan", "f", "j"), node("Add", "i j")],
    ),
    "a picture in one dimension": model_of(
        [node("Conv", "x w b", pads=[1, 2], strides=[2])],
        ("n", 3, 8), w=floats(2, 3, 3), b=floats(2),
    ),
    "a picture in three": model_of(
        [node("Conv", "x w", dilations=[1, 2, 1])], ("n", 2, 3, 5, 4), w=floats(3, 2, 2, 2, 2)
    ),
    "more padding than is cut off": model_of(
        [node("ConvTranspose", "x w b", strides=[2, 2], output_padding=[1, 0])],
        ("n", 2, 3, 3), w=floats(2, 3, 3, 3), b=floats(3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_a_small_graph_gives_what_onnx_says(name: str):
    model = GRAPHS[name]
    dims = [d.dim_value or 2 for d in model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(0).normal(size=dims).astype(np.float32)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    result = evaluated(model, x)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5, strict=True)


def test_a_bias_that_is_an_input_is_lost_where_the_parser_pads_behind_it():
    """The parser's fault, not the evaluation's: the same graph with a constant is right above."""
    model = GRAPHS["more padding than is cut off"]
    x, bias = np.ones((1, 2, 3, 3), np.float32), floats(3)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    moved = next(t for t in model.graph.initializer if t.name == "b")
    faulty = type(model).FromString(model.SerializeToString())
    faulty.graph.initializer.remove(moved)
    faulty.graph.input.append(helper.make_tensor_value_info("b", FLOAT, [3]))
    parsed = network.parse(trt.load("tensorrt_rtx"), faulty.SerializeToString())
    result = evaluate(parsed, {"x": x, "b": bias}, ["y"])["y"]
    np.testing.assert_allclose(result[:, :, :-1], expected[:, :, :-1], rtol=1e-5)
    np.testing.assert_array_equal(result[:, :, -1], 0.0)
    np.testing.assert_allclose(expected[0, :, -1], np.tile(bias[:, None], 7), rtol=1e-5)


def test_results_are_copies_that_outlive_the_network():
    model = model_of(
        [node("Transpose", "w", "t", perm=[1, 0]), node("MatMul", "x t")], w=floats(2, 4)
    )
    x = np.ones((1, 3, 4), np.float32)
    weight, given = (evaluated(model, x, name) for name in ("t", "x"))
    np.testing.assert_array_equal(weight, floats(2, 4).T)
    assert weight.flags.owndata
    assert weight.flags.c_contiguous
    assert not np.shares_memory(given, x)


# Refusals.


REFUSED: dict[str, tuple[onnx.ModelProto, tuple[str, ...]]] = {
    "a kind": (model_of([node("Softmax", "x")]), ("the_Softmax", "SOFTMAX", "MATRIX_MULTIPLY")),
    "a kind with two results": (
        model_of([helper.make_node("TopK", ["x", "k"], ["y", "i"], "the_TopK")], k=ints(2)),
        ("the_TopK", "TOPK"),
    ),
    "a way of padding": (
        model_of([node("Pad", "x pads", mode="reflect")], pads=ints(0, 0, 1, 0, 0, 1)),
        ("the_Pad", "REFLECT"),
    ),
    "a way of gathering": (
        model_of([node("GatherND", "x at")], (2, 3, 4), at=np.array([[0, 1]])),
        ("the_GatherND", "ND"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_evaluated_is_refused_by_its_name(name: str):
    model, words = REFUSED[name]
    dims = [d.dim_value or 2 for d in model.graph.input[0].type.tensor_type.shape.dim]
    with pytest.raises(RuntimeFailedError) as refusal:
        evaluated(model, np.ones(dims, np.float32))
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize(
    "x",
    [np.ones((2, 3, 4), np.float16), np.ones((2, 3, 5), np.float32), np.ones((2, 3), np.float32)],
)
def test_a_feed_that_does_not_fit_is_refused(x: np.ndarray):
    model = model_of([node("Relu", "x")])
    with pytest.raises(RuntimeFailedError, match=r"float32 \[-1, 3, 4\]"):
        evaluated(model, x)


def test_a_missing_feed_and_a_tensor_that_is_not_there_are_named():
    parsed = network.parse(
        trt.load("tensorrt_rtx"), model_of([node("Relu", "x")]).SerializeToString()
    )
    with pytest.raises(RuntimeFailedError, match="nothing"):
        evaluate(parsed, {}, ["y"])
    with pytest.raises(RuntimeFailedError, match="nonsense"):
        evaluate(parsed, {"x": np.ones((1, 3, 4), np.float32)}, ["nonsense"])


def test_two_layers_of_one_tensor_are_refused():
    model = model_of([node("Relu", "x")])
    parsed = network.parse(trt.load("tensorrt_rtx"), model.SerializeToString())
    (relu,) = parsed.nodes
    parsed.__dict__["nodes"] = (relu, network.Node(relu.kind, relu.layer))
    with pytest.raises(RuntimeFailedError, match="two layers give one tensor"):
        evaluate(parsed, {"x": np.ones((1, 3, 4), np.float32)}, ["y"])


def test_weights_of_other_types_or_in_unknown_objects_are_refused_instead_of_misread():
    module = trt.load("tensorrt_rtx").module
    numbers = np.zeros(4, np.uint8)
    eight_bits = module.Weights(module.DataType.FP8, numbers.ctypes.data, numbers.size)
    with pytest.raises(ValueError, match="FP8"):
        array_of(module, eight_bits)
    elsewhere = ModuleType("elsewhere")
    elsewhere.DataType, elsewhere.Weights = module.DataType, lambda *_: module.Weights()
    sixteen_bits = module.Weights(module.DataType.BF16, numbers.ctypes.data, 2)
    with pytest.raises(ValueError, match="do not show weights of type BF16"):
        array_of(elsewhere, sixteen_bits)
    np.testing.assert_array_equal(array_of(module, sixteen_bits).view(np.uint8), numbers)


def test_a_result_of_another_shape_than_declared_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(OPERATIONS, "ACTIVATION", lambda layer, module, operands: operands[0][0])
    with pytest.raises(RuntimeFailedError, match=r"the_Relu \(ACTIVATION\)\n.*\[3, 4\]\n"):
        evaluated(model_of([node("Relu", "x")]), np.ones((1, 3, 4), np.float32))


def test_an_input_of_a_type_that_is_not_evaluated_is_named():
    model = model_of([node("Cast", "x", to=FLOAT)])
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    with pytest.raises(RuntimeFailedError, match="UINT8"):
        evaluated(model, np.ones((1, 3, 4), np.uint8))
