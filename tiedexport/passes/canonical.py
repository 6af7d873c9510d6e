"""Stable names and nothing superfluous, whatever the exporter's version."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx_ir.passes import common

if TYPE_CHECKING:
    from tiedexport.passes import Plan

WRAPPER_PREFIX = "model."
"""The exported module wraps the model in an attribute of that name."""


def apply(model: ir.Model, plan: Plan) -> ir.Model:
    """Inline functions, drop metadata, dead code and identities, and name values by their node."""
    for simplify in (
        common.InlinePass(),
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.ClearMetadataAndDocStringPass(),
    ):
        model = simplify(model).model
    graph = model.graph
    graph.name = "tiedexport"
    for value in list(graph.initializers.values()):
        _rename_initializer(graph, value)
    fixed = {value.name for value in graph.outputs}
    count: Counter[str] = Counter()
    for node in graph:
        kind = node.op_type.lower()
        node.name = f"{kind}_{count[kind]}"
        for output in node.outputs:
            if output.name not in fixed:
                output.name = f"{node.name}_output"
        count[kind] += 1
    return model


def _rename_initializer(graph: ir.Graph, value: ir.Value) -> None:
    assert value.name is not None  # an initializer is found by its name
    del graph.initializers[value.name]
    value.name = value.name.removeprefix(WRAPPER_PREFIX)
    if value.const_value is not None:
        value.const_value.name = value.name
    graph.register_initializer(value)
