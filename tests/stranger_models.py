"""ONNX files as strangers bring them: odd but whole, or broken. Each builder writes one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser

from tiedexport.onnx_files.wire import framed

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


STRANGERS: dict[str, Stranger] = {}
"""Name → how to make the file, and whether it is broken."""


def _whole(make: Callable[[], onnx.ModelProto]) -> Callable[[], onnx.ModelProto]:
    def build(folder: Path) -> Path:
        return _written(make().SerializeToString(), folder)

    STRANGERS[make.__name__] = Stranger(build, broken=False)
    return make


def _broken(make: Callable[[], onnx.ModelProto]) -> Callable[[], onnx.ModelProto]:
    def build(folder: Path) -> Path:
        return _written(make().SerializeToString(), folder)

    STRANGERS[make.__name__] = Stranger(build, broken=True)
    return make


def _broken_file(build: Callable[[Path], Path]) -> Callable[[Path], Path]:
    STRANGERS[build.__name__] = Stranger(build, broken=True)
    return build


def _written(data: bytes, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(data)
    return path


def _tensor(array: np.ndarray, name: str) -> TensorProto:
    return numpy_helper.from_array(array, name)


def _model(graph: str, *tensors: TensorProto, functions: str = "") -> onnx.ModelProto:
    """A model from ONNX's text form and its initializers."""
    head = '<ir_version: 10, opset_import: ["" : 21, "own" : 1]>'
    model = parser.parse_model(f"{head} {graph} {functions}")
    model.graph.initializer.extend(tensors)
    return model


def _sparse(name: str) -> onnx.SparseTensorProto:
    """A dense shape of [24, 40] with 300 values at random places."""
    places = np.sort(np.random.default_rng(0).permutation(24 * 40)[:300])
    values, indices = _tensor(WEIGHT.ravel()[:300], name), _tensor(places, f"{name}_places")
    return helper.make_sparse_tensor(values, indices, [24, 40])


@_whole
def tied_twice_stored() -> onnx.ModelProto:
    """An encoder and a decoder whose weight lies there twice, the second time transposed."""
    return _model(
        "tied (float[N, 40] x) => (float[N, 40] y) { z = MatMul(x, w) y = MatMul(z, wt) }",
        _tensor(TRANSPOSE, "w"),
        _tensor(WEIGHT, "wt"),
    )


@_whole
def unknown_operator() -> onnx.ModelProto:
    text = "odd (float[N, 40] x) => (float[N, 40] y) { z = own.Swirl(x, w) y = own.Unswirl(z, wt) }"
    return _model(text, _tensor(TRANSPOSE, "w"), _tensor(WEIGHT, "wt"))


@_whole
def if_with_same_names() -> onnx.ModelProto:
    """Both branches call their weight w; it is another weight in each."""
    branches = " , ".join(
        f"{name}_branch = {name}_graph () => (float[N, 40] {name}_y) {{ {name}_y = MatMul(x, w) }}"
        for name in ("then", "else")
    )
    model = _model(
        f"top (float[N, 24] x, bool c) => (float[N, 40] y) {{ [if_0] y = If(c) <{branches}> }}"
    )
    for attribute, weight in zip(model.graph.node[0].attribute, (WEIGHT, OTHER), strict=True):
        attribute.g.initializer.append(_tensor(weight, "w"))
    return model


@_whole
def if_that_repeats_an_outer_weight() -> onnx.ModelProto:
    model = if_with_same_names()
    model.graph.initializer.append(_tensor(TRANSPOSE, "outer"))
    model.graph.node.append(helper.make_node("MatMul", ["y", "outer"], ["back"]))
    model.graph.output.append(helper.make_tensor_value_info("back", 1, ["N", 24]))
    return model


@_whole
def loop() -> onnx.ModelProto:
    body = (
        "body (int64 i, bool go, float[N, 24] a) => (bool on, float[N, 24] b) "
        "{ on = Identity(go) h = MatMul(a, inner) b = MatMul(h, outer) }"
    )
    model = _model(
        f"top (float[N, 24] x, int64 n, bool c) => (float[N, 24] y) {{ y = Loop(n, c, x) "
        f"<body = {body}> }}",
        _tensor(TRANSPOSE, "outer"),
    )
    model.graph.node[0].attribute[0].g.initializer.append(_tensor(WEIGHT, "inner"))
    return model


@_whole
def scan() -> onnx.ModelProto:
    body = (
        "body (float[24] a, float[24] s) => (float[24] b, float[40] o) "
        "{ b = Add(a, s) o = MatMul(b, w) }"
    )
    model = _model(
        "top (float[24] start, float[T, 24] x) => (float[24] end, float[T, 40] y) "
        f"{{ end, y = Scan <num_scan_inputs = 1, body = {body}> (start, x) }}"
    )
    body_graph = next(a.g for a in model.graph.node[0].attribute if a.name == "body")
    body_graph.initializer.append(_tensor(WEIGHT, "w"))
    return model


