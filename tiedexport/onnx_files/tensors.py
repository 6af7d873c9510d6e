"""The tensors of a loaded graph: initializers, constants, and every other tensor of a node."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from tiedexport.stored import ArrayContent, Content, FileContent, Place, StoredTensor

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACE = "place"
"""Key of `tensor.meta`: offset and length in the file of a tensor that is inline."""


@dataclass(frozen=True)
class OwnedTensor:
    """A tensor of a graph, and who owns it: the value of an initializer, or a node."""

    name: str
    tensor: ir.TensorProtocol
    handle: ir.Value | ir.Node


def graphs_of(model: ir.Model) -> Iterator[tuple[str, ir.Graph]]:
    """Every graph of a model with its scope: "", "if_0.then_branch", "function gelu"."""
    yield from _nested("", model.graph)
    for function in model.functions.values():
        yield from _nested(f"function {function.name}", function.graph)


def tensors_of(graph: ir.Graph) -> Iterator[OwnedTensor]:
    """The tensors of one graph, without its subgraphs'."""
    for name, value in graph.initializers.items():
        if value.const_value is not None:
            yield OwnedTensor(name, value.const_value, value)
    for node in graph:
        named = node.outputs[0].name if node.op_type == "Constant" and node.outputs else ""
        for attribute in node.attributes.values():
            name = named or f"{node.name or node.op_type}.{attribute.name}"
            for part, tensor in _attribute_tensors(attribute):
                yield OwnedTensor(f"{name}{part}", tensor, node)


def stored_tensors(model: ir.Model, home: Path) -> list[StoredTensor]:
    """Every tensor that the file stores: initializers and constants of all graphs and functions.

    Strings and empty tensors are left out; a sparse tensor's values and indices are two tensors.
    `handle` is the `ir.Value` (initializer) or the `ir.Node` (Constant). Where a file does not keep
    a tensor's bytes in one piece, the offset is of the first; a list of numbers in an attribute has
    no offset and gets a negative one.

    Args:
        model: from `load`.
        home: the file that it was loaded from.
    """
    scopes = {graph: scope for scope, graph in graphs_of(model)}
    labels = {
        node: f"{node.name or f'{node.op_type}_{index}'} ({node.op_type})"
        for graph in scopes
        for index, node in enumerate(graph)
    }
    found: list[StoredTensor] = []
    for graph, scope in scopes.items():
        for owned in tensors_of(graph):
            if owned.tensor.dtype == ir.DataType.STRING or not owned.tensor.size:
                continue
            uses = _uses(owned, scopes, labels, scope)
            found.append(_stored(owned, home, -1 - len(found), uses, scope))
    return found


def _nested(scope: str, graph: ir.Graph) -> Iterator[tuple[str, ir.Graph]]:
    yield scope, graph
    for index, node in enumerate(graph):
        for attribute in node.attributes.values():
            label = f"{node.name or f'{node.op_type}_{index}'}.{attribute.name}"
            for part, subgraph in _attribute_graphs(attribute):
                yield from _nested(f"{scope}.{label}{part}".removeprefix("."), subgraph)


def _attribute_graphs(attribute: ir.Attr) -> list[tuple[str, ir.Graph]]:
    if attribute.is_ref():
        return []
    if attribute.type == ir.AttributeType.GRAPH:
        return [("", attribute.as_graph())]
    if attribute.type == ir.AttributeType.GRAPHS:
        return [(f"[{i}]", graph) for i, graph in enumerate(attribute.as_graphs())]
    return []


def _attribute_tensors(attribute: ir.Attr) -> list[tuple[str, ir.TensorProtocol]]:
    if attribute.is_ref():
        return []
    if attribute.type == ir.AttributeType.TENSOR:
        return [("", attribute.as_tensor())]
    if attribute.type == ir.AttributeType.TENSORS:
        return [(f"[{i}]", tensor) for i, tensor in enumerate(attribute.as_tensors())]
    if attribute.name == "value_floats":
        return [("", ir.tensor(np.array(attribute.as_floats(), np.float32)))]
    if attribute.name == "value_ints":
        return [("", ir.tensor(np.array(attribute.as_ints(), np.int64)))]
    return []


def _uses(
    owned: OwnedTensor, scopes: dict[ir.Graph, str], labels: dict[ir.Node, str], scope: str
) -> tuple[str, ...]:
    handle = owned.handle
    if isinstance(handle, ir.Node) and handle.op_type != "Constant":
        return (f"{labels[handle]} attribute",)
    value = handle.outputs[0] if isinstance(handle, ir.Node) else handle
    words = []
    for node, index in value.uses():
        there = scopes[node.graph] if isinstance(node.graph, ir.Graph) else scope
        words.append(f"{there}: " * (there != scope) + f"{labels[node]} input {index}")
    return (*words, *["graph output"] * value.is_graph_output())


def _stored(
    owned: OwnedTensor, home: Path, number: int, uses: tuple[str, ...], scope: str
) -> StoredTensor:
    tensor = owned.tensor
    shape = tuple(int(size) for size in tensor.shape.numpy())
    packed = tensor.dtype.bitwidth < 8
    dtype = np.dtype(np.uint8) if packed else tensor.dtype.numpy()
    content: Content
    if isinstance(tensor, ir.ExternalTensor):
        file = Path(tensor.path).resolve()
        place = Place(str(file), tensor.offset or 0, tensor.nbytes)
        content = FileContent(file, place.offset, dtype)
    else:
        offset, length = tensor.meta.get(PLACE, (number, tensor.nbytes))
        place = Place(str(home.resolve()), offset, tensor.nbytes if packed else length)
        array = np.frombuffer(tensor.tobytes(), np.uint8) if packed else tensor.numpy()
        content = ArrayContent(array)
    return StoredTensor(
        owned.name, place, dtype, shape, content, uses, scope, str(home), owned.handle
    )
