"""One way of writing each layer, whatever way its author took.

`x @ W.t() + b`, `addmm(b, x, W.t())` and `linear(x, W, b)` become Gemm(x, W, b, transB=1); what
multiplies by W itself becomes the same on a Transpose of it, which no runtime folds into a copy.
Flatten, Squeeze, Unsqueeze and Reshape become Reshape to constants that keep the batch axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

if TYPE_CHECKING:
    from tiedexport.passes import Plan

_RESHAPING = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})
_COPYING = frozenset({"Expand", "CastLike", "Cast"})


def apply(model: ir.Model, plan: Plan) -> ir.Model:
    """Rewrite nodes in place; what is no layer stays as it is."""
    for node in list(model.graph):
        if node.op_type in ("MatMul", "Gemm"):
            _write_gemm(node)
        elif node.op_type == "Add":
            _fold_bias(node)
        elif node.op_type in _RESHAPING:
            _write_reshape(node)
        elif node.op_type in ("Conv", "ConvTranspose"):
            _drop_zero_bias(node)
    return common.RemoveUnusedNodesPass()(model).model


def _write_gemm(node: ir.Node) -> None:
    attributes = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
    attributes |= {name: attribute.value for name, attribute in node.attributes.items()}
    x, factor, *bias = node.inputs
    weight, turned = _behind_transposes(factor)
    if weight is None or not (node.op_type == "Gemm" or _rank(x) == 2):
        return
    if (attributes["alpha"], attributes["beta"], attributes["transA"]) != (1.0, 1.0, 0):
        return
    new = []
    second = weight
    if turned == bool(attributes["transB"]):  # it multiplies by W, which is (Wᵀ)ᵀ
        new.append(ir.node("Transpose", [weight], {"perm": [1, 0]}))
        second = new[0].outputs[0]
        second.type, second.shape = weight.type, ir.Shape(_dims(weight)[::-1])
    new.append(ir.node("Gemm", [x, second, *bias], {"transB": 1}))
    _replace([node], new)


def _behind_transposes(value: ir.Value | None) -> tuple[ir.Value | None, bool]:
    """The stored matrix behind any number of Transpose nodes, and whether they turn it."""
    turned = False
    while value is not None and (producer := value.producer()) is not None:
        if producer.op_type != "Transpose":
            return None, False
        value, turned = producer.inputs[0], not turned
    is_matrix = value is not None and value.is_initializer() and _rank(value) == 2
    return (value if is_matrix else None), turned


def _fold_bias(node: ir.Node) -> None:
    """Gemm(x, W) + b, in either order, where nothing else reads the product."""
    for product, bias in (node.inputs, reversed(node.inputs)):
        gemm = None if product is None else product.producer()
        if product is None or gemm is None or gemm.op_type != "Gemm" or len(gemm.inputs) != 2:
            continue
        factor = gemm.inputs[1]
        width = None if factor is None else _dims(factor)[0]  # of what stands behind transB=1
        alone = len(product.uses()) == 1 and not product.is_graph_output()
        if alone and bias is not None and bias.is_initializer() and _dims(bias) == [width]:
            folded = ir.node("Gemm", [*gemm.inputs, bias], {"transB": 1})
            _replace([gemm, node], [folded])
            return


def _write_reshape(node: ir.Node) -> None:
    source, result = node.inputs[0], node.outputs[0]
    if source is None or source.shape is None or result.shape is None or not result.shape.rank():
        return
    batch, *element = result.shape
    if (
        source.shape.rank()
        and source.shape[0] == batch
        and all(isinstance(n, int) for n in element)
    ):
        kept = ir.tensor(np.array([0, *element], np.int64))  # 0 copies the axis of the input
        constant = ir.node("Constant", [], {"value": kept})
        constant.outputs[0].type = ir.TensorType(ir.DataType.INT64)
        constant.outputs[0].shape = ir.Shape([len(element) + 1])
        _replace([node], [constant, ir.node("Reshape", [source, constant.outputs[0]])])


def _drop_zero_bias(node: ir.Node) -> None:
    """The exporter writes zeros that it computes where a convolution has no bias."""
    value = node.inputs[2] if len(node.inputs) > 2 else None
    while value is not None and (producer := value.producer()) is not None:
        if producer.op_type == "Constant" and "value" in producer.attributes:
            if not producer.attributes["value"].as_tensor().numpy().any():
                node.resize_inputs(2)
            return
        value = producer.inputs[0] if producer.op_type in _COPYING else None


def _replace(old: list[ir.Node], new: list[ir.Node]) -> None:
    """Put nodes in the place of others; the last of each computes the same value."""
    graph = old[-1].graph
    assert graph is not None  # nodes of a graph are being rewritten
    ir.convenience.replace_nodes_and_values(
        graph, old[-1], old, new, old[-1].outputs, new[-1].outputs
    )


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else value.shape.rank()


def _dims(value: ir.Value) -> list[int | ir.SymbolicDim]:
    return [] if value.shape is None else list(value.shape)