@_whole
def function_with_a_weight() -> onnx.ModelProto:
    """The decoder is a local function whose constant is the encoder's weight, transposed."""
    function = (
        '<domain: "own", opset_import: ["" : 21]> Decode (z) => (y) '
        "{ w = Constant() y = MatMul(z, w) }"
    )
    model = _model(
        "top (float[N, 24] x) => (float[N, 24] y) { z = MatMul(x, w) y = own.Decode(z) }",
        _tensor(WEIGHT, "w"),
        functions=function,
    )
    constant = model.functions[0].node[0]
    constant.attribute.append(helper.make_attribute("value", _tensor(TRANSPOSE, "t")))
    return model


@_whole
def sparse_initializer() -> onnx.ModelProto:
    model = _model("top (float[N, 24] x) => (float[N, 40] y) { y = MatMul(x, w) }")
    model.graph.sparse_initializer.append(_sparse("w"))
    return model


@_whole
def sparse_constant() -> onnx.ModelProto:
    model = _model("top (float[N, 24] x) => (float[N, 40] y) { w = Constant() y = MatMul(x, w) }")
    model.graph.node[0].attribute.append(helper.make_attribute("sparse_value", _sparse("v")))
    return model


@_whole
def string_tensor() -> onnx.ModelProto:
    words = helper.make_tensor("words", TensorProto.STRING, [2], [b"one", "zwölf".encode()])
    return _model("top (string[1] x) => (string[3] y) { y = Concat <axis = 0> (x, words) }", words)


@_whole
def initializer_that_is_an_input() -> onnx.ModelProto:
    return _model(
        "top (float[N, 24] x, float[24, 40] w) => (float[N, 40] y) { y = MatMul(x, w) }",
        _tensor(WEIGHT, "w"),
    )


@_whole
def initializer_that_is_an_output() -> onnx.ModelProto:
    return _model(
        "top (float[N, 24] x) => (float[N, 40] y, float[24, 40] w) { y = MatMul(x, w) }",
        _tensor(WEIGHT, "w"),
    )


@_whole
def int8_weights() -> onnx.ModelProto:
    levels = np.clip(WEIGHT * 40, -127, 127).astype(np.int8)
    return _model(
        "top (float[N, 24] x) => (float[N, 24] y) { w = DequantizeLinear(q, scale) "
        "t = DequantizeLinear(qt, scale) z = MatMul(x, w) y = MatMul(z, t) }",
        _tensor(levels, "q"),
        _tensor(np.ascontiguousarray(levels.T), "qt"),
        _tensor(np.float32(1 / 40), "scale"),
    )


@_whole
def int4_weights() -> onnx.ModelProto:
    low, high = np.clip(WEIGHT * 3, -8, 7).astype(np.int8).view(np.uint8).reshape(-1, 2).T & 15
    packed = low | high << 4
    return _model(
        "top (float[N, 24] x) => (float[N, 40] y) { w = DequantizeLinear(q, scale) "
        "y = MatMul(x, w) }",
        helper.make_tensor("q", TensorProto.INT4, WEIGHT.shape, packed.tobytes(), raw=True),
        _tensor(np.float32(1 / 3), "scale"),
    )


