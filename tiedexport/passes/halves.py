"""Two stages as independent halves of one graph: an engine of it stores their weights once.

The only pass over two graphs: the decoder's moves in beside the encoder's, under names that the
encoder's does not have. Its input becomes `spec.CODE_IN` and its batch axis one of its own, so that
either half can run while the other has an empty batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from tiedexport.errors import GraphError
from tiedexport.spec import CODE_IN

if TYPE_CHECKING:
    from collections.abc import Iterator

BATCH = "code_batch"
"""The decoder half's batch axis."""


def join(encoder: ir.Model, decoder: ir.Model) -> ir.Model:
    """Move the decoder's graph into the encoder's; both must be lowered, and are used up.

    Raises:
        GraphError: a name stands for different weights in the two graphs.
    """
    graph, other = encoder.graph, decoder.graph
    _rename(graph, other)
    for name, value in list(other.initializers.items()):
        shared = graph.initializers.get(name)
        if shared is None:
            del other.initializers[name]
            graph.register_initializer(value)
        elif _content(shared) != _content(value):
            got = f"{_content(shared)} and {_content(value)}"
            raise GraphError("two weights of one name", where=name, got=got)
        else:
            ir.convenience.replace_all_uses_with(value, shared)
    outputs = list(other.outputs)
    other.outputs.clear()
    nodes = list(other)
    other.remove(nodes)
    graph.extend(nodes)
    graph.inputs.extend(_taken(other))
    graph.outputs.extend(outputs)
    graph.name = "halves"
    return encoder


def _rename(graph: ir.Graph, other: ir.Graph) -> None:
    """Names of the other graph that this one has too; layers keep theirs, which differ anyway."""
    (code,) = other.inputs
    code.name = CODE_IN
    taken = {value.name for value in _values(graph)} | {node.name for node in graph}
    for item in (*other, *(value for node in other for value in node.outputs)):
        if item.name in taken:
            item.name = f"decoder_{item.name}"
    for value in _values(other):
        if value.shape is not None and not value.shape.is_static():
            value.shape = ir.Shape([n if isinstance(n, int) else BATCH for n in value.shape])


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def _taken(graph: ir.Graph) -> list[ir.Value]:
    """The inputs of a graph, which are no longer its own."""
    inputs = list(graph.inputs)
    graph.inputs.clear()
    return inputs


def _content(value: ir.Value) -> tuple[object, ...]:
    """What tells two stored tensors apart without reading them, where they lie in a file."""
    tensor = value.const_value
    assert tensor is not None  # an initializer has a tensor
    if isinstance(tensor, ir.ExternalTensor):
        return tensor.location, tensor.offset, tensor.length
    return tensor.dtype, tuple(tensor.shape), tensor.tobytes()
