"""Weights as inputs of the graph, for engines that hold none: all of them share one buffer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from tiedexport.passes import Plan


def apply(model: ir.Model, plan: Plan) -> ir.Model:
    """Turn every initializer into an input, after the data inputs, in place."""
    graph = model.graph
    for value in list(graph.initializers.values()):
        assert value.name is not None  # an initializer is found by its name
        del graph.initializers[value.name]
        value.const_value = None
        graph.inputs.append(value)
    return model
