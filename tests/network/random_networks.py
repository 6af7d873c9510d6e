"""Random ONNX graphs of what the families are made of, a node at a time, and their exact values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator

from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

OPSET = 22
ELEMENT_TYPES = {Precision.FP32: 1, Precision.FP16: 10, Precision.BF16: 16}
MULTILINEAR = ("Gemm", "MatMul", "Conv", "ConvTranspose")
ACTIVATIONS: dict[str, dict[str, Any]] = {
    "Relu": {}, "Sigmoid": {}, "Tanh": {}, "LeakyRelu": {"alpha": 0.2}, "Elu": {"alpha": 0.7},
    "Selu": {"alpha": 1.6, "gamma": 1.1}, "Softsign": {}, "Softplus": {},
    "HardSigmoid": {"alpha": 0.3, "beta": 0.4},
    "ThresholdedRelu": {"alpha": 0.3}, "Gelu": {}, "Neg": {}, "Abs": {}, "Sin": {}, "Cos": {},
    "Floor": {}, "Ceil": {}, "Round": {}, "Sign": {}, "Erf": {}, "Identity": {},
}  # fmt: skip
# The parser's defaults for Selu, 1.6732 and 1.0507, are not ONNX's: said outright, they are.
BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min")


@dataclass
class RandomGraph:
    """Nodes in a row; the last value is [n, *shape]."""

    precision: Precision
    shape: tuple[int, ...]
    random: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.input_shape = self.shape
        self.values: dict[str, tuple[int, ...]] = {"x": self.shape}

    @property
    def last(self) -> str:
        return self.nodes[-1].output[0] if self.nodes else "x"

    def add(self, op: str, inputs: list[str], shape: tuple[int, ...], **attributes: Any) -> None:
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_out"], name, **attributes))
        self.shape = self.values[f"{name}_out"] = shape

    def weight(self, *shape: int, low: float | None = None) -> str:
        """A weight of the graph's type; about normal, or between `low` and 2."""
        name = f"w{len(self.weights)}"
        fan = math.prod(shape[1:]) if len(shape) > 1 else 1
        made = self.random.normal(size=shape) / math.sqrt(fan)
        made = made if low is None else self.random.uniform(low, 2.0, shape)
        self.weights[name] = made.astype(self.precision.dtype)
        return name

    def model(self, *, weights_as_inputs: bool = False) -> onnx.ModelProto:
        kind = ELEMENT_TYPES[self.precision]
        inputs = [helper.make_tensor_value_info("x", kind, ["n", *self.input_shape])]
        tensors = []
        for name, weight in self.weights.items():
            if weights_as_inputs and weight.dtype == self.precision.dtype:
                inputs.append(helper.make_tensor_value_info(name, kind, weight.shape))
            else:
                element = kind if weight.dtype == self.precision.dtype else 7
                raw = weight.tobytes()
                tensors.append(helper.make_tensor(name, element, weight.shape, raw, raw=True))
        outputs = [helper.make_tensor_value_info(self.last, kind, ["n", *self.shape])]
        graph = helper.make_graph(self.nodes, "random", inputs, outputs, tensors)
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=10)

    def shapes(self, *dims: int) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = np.array(dims, np.int64)
        return name


def exact(node: onnx.NodeProto, operands: list[np.ndarray]) -> np.ndarray:
    """A node in float64."""
    wide = [o if o.dtype == np.int64 else o.astype(np.float64) for o in operands]
    if node.op_type == "ConvTranspose":
        return _conv_transposed(node, wide)
    model = helper.make_model(
        helper.make_graph(
            [node],
            "one",
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(o.dtype), None)
                for name, o in zip(node.input, wide, strict=True)
            ],
            [helper.make_tensor_value_info(node.output[0], 11, None)],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    feeds = dict(zip(node.input, wide, strict=True))
    (result,) = ReferenceEvaluator(model).run(None, feeds)
    return np.asarray(result)


def _conv_transposed(node: onnx.NodeProto, operands: list[np.ndarray]) -> np.ndarray:
    """By torch: onnx's own evaluator fails on groups."""
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    x, kernel, *bias = map(torch.from_numpy, operands)
    strides, extra, groups = found["strides"], found["output_padding"], found["group"]
    y = torch.nn.functional.conv_transpose2d(x, kernel, stride=strides, groups=groups)
    y = torch.nn.functional.pad(y, (0, extra[1], 0, extra[0]))
    top, left, bottom, right = found["pads"]
    y = y[:, :, top : y.shape[2] - bottom, left : y.shape[3] - right]
    return (y + bias[0].reshape(-1, 1, 1) if bias else y).numpy()


