"""fp16 and bf16 as properties of the graph: every weight and activation in that type.

Casts stand at the edges only, so that both uses of a tied weight read one type (mixed types across
a tie store the weight twice in every runtime). What follows the last weighted operator, a sigmoid
for instance, is computed in fp32: it costs nothing there and saves the output from a rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from tiedexport.errors import GraphError
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from tiedexport.passes import Plan

WEIGHTED_OPERATORS = frozenset({"Gemm", "MatMul", "Conv", "ConvTranspose"})
ONNX_DTYPES = {
    Precision.FP32: ir.DataType.FLOAT,
    Precision.FP16: ir.DataType.FLOAT16,
    Precision.BF16: ir.DataType.BFLOAT16,
}


def apply(model: ir.Model, plan: Plan) -> ir.Model:
    """Change the types in place; a graph that is fp32 throughout stays as it is."""
    if plan.precision is Precision.FP32 and plan.io_dtype is Precision.FP32:
        return model
    graph = model.graph
    computed, io = ONNX_DTYPES[plan.precision], ONNX_DTYPES[plan.io_dtype]
    nodes = list(graph)
    weighted = [i for i, node in enumerate(nodes) if node.op_type in WEIGHTED_OPERATORS]
    if not weighted:
        raise GraphError("no weighted operator to lower", where=graph.name)
    tail_starts = weighted[-1] + 1
    for node in nodes[:tail_starts]:
        for output in node.outputs:
            _retype(output, computed)
    for value in graph.initializers.values():
        _retype(value, computed)
        value.const_value = _lowered(value, computed)
    for value in graph.inputs:
        _cast_input(graph, value, computed, io)
    logits = nodes[weighted[-1]].outputs[0]
    _cast_tail(graph, logits, nodes[tail_starts:], io)
    return model


def _retype(value: ir.Value, dtype: ir.DataType) -> None:
    if value.dtype == ir.DataType.FLOAT:
        value.type = ir.TensorType(dtype)


def _lowered(value: ir.Value, dtype: ir.DataType) -> ir.TensorProtocol:
    tensor = value.const_value
    assert tensor is not None  # an initializer has a tensor
    return ir.LazyTensor(
        lambda: ir.tensor(tensor.numpy().astype(dtype.numpy()), dtype, name=value.name),
        dtype=dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=value.name,
    )


def _cast(value: ir.Value, dtype: ir.DataType, name: str) -> ir.Node:
    node = ir.node("Cast", [value], {"to": dtype}, name=name)
    node.outputs[0].name = f"{name}_output"
    node.outputs[0].type = ir.TensorType(dtype)
    node.outputs[0].shape = value.shape
    return node


def _cast_input(graph: ir.Graph, value: ir.Value, computed: ir.DataType, io: ir.DataType) -> None:
    value.type = ir.TensorType(io)
    if io == computed:
        return
    users = list(value.uses())
    cast = _cast(value, computed, f"cast_{value.name}")
    graph.insert_before(next(iter(graph)), cast)
    for node, index in users:
        node.replace_input_with(index, cast.outputs[0])


def _cast_tail(graph: ir.Graph, logits: ir.Value, tail: list[ir.Node], io: ir.DataType) -> None:
    """Logits → fp32 → tail → the output's type; the graph's output keeps its name."""
    wanted = ir.DataType.FLOAT if tail else io
    if logits.dtype != wanted:
        users = list(logits.uses())
        cast = _cast(logits, wanted, "cast_logits")
        producer = logits.producer()
        assert producer is not None  # a weighted operator computes the logits
        graph.insert_after(producer, cast)
        for node, index in users:
            node.replace_input_with(index, cast.outputs[0])
        if not tail:
            _replace_output(graph, logits, cast.outputs[0])
    if tail and io != ir.DataType.FLOAT:
        output = graph.outputs[0]
        cast = _cast(output, io, "cast_output")
        graph.append(cast)
        _replace_output(graph, output, cast.outputs[0])


def _replace_output(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    name = old.name
    old.name = f"{name}_uncast"
    new.name = name
    graph.outputs[0] = new
