"""Random graphs with planted copies: one copy is left, no bit changes, no file grows."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from retied import constant, graphs, saved, second_copies, weight

from tiedexport.retie import retie

_WIDE, _NARROW = 26, 18


@dataclass(frozen=True)
class _Layer:
    """One product with a stored tensor of its own.

    Attributes:
        weight: which of the distinct weights it holds.
        flipped: stored as the transpose of what it multiplies by.
        holder: what stores it.
        branch: it stands in both branches of an If, each with a tensor of its own.
    """

    weight: int
    flipped: bool
    holder: str
    op: str
    branch: bool


_LAYERS = st.lists(
    st.builds(
        _Layer,
        weight=st.integers(0, 2),
        flipped=st.booleans(),
        holder=st.sampled_from(["initializer", "Constant"]),
        op=st.sampled_from(["Gemm", "MatMul"]),
        branch=st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


def _matrix(layer: _Layer, going_down: bool) -> np.ndarray:
    """What the layer's input is multiplied by: [wide, narrow] or [narrow, wide]."""
    matrix = weight(_WIDE, _NARROW, seed=layer.weight) / 5
    return np.ascontiguousarray(matrix if going_down else matrix.T)


def _product(
    layer: _Layer, source: str, target: str, matrix: np.ndarray, name: str
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The nodes and initializers of one layer."""
    stored = np.ascontiguousarray(matrix.T) if layer.flipped else matrix
    nodes, initializers = [], []
    if layer.holder == "Constant":
        nodes.append(constant(name, stored))
    else:
        initializers.append(numpy_helper.from_array(stored, name))
    if layer.op == "Gemm":
        nodes.append(helper.make_node("Gemm", [source, name], [target], transB=int(layer.flipped)))
    else:
        factor = f"{name}_t" if layer.flipped else name
        if layer.flipped:
            nodes.append(helper.make_node("Transpose", [name], [factor], perm=[1, 0]))
        nodes.append(helper.make_node("MatMul", [source, factor], [target]))
    return nodes, initializers


def _model(layers: list[_Layer], rows: int | str) -> onnx.ModelProto:
    nodes, initializers, value, width = [], [], "x", _WIDE
    for number, layer in enumerate(layers):
        matrix, target = _matrix(layer, width == _WIDE), f"h{number}"
        width = matrix.shape[1]
        if layer.branch:
            branches = {}
            for branch in ("then_branch", "else_branch"):  # both call their weight by one name
                inner, held = _product(layer, value, f"{target}_{branch}", matrix, "w")
                output = helper.make_tensor_value_info(f"{target}_{branch}", 1, [rows, width])
                branches[branch] = helper.make_graph(inner, branch, [], [output], held)
            nodes.append(helper.make_node("If", ["c"], [target], **branches))
        else:
            inner, held = _product(layer, value, target, matrix, f"w{number}")
            nodes += inner
            initializers += held
        value = target
    graph = helper.make_graph(
        nodes,
        "random",
        [
            helper.make_tensor_value_info("x", 1, [rows, _WIDE]),
            helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info(value, 1, [rows, width])],
        initializers,
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])


@settings(max_examples=40, deadline=None)
@given(
    files=st.lists(_LAYERS, min_size=1, max_size=2),
    rows=st.sampled_from(["N", 1, 3]),
    external=st.booleans(),
)
def test_planted_copies_give_way(
    files: list[list[_Layer]], rows: int | str, external: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = [
            saved(
                _model(layers, rows),
                folder / f"{number}.onnx",
                external=f"{number}.data" if external else "",
            )
            for number, layers in enumerate(files)
        ]
        stored = [
            layer.weight for layers in files for layer in layers for _ in range(1 + layer.branch)
        ]
        result = retie(inputs, folder / "out")
        assert result.proof == "bit for bit", result.proof_detail
        assert result.left == ()
        assert second_copies(graphs(result)) == []
        assert len(result.mends) == len(stored) - len(set(stored))
        assert result.bytes_after <= result.bytes_before
        assert result.bytes_after == sum(Path(path).stat().st_size for path in result.outputs)
