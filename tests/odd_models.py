"""Odd but sound ONNX files, and what it takes to write one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WEIGHT = np.random.default_rng(7).standard_normal((24, 40)).astype(np.float32)
OTHER = np.random.default_rng(8).standard_normal((24, 40)).astype(np.float32)
TRANSPOSE = np.ascontiguousarray(WEIGHT.T)


@dataclass(frozen=True)
class Stranger:
    """A file that somebody could hand over.

    Attributes:
        build: writes it into a folder and returns its path.
        broken: reading it is an error.
    """

    build: Callable[[Path], Path]
    broken: bool


ODD: dict[str, Stranger] = {}
"""Name → how to make the file."""


def _whole(make: Callable[[], onnx.ModelProto]) -> Callable[[], onnx.ModelProto]:
    def build(folder: Path) -> Path:
        return written(make().SerializeToString(), folder)

    ODD[make.__name__] = Stranger(build, broken=False)
    return make


def written(data: bytes, folder: Path) -> Path:
    """A file of these bytes."""
    path = folder / "model.onnx"
    path.write_bytes(data)
    return path


def tensor_of(array: np.ndarray, name: str) -> TensorProto:
    """An initializer."""
    return numpy_helper.from_array(array, name)


def model_of(graph: str, *tensors: TensorProto, functions: str = "") -> onnx.ModelProto:
    """A model from ONNX's text form and its initializers."""
    head = '<ir_version: 10, opset_import: ["" : 21, "own" : 1]>'
    model = parser.parse_model(f"{head} {graph} {functions}")
    model.graph.initializer.extend(tensors)
    return model


def _sparse(name: str) -> onnx.SparseTensorProto:
    """A dense shape of [24, 40] with 300 values at random places."""
    places = np.sort(np.random.default_rng(0).permutation(24 * 40)[:300])
    values, indices = tensor_of(WEIGHT.ravel()[:300], name), tensor_of(places, f"{name}_places")
    return helper.make_sparse_tensor(values, indices, [24, 40])


@_whole
def tied_twice_stored() -> onnx.ModelProto:
    """An encoder and a decoder whose weight lies there twice, the second time transposed."""
    return model_of(
        "tied (float[N, 40] x) => (float[N, 40] y) { z = MatMul(x, w) y = MatMul(z, wt) }",
        tensor_of(TRANSPOSE, "w"),
        tensor_of(WEIGHT, "wt"),
    )


@_whole
def unknown_operator() -> onnx.ModelProto:
    text = "odd (float[N, 40] x) => (float[N, 40] y) { z = own.Swirl(x, w) y = own.Unswirl(z, wt) }"
    return model_of(text, tensor_of(TRANSPOSE, "w"), tensor_of(WEIGHT, "wt"))


@_whole
def if_with_same_names() -> onnx.ModelProto:
    """Both branches call their weight w; it is another weight in each."""
    branches = " , ".join(
        f"{name}_branch = {name}_graph () => (float[N, 40] {name}_y) {{ {name}_y = MatMul(x, w) }}"
        for name in ("then", "else")
    )
    model = model_of(
        f"top (float[N, 24] x, bool c) => (float[N, 40] y) {{ [if_0] y = If(c) <{branches}> }}"
    )
    for attribute, weight in zip(model.graph.node[0].attribute, (WEIGHT, OTHER), strict=True):
        attribute.g.initializer.append(tensor_of(weight, "w"))
    return model


@_whole
def if_that_repeats_an_outer_weight() -> onnx.ModelProto:
    model = if_with_same_names()
    model.graph.initializer.append(tensor_of(TRANSPOSE, "outer"))
    model.graph.node.append(helper.make_node("MatMul", ["y", "outer"], ["back"]))
    model.graph.output.append(helper.make_tensor_value_info("back", 1, ["N", 24]))
    return model


@_whole
def loop() -> onnx.ModelProto:
    body = (
        "body (int64 i, bool go, float[N, 24] a) => (bool on, float[N, 24] b) "
        "{ on = Identity(go) h = MatMul(a, inner) b = MatMul(h, outer) }"
    )
    model = model_of(
        f"top (float[N, 24] x, int64 n, bool c) => (float[N, 24] y) {{ y = Loop(n, c, x) "
        f"<body = {body}> }}",
        tensor_of(TRANSPOSE, "outer"),
    )
    model.graph.node[0].attribute[0].g.initializer.append(tensor_of(WEIGHT, "inner"))
    return model


@_whole
def scan() -> onnx.ModelProto:
    body = (
        "body (float[24] a, float[24] s) => (float[24] b, float[40] o) "
        "{ b = Add(a, s) o = MatMul(b, w) }"
    )
    model = model_of(
        "top (float[24] start, float[T, 24] x) => (float[24] end, float[T, 40] y) "
        f"{{ end, y = Scan <num_scan_inputs = 1, body = {body}> (start, x) }}"
    )
    body_graph = next(a.g for a in model.graph.node[0].attribute if a.name == "body")
    body_graph.initializer.append(tensor_of(WEIGHT, "w"))
    return model