@_whole
def tensor_of_no_elements() -> onnx.ModelProto:
    return _model(
        "top (float[N, 4] x) => (float[M, 4] y) { y = Concat <axis = 0> (x, nothing) }",
        _tensor(np.zeros((0, 4), np.float32), "nothing"),
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
    return _model(
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
    model.graph.initializer.append(_tensor(WEIGHT, "spare"))
    return model


@_whole
def training_info() -> onnx.ModelProto:
    model = tied_twice_stored()
    model.training_info.add().algorithm.CopyFrom(model.graph)
    return model


def _external(folder: Path, **entries: str) -> Path:
    """The tied model with its second weight outside, at a place that may be changed."""
    (folder / "weights.bin").write_bytes(b"head" * 4 + WEIGHT.tobytes())
    model = tied_twice_stored()
    tensor = model.graph.initializer[1]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    place = {"location": "weights.bin", "offset": "16", "length": str(WEIGHT.nbytes)} | entries
    for key, value in place.items():
        tensor.external_data.add(key=key, value=value)
    return _written(model.SerializeToString(), folder)


def external_data(folder: Path) -> Path:
    return _external(folder)


STRANGERS["external_data"] = Stranger(external_data, broken=False)


@_broken_file
def missing_external_data(folder: Path) -> Path:
    return _external(folder, location="elsewhere.bin")


@_broken_file
def external_data_of_the_parent(folder: Path) -> Path:
    return _external(folder, location=f"../{folder.name}/weights.bin")


@_broken_file
def external_data_anywhere(folder: Path) -> Path:
    return _external(folder, location="/etc/passwd")


@_broken_file
def external_data_behind_a_link(folder: Path) -> Path:
    (folder / "link").symlink_to("/etc")
    return _external(folder, location="link/passwd", length="3840")


@_broken_file
def external_data_too_short(folder: Path) -> Path:
    return _external(folder, offset="17")


@_broken_file
def external_data_of_another_size(folder: Path) -> Path:
    return _external(folder, length="3836")


@_broken_file
def external_data_at_no_number(folder: Path) -> Path:
    return _external(folder, offset="-16")


@_broken
def cycle() -> onnx.ModelProto:
    return _model("top (float[N] x) => (float[N] y) { a = Add(x, b) b = Add(x, a) y = Add(a, b) }")


@_broken
def function_that_calls_itself() -> onnx.ModelProto:
    return _model(
        "top (float[N] x) => (float[N] y) { y = own.F(x) }",
        functions='<domain: "own", opset_import: ["own" : 1]> F (a) => (b) { b = own.F(a) }',
    )


@_broken
def map_type() -> onnx.ModelProto:
    """As classifiers of ONNX-ML give it out: sound, but onnx_ir knows no maps."""
    model = _model("top (float[N] x) => (float[N] y) { y = Add(x, x) }")
    labels = helper.make_node("ZipMap", ["y"], ["map"], domain="ai.onnx.ml")
    model.graph.node.append(labels)
    kind = model.graph.output.add(name="map").type.map_type
    kind.key_type = TensorProto.INT64
    kind.value_type.tensor_type.elem_type = TensorProto.FLOAT
    return model


@_broken
def undefined_input() -> onnx.ModelProto:
    return _model("top (float[N] x) => (float[N] y) { y = Add(x, nowhere) }")


@_broken
def undefined_output() -> onnx.ModelProto:
    return _model("top (float[N] x) => (float[N] y, float[N] z) { y = Add(x, x) }")


@_broken
def name_defined_twice() -> onnx.ModelProto:
    return _model("top (float[N] x) => (float[N] y) { y = Add(x, x) y = Mul(x, x) }")


@_broken
def initializer_defined_twice() -> onnx.ModelProto:
    model = tied_twice_stored()
    model.graph.initializer[1].name = "w"
    return model


@_broken
def initializer_without_a_name() -> onnx.ModelProto:
    model = tied_twice_stored()
    model.graph.initializer.append(_tensor(WEIGHT, ""))
    return model


@_broken
def too_few_bytes() -> onnx.ModelProto:
    model = tied_twice_stored()
    model.graph.initializer[0].dims[0] += 1
    return model


@_broken
def too_few_numbers() -> onnx.ModelProto:
    model = numbers_one_by_one()
    model.graph.initializer[0].dims[0] += 1
    return model


@_broken
def negative_size() -> onnx.ModelProto:
    model = tied_twice_stored()
    model.graph.initializer[0].dims[:] = [-24, -40]
    return model


@_broken
def type_of_the_future() -> onnx.ModelProto:
    model = tied_twice_stored()
    model.graph.initializer[0].data_type = 99
    return model


@_broken_file
def graphs_without_end(folder: Path) -> Path:
    """Conditions in conditions, deeper than protobuf reads."""
    graph = framed(2, b"innermost")
    for _ in range(2000):
        branch = framed(1, b"then_branch") + b"\xa0\x01\x05" + framed(6, graph)
        graph = framed(1, framed(1, b"c") + framed(4, b"If") + framed(5, branch))
    return _written(b"\x08\x0a" + framed(7, graph), folder)


@_broken_file
def truncated(folder: Path) -> Path:
    data = tied_twice_stored().SerializeToString()
    return _written(data[: len(data) // 2], folder)


@_broken_file
def huge_length(folder: Path) -> Path:
    """A graph that says it is 2⁶² bytes long."""
    return _written(b"\x08\x0a\x3a" + b"\xff" * 8 + b"\x3f" + b"\0" * 100, folder)


@_broken_file
def empty(folder: Path) -> Path:
    return _written(b"", folder)


@_broken_file
def text(folder: Path) -> Path:
    return _written(b"This is not a model.\n" * 40, folder)


@_broken_file
def noise(folder: Path) -> Path:
    return _written(np.random.default_rng(0).bytes(4096), folder)


@_broken_file
def folder_of_that_name(folder: Path) -> Path:
    path = folder / "model.onnx"
    path.mkdir()
    return path


@_broken_file
def absent(folder: Path) -> Path:
    return folder / "model.onnx"
