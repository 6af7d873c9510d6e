"""The part of the graph between a stage's inputs and outputs, with a batch axis of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from tiedexport.errors import GraphError

if TYPE_CHECKING:
    from tiedexport.passes import Plan


def apply(model: ir.Model, plan: Plan) -> ir.Model:
    """A new model; the one given stays as it is."""
    try:
        graph = ir.convenience.extract(model.graph, plan.inputs, plan.outputs)
    except ValueError as error:
        raise GraphError(
            "the graph has no such stage",
            where=f"{', '.join(plan.inputs)} → {', '.join(plan.outputs)}",
            got=str(error),
        ) from error
    for name in sorted(value.name for value in graph.initializers.values() if value.name):
        # In an order of their own: the extraction leaves them in that of a set.
        graph.initializers[name] = graph.initializers.pop(name)
    graph.name = f"{plan.inputs[0]}_to_{plan.outputs[0]}"
    return ir.Model(
        graph,
        ir_version=model.ir_version,
        producer_name="tiedexport",
    )
