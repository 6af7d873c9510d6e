"""Nothing superfluous, whatever the exporter's version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_ir.passes import common

if TYPE_CHECKING:
    import onnx_ir as ir

    from tiedexport.passes import Plan


def apply(model: ir.Model, plan: Plan) -> ir.Model:
    """Inline functions, drop metadata, dead code and identities."""
    for simplify in (
        common.InlinePass(),
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.ClearMetadataAndDocStringPass(),
    ):
        model = simplify(model).model
    model.graph.name = "tiedexport"
    return model
