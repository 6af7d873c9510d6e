"""Weights that are equal in two Parameters become one again, in the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from tiedexport import copies
from tiedexport.stored import in_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiedexport.copies import Copy


def share_copies(graph: ir.Graph) -> Iterator[tuple[str, str]]:
    """Let each weight that repeats another give way to it: its name, and what it repeats, in words.

    A matrix that is another's transpose becomes a Transpose of it. Weights that differ in one bit
    stay what they are.
    """
    stored = [
        # A view of another weight's memory begins where it does: only in C order is it a copy.
        in_memory(name, np.ascontiguousarray(value.const_value.numpy()))
        for name, value in graph.initializers.items()
        if value.const_value is not None and value.dtype == ir.DataType.FLOAT
    ]
    for group in copies.find(stored):
        kept = graph.initializers[group.original.name]
        for copy in group.copies:
            if _give_way(graph, kept, copy):
                yield copy.tensor.name, f"{kept.name}, {copy.form}"


def _give_way(graph: ir.Graph, kept: ir.Value, copy: Copy) -> bool:
    removed = graph.initializers[copy.tensor.name]
    if removed.shape is None or removed.is_graph_output():
        return False
    replacement = kept
    if copy.form == "transposed" and removed.shape.rank() == 2:
        node = ir.node("Transpose", [kept], {"perm": [1, 0]})
        graph.insert_before(graph[0], node)
        replacement = node.outputs[0]
        replacement.type, replacement.shape = removed.type, removed.shape
    elif copy.form != "same" or removed.shape != kept.shape:
        return False
    ir.convenience.replace_all_uses_with(removed, replacement)
    del graph.initializers[copy.tensor.name]
    return True
