"""Names that come from operators and parameters alone, whatever the exporter's version."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from tiedexport.passes import Plan


def apply(model: ir.Model, plan: Plan) -> ir.Model:
    """Name nodes by their operator and values by their node, in place."""
    graph = model.graph
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
