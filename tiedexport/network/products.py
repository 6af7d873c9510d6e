"""Whether a parsed network really multiplies in the types that were asked for.

A flag such as `fp16=True` can silently build fp32. In a strongly typed network the types stand in
the network, so they can be read before anything is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiedexport.network import Node, Parsed, type_name
from tiedexport.spec import WEIGHTED_OPS, Layer, Precision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PRODUCTS = ("MATRIX_MULTIPLY", "CONVOLUTION", "DECONVOLUTION")


def check(
    parsed: Parsed,
    layers: Sequence[Layer],
    precision: Precision,
    kept: Mapping[str, Precision],
) -> None:
    """Hold every product of the network to its type: operands, weight and result.

    Args:
        parsed: the network.
        layers: those of the stage that it computes, in the order of its products.
        precision: the type of every product,
        kept: except those with these weights.

    Raises:
        RuntimeError: a product has another type, or the network has more or fewer products.
    """
    weighted = [layer for layer in layers if layer.op in WEIGHTED_OPS]
    products = [node for node in parsed.nodes if node.kind in _PRODUCTS]
    if len(products) != len(weighted):
        raise RuntimeError(f"{len(products)} products in the network, {len(weighted)} in the stage")
    for node, layer in zip(products, weighted, strict=True):
        asked = kept.get(layer.weight or "", precision)
        operands, result = _types(node)
        if {*operands, result} != {asked.value}:
            raise RuntimeError(
                f"layer {node.name} computes {', '.join(operands)} → {result}, asked for {asked}"
            )


def matrix_sizes(parsed: Parsed) -> set[int]:
    """Every size of a weight that a matrix product takes."""
    weights = [node.inputs[1] for node in parsed.nodes if node.kind == "MATRIX_MULTIPLY"]
    return {size for weight in weights for size in weight.shape}


def _types(node: Node) -> tuple[list[str], str]:
    """Types of the operands, and of the result."""
    operands = [type_name(tensor) for tensor in node.inputs if tensor is not None]
    return operands, type_name(node.outputs[0])
