"""The tensors of an ONNX protobuf, wherever they stand, and where their bytes lie."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import onnx_ir as ir
from onnx import AttributeProto, TensorProto

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx


class Source(NamedTuple):
    """Where bytes lie now; `file` is empty for those that `data` holds."""

    file: str
    offset: int
    size_bytes: int
    data: bytes = b""


def tensors_in(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every TensorProto of a model, in subgraphs and functions as well."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def nodes_in(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node of a graph and of its subgraphs."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for subgraph in (
                *([attribute.g] if attribute.HasField("g") else []),
                *attribute.graphs,
            ):
                yield from nodes_in(subgraph)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Sequence[onnx.NodeProto]) -> Iterator[TensorProto]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        if attribute.type == AttributeProto.TENSOR:
            yield attribute.t
        elif attribute.type == AttributeProto.GRAPH:
            yield from _graph_tensors(attribute.g)
        elif attribute.type == AttributeProto.SPARSE_TENSOR:
            yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
        yield from attribute.tensors
        for sparse in attribute.sparse_tensors:
            yield from (sparse.values, sparse.indices)
        for graph in attribute.graphs:
            yield from _graph_tensors(graph)


def external_source(path: Path, tensor: TensorProto) -> Source:
    """Where the bytes of an external tensor of the graph at `path` lie."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    file = (path.parent / entries["location"]).resolve()
    size = int(entries["length"]) if "length" in entries else _size_bytes(tensor)
    return Source(str(file), int(entries.get("offset", 0)), size)


def _size_bytes(tensor: TensorProto) -> int:
    bits: int = math.prod(tensor.dims) * ir.DataType(tensor.data_type).bitwidth
    return -(-bits // 8)
