"""Broken ONNX files: reading one is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.odd_models import (
    WEIGHT,
    Stranger,
    external,
    model_of,
    numbers_one_by_one,
    tensor_of,
    tied_twice_stored,
    written,
)
from tiedexport.protobuf import framed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BROKEN: dict[str, Stranger] = {}
"""Name → how to make the file."""


def _broken(make: Callable[[], onnx.ModelProto]) -> Callable[[], onnx.ModelProto]:
    def build(folder: Path) -> Path:
        return written(make().SerializeToString(), folder)

    BROKEN[make.__name__] = Stranger(build, broken=True)
    return make


def _broken_file(build: Callable[[Path], Path]) -> Callable[[Path], Path]:
    BROKEN[build.__name__] = Stranger(build, broken=True)
    return build


@_broken_file
def missing_external_data(folder: Path) -> Path:
    return external(folder, location="elsewhere.bin")


@_broken_file
def external_data_of_the_parent(folder: Path) -> Path:
    return external(folder, location=f"../{folder.name}/weights.bin")


@_broken_file
def external_data_anywhere(folder: Path) -> Path:
    return external(folder, location="/etc/passwd")


@_broken_file
def external_data_behind_a_link(folder: Path) -> Path:
    (folder / "link").symlink_to("/etc")
    return external(folder, location="link/passwd", length="3840")


@_broken_file
def external_data_too_short(folder: Path) -> Path:
    return external(folder, offset="17")


@_broken_file
def external_data_of_another_size(folder: Path) -> Path:
    return external(folder, length="3836")


@_broken_file
def external_data_at_no_number(folder: Path) -> Path:
    return external(folder, offset="-16")


@_broken
def cycle() -> onnx.ModelProto:
    return model_of(
        "top (float[N] x) => (float[N] y) { a = Add(x, b) b = Add(x, a) y = Add(a, b) }"
    )


@_broken
def function_that_calls_itself() -> onnx.ModelProto:
    return model_of(
        "top (float[N] x) => (float[N] y) { y = own.F(x) }",
        functions='<domain: "own", opset_import: ["own" : 1]> F (a) => (b) { b = own.F(a) }',
    )


@_broken
def map_type() -> onnx.ModelProto:
    """As classifiers of ONNX-ML give it out: sound, but onnx_ir knows no maps."""
    model = model_of("top (float[N] x) => (float[N] y) { y = Add(x, x) }")
    labels = helper.make_node("ZipMap", ["y"], ["map"], domain="ai.onnx.ml")
    model.graph.node.append(labels)
    kind = model.graph.output.add(name="map").type.map_type
    kind.key_type = TensorProto.INT64
    kind.value_type.tensor_type.elem_type = TensorProto.FLOAT
    return model


@_broken
def undefined_input() -> onnx.ModelProto:
    return model_of("top (float[N] x) => (float[N] y) { y = Add(x, nowhere) }")


@_broken
def undefined_output() -> onnx.ModelProto:
    return model_of("top (float[N] x) => (float[N] y, float[N] z) { y = Add(x, x) }")


@_broken
def name_defined_twice() -> onnx.ModelProto:
    return model_of("top (float[N] x) => (float[N] y) { y = Add(x, x) y = Mul(x, x) }")


@_broken
def initializer_defined_twice() -> onnx.ModelProto:
    model = tied_twice_stored()
    model.graph.initializer[1].name = "w"
    return model


@_broken
def initializer_without_a_name() -> onnx.ModelProto:
    model = tied_twice_stored()
    model.graph.initializer.append(tensor_of(WEIGHT, ""))
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
    return written(b"\x08\x0a" + framed(7, graph), folder)


@_broken_file
def truncated(folder: Path) -> Path:
    data = tied_twice_stored().SerializeToString()
    return written(data[: len(data) // 2], folder)


@_broken_file
def huge_length(folder: Path) -> Path:
    """A graph that says it is 2⁶² bytes long."""
    return written(b"\x08\x0a\x3a" + b"\xff" * 8 + b"\x3f" + b"\0" * 100, folder)


@_broken_file
def empty(folder: Path) -> Path:
    return written(b"", folder)


@_broken_file
def text(folder: Path) -> Path:
    return written(b"This is not a model.\n" * 40, folder)


@_broken_file
def noise(folder: Path) -> Path:
    return written(np.random.default_rng(0).bytes(4096), folder)


@_broken_file
def folder_of_that_name(folder: Path) -> Path:
    path = folder / "model.onnx"
    path.mkdir()
    return path


@_broken_file
def absent(folder: Path) -> Path:
    return folder / "model.onnx"
