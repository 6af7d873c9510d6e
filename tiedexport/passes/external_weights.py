"""Initializers that point into the bundle's safetensors file, at one offset in every graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from tiedexport.bundle import safetensors_layout
from tiedexport.errors import GraphError
from tiedexport.passes.lower_precision import ONNX_DTYPES

if TYPE_CHECKING:
    from tiedexport.passes import Plan


def apply(model: ir.Model, plan: Plan) -> ir.Model:
    """Replace every initializer by its place in the file, in place.

    Raises:
        GraphError: the file lacks an initializer, or holds it in another type or shape.
    """
    layout = safetensors_layout(plan.weights)
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        assert tensor is not None  # an initializer has a tensor
        if name not in layout:
            raise GraphError(
                "a tensor that is no parameter", where=name, expected=", ".join(layout)
            )
        precision, shape, offset, length = layout[name]
        if ONNX_DTYPES[precision] != tensor.dtype or shape != tuple(tensor.shape):
            raise GraphError(
                "graph and weights file disagree",
                where=name,
                got=f"{tensor.dtype}{list(tensor.shape)}",
                expected=f"{precision}{list(shape)}",
            )
        value.const_value = ir.ExternalTensor(
            plan.weights.name,
            offset,
            length,
            tensor.dtype,
            shape=ir.Shape(shape),
            name=name,
            base_dir=plan.weights.parent,
        )
    return model