def _gemm(graph: RandomGraph, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    width, out = graph.shape[0], draw(st.integers(1, 6))
    transposed = draw(st.booleans())
    inputs = [graph.last, graph.weight(*((out, width) if transposed else (width, out)))]
    if draw(st.booleans()):
        graph.add("Transpose", [inputs[1]], (), perm=[1, 0])
        del graph.values[graph.last]  # a weight, not the value that the chain goes on with
        inputs[1], transposed = graph.last, not transposed
    if draw(st.booleans()):
        graph.add("MatMul", inputs, (out,)) if not transposed else graph.add(
            "Gemm", inputs, (out,), transB=1
        )
        return
    scales = draw(st.sampled_from([{}, {"alpha": 0.5}, {"beta": 2.0}]))
    graph.add("Gemm", [*inputs, graph.weight(out)], (out,), transB=int(transposed), **scales)


def _activation(graph: RandomGraph, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    op = draw(st.sampled_from(sorted(ACTIVATIONS)))
    attributes = dict(ACTIVATIONS[op])
    if op == "Gelu":
        attributes["approximate"] = draw(st.sampled_from(["none", "tanh"]))
    graph.add(op, [graph.last], graph.shape, **attributes)


def _binary(graph: RandomGraph, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    op = draw(st.sampled_from(BINARY))
    same = sorted(name for name, shape in graph.values.items() if shape == graph.shape)
    shape = [n if draw(st.booleans()) else 1 for n in graph.shape][draw(st.integers(0, 1)) :]
    other = graph.weight(*shape, low=0.5)
    if op != "Div" and draw(st.booleans()):
        other = draw(st.sampled_from(same))
    graph.add(op, [graph.last, other], graph.shape)


def _reshape(graph: RandomGraph, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    size = math.prod(graph.shape)
    if len(graph.shape) > 1:
        if draw(st.booleans()):
            graph.add("Flatten", [graph.last], (size,))
        else:
            dims = draw(st.sampled_from([(0, -1), (-1, size), (0, size)]))
            graph.add("Reshape", [graph.last, graph.shapes(*dims)], (size,))
        return
    sides = [n for n in range(1, size + 1) if size % n == 0]
    channels = draw(st.sampled_from(sides))
    rest = size // channels
    height = draw(st.sampled_from([n for n in sides if rest % n == 0]))
    shape = (channels, height, rest // height)
    graph.add("Reshape", [graph.last, graph.shapes(0, *shape)], shape)


def _transpose(graph: RandomGraph, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    order = draw(st.permutations(range(len(graph.shape))))
    shape = tuple(graph.shape[axis] for axis in order)
    graph.add("Transpose", [graph.last], shape, perm=[0, *(axis + 1 for axis in order)])


def _conv(graph: RandomGraph, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    channels, *extents = graph.shape
    groups = draw(st.sampled_from([g for g in (1, 2, 3) if channels % g == 0]))
    maps = groups * draw(st.integers(1, 3))
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, strides, dilations = draw(pair), draw(pair), draw(pair)
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    before = [draw(st.integers(0, 2)) for _ in kernel]
    after = [
        max(draw(st.integers(0, 2)), r - n - b)
        for r, n, b in zip(reach, extents, before, strict=True)
    ]
    out = [
        (n + b + a - r) // s + 1
        for n, b, a, r, s in zip(extents, before, after, reach, strides, strict=True)
    ]
    inputs = [graph.last, graph.weight(maps, channels // groups, *kernel)]
    inputs += [graph.weight(maps)] if draw(st.booleans()) else []
    graph.add(
        "Conv",
        inputs,
        (maps, *out),
        kernel_shape=kernel,
        strides=strides,
        dilations=dilations,
        pads=[*before, *after],
        group=groups,
    )


def _conv_transpose(graph: RandomGraph, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    channels, *extents = graph.shape
    groups = draw(st.sampled_from([g for g in (1, 2, 3) if channels % g == 0]))
    maps = groups * draw(st.integers(1, 3))
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, strides = draw(pair), draw(pair)
    extra = [draw(st.integers(0, s - 1)) for s in strides]
    full = [(n - 1) * s + k for n, s, k in zip(extents, strides, kernel, strict=True)]
    # What is cut off, of which at least one stays; output_padding is part of the last cut.
    before = [draw(st.integers(0, min(1, f - 1))) for f in full]
    after = [
        draw(st.integers(min(e, f - b - 1), max(min(e, f - b - 1), min(2, f - b - 1))))
        for e, f, b in zip(extra, full, before, strict=True)
    ]
    out = [f - b - a + e for f, b, a, e in zip(full, before, after, extra, strict=True)]
    inputs = [graph.last, graph.weight(channels, maps // groups, *kernel)]
    # Else the parser forgets a bias that is an input: test_network_layers.py shows it.
    cut_off = all(a >= e for a, e in zip(after, extra, strict=True))
    inputs += [graph.weight(maps)] if cut_off and draw(st.booleans()) else []
    graph.add(
        "ConvTranspose",
        inputs,
        (maps, *out),
        kernel_shape=kernel,
        strides=strides,
        pads=[*before, *after],
        output_padding=extra,
        group=groups,
    )


@st.composite
def random_graphs(
    draw: Callable[[st.SearchStrategy[Any]], Any], precision: Precision
) -> RandomGraph:
    """Up to six steps from a row of numbers or from a picture."""
    shape = draw(st.one_of(st.tuples(st.integers(1, 8)), st.tuples(*[st.integers(1, 5)] * 3)))
    graph = RandomGraph(precision, shape, np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    for _ in range(draw(st.integers(1, 6))):
        rows, pictures = [_gemm, _reshape], [_conv, _conv_transpose, _reshape, _transpose]
        steps = [_activation, _binary, *(rows if len(graph.shape) == 1 else pictures)]
        draw(st.sampled_from(steps))(graph, draw)
    return graph