@_whole
def function_with_a_weight() -> onnx.ModelProto:
    """The decoder is a local function whose constant is the encoder's weight, transposed."""
    function = (
        '<domain: "own", opset_import: ["" : 21]> Decode (z) => (y) '
        "{ w = Constant() y = MatMul(z, w) }"
    )
    model = model_of(
        "top (float[N, 24] x) => (float[N, 24] y) { z = MatMul(x, w) y = own.Decode(z) }",
        tensor_of(WEIGHT, "w"),
        functions=function,
    )
    constant = model.functions[0].node[0]
    constant.attribute.append(helper.make_attribute("value", tensor_of(TRANSPOSE, "t")))
    return model


@_whole
def sparse_initializer() -> onnx.ModelProto:
    model = model_of("top (float[N, 24] x) => (float[N, 40] y) { y = MatMul(x, w) }")
    model.graph.sparse_initializer.append(_sparse("w"))
    return model


@_whole
def sparse_constant() -> onnx.ModelProto:
    model = model_of("top (float[N, 24] x) => (float[N, 40] y) { w = Constant() y = MatMul(x, w) }")
    model.graph.node[0].attribute.append(helper.make_attribute("sparse_value", _sparse("v")))
    return model


@_whole
def string_tensor() -> onnx.ModelProto:
    words = helper.make_tensor("words", TensorProto.STRING, [2], [b"one", "zwölf".encode()])
    return model_of(
        "top (string[1] x) => (string[3] y) { y = Concat <axis = 0> (x, words) }", words
    )


@_whole
def initializer_that_is_an_input() -> onnx.ModelProto:
    return model_of(
        "top (float[N, 24] x, float[24, 40] w) => (float[N, 40] y) { y = MatMul(x, w) }",
        tensor_of(WEIGHT, "w"),
    )


@_whole
def initializer_that_is_an_output() -> onnx.ModelProto:
    return model_of(
        "top (float[N, 24] x) => (float[N, 40] y, float[24, 40] w) { y = MatMul(x, w) }",
        tensor_of(WEIGHT, "w"),
    )


@_whole
def int8_weights() -> onnx.ModelProto:
    levels = np.clip(WEIGHT * 40, -127, 127).astype(np.int8)
    return model_of(
        "top (float[N, 24] x) => (float[N, 24] y) { w = DequantizeLinear(q, scale) "
        "t = DequantizeLinear(qt, scale) z = MatMul(x, w) y = MatMul(z, t) }",
        tensor_of(levels, "q"),
        tensor_of(np.ascontiguousarray(levels.T), "qt"),
        tensor_of(np.float32(1 / 40), "scale"),
    )


@_whole
def int4_weights() -> onnx.ModelProto:
    low, high = np.clip(WEIGHT * 3, -8, 7).astype(np.int8).view(np.uint8).reshape(-1, 2).T & 15
    packed = low | high << 4
    return model_of(
        "top (float[N, 24] x) => (float[N, 40] y) { w = DequantizeLinear(q, scale) "
        "y = MatMul(x, w) }",
        helper.make_tensor("q", TensorProto.INT4, WEIGHT.shape, packed.tobytes(), raw=True),
        tensor_of(np.float32(1 / 3), "scale"),
    )


@_whole
def tensor_of_no_elements() -> onnx.ModelProto:
    return model_of(
        "top (float[N, 4] x) => (float[M, 4] y) { y = Concat <axis = 0> (x, nothing) }",
        tensor_of(np.zeros((0, 4), np.float32), "nothing"),
    )


@_whole
def without_opset() -> onnx.ModelProto:
    model = tied_twice_stored()
    del model.opset_import[:]
    return model


@_whole
def numbers_one_by_one() -> onnx.ModelProto:
    """Weights in the typed fields instead of raw bytes, as old exporters wrote them."""
    half = WEIGHT.astype(np.float16)
    return model_of(
        "top (float[N, 24] x) => (float[N, 40] y) { h = Cast <to = 1> (half) y0 = MatMul(x, h) "
        "y1 = MatMul(x, single) y = Sum(y0, y1, index) }",
        helper.make_tensor("half", TensorProto.FLOAT16, half.shape, half.ravel()),
        helper.make_tensor("single", TensorProto.FLOAT, WEIGHT.shape, WEIGHT.ravel()),
        helper.make_tensor("index", TensorProto.FLOAT, [40], np.arange(40.0)),
    )


@_whole
def unsorted_nodes() -> onnx.ModelProto:
    model = tied_twice_stored()
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    return model


@_whole
def unused_weight() -> onnx.ModelProto:
    model = tied_twice_stored()
    model.graph.initializer.append(tensor_of(WEIGHT, "spare"))
    return model


@_whole
def training_info() -> onnx.ModelProto:
    model = tied_twice_stored()
    model.training_info.add().algorithm.CopyFrom(model.graph)
    return model


def external(folder: Path, **entries: str) -> Path:
    """The tied model with its second weight outside, at a place that may be changed."""
    (folder / "weights.bin").write_bytes(b"head" * 4 + WEIGHT.tobytes())
    model = tied_twice_stored()
    tensor = model.graph.initializer[1]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    place = {"location": "weights.bin", "offset": "16", "length": str(WEIGHT.nbytes)} | entries
    for key, value in place.items():
        tensor.external_data.add(key=key, value=value)
    return written(model.SerializeToString(), folder)


def external_data(folder: Path) -> Path:
    return external(folder)


ODD["external_data"] = Stranger(external_data, broken=False)
