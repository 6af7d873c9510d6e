"""fp16 and bf16 as properties of the graph: every weight and activation in a type of its own.

A weighted operator has the type of its weight, and so has what follows it up to the next one. Casts
stand where the type changes and at the edges, so that both uses of a tied weight read one type
(mixed types across a tie store the weight twice in every runtime). What follows the last weighted
operator, a sigmoid for instance, is computed in fp32: it costs nothing there and saves the output
from a rounding.
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
    """Change the types in place; a graph that is fp32 throughout stays as it is.

    Raises:
        GraphError: no operator has a weight, or a bias is that of operators of different types.
    """
    if {plan.precision, plan.io_dtype, *plan.kept.values()} == {Precision.FP32}:
        return model
    graph, io = model.graph, ONNX_DTYPES[plan.io_dtype]
    nodes = list(graph)
    weighted = [i for i, node in enumerate(nodes) if node.op_type in WEIGHTED_OPERATORS]
    if not weighted:
        raise GraphError("no weighted operator to lower", where=graph.name)
    tail_starts = weighted[-1] + 1
    _store(graph, plan)
    for value in graph.inputs:
        value.type = ir.TensorType(io)
    kind = _type_of(nodes[weighted[0]], plan)
    for node in nodes[:tail_starts]:
        if node.op_type in WEIGHTED_OPERATORS:
            kind = _type_of(node, plan)
        _compute_in(kind, node, graph)
    logits = nodes[weighted[-1]].outputs[0]
    _cast_tail(graph, logits, nodes[tail_starts:], io)
    return model


def _store(graph: ir.Graph, plan: Plan) -> None:
    """Give every initializer the type of the operator that reads it, and a Transpose that of it."""
    types: dict[str, tuple[ir.Node, ir.DataType]] = {}
    for node in graph:
        if node.op_type not in WEIGHTED_OPERATORS:
            continue
        kind = _type_of(node, plan)
        for stored in map(_stored, node.inputs[1:]):
            if stored is None or stored.name is None:
                continue
            other, same = types.setdefault(stored.name, (node, kind))
            if kind != same:
                raise GraphError(
                    "a tensor that operators of different types read",
                    where=stored.name,
                    got=f"{same} in {other.name}, {kind} in {node.name}",
                    expected="one type, or it would be stored twice",
                    hint="keep the weights of both in the same type",
                )
    for name, value in graph.initializers.items():
        _, kind = types.get(name, (None, ONNX_DTYPES[plan.precision]))
        value.const_value = _lowered(value, kind)
        _retype(value, kind)
        for node, _ in value.uses():
            if node.op_type == "Transpose":
                _retype(node.outputs[0], kind)


def _type_of(node: ir.Node, plan: Plan) -> ir.DataType:
    weight = _stored(node.inputs[1])
    name = None if weight is None else weight.name
    return ONNX_DTYPES[plan.kept.get(name or "", plan.precision)]


def _stored(value: ir.Value | None) -> ir.Value | None:
    """The initializer that an operand is, or is the transpose of."""
    producer = None if value is None else value.producer()
    if producer is not None and producer.op_type == "Transpose":
        value = producer.inputs[0]
    return value if value is not None and value.is_initializer() else None


def _compute_in(kind: ir.DataType, node: ir.Node, graph: ir.Graph) -> None:
    """Let a node compute in a type; what it reads in another one passes through a Cast."""
    if any(_stored(output) is not None for output in node.outputs):
        return  # the transpose of a weight has the type of the weight
    for index, value in enumerate(node.inputs):
        if value is None or value.dtype not in ONNX_DTYPES.values() or _stored(value) is not None:
            continue
        if value.dtype != kind:
            cast = _cast(value, kind, f"cast_{value.name}")
            graph.insert_before(node, cast)
            node.replace_input_with(index, cast.outputs[0])
    for output in node.outputs:
        _retype(output, kind)


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
