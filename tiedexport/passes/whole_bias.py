"""The bias of a transposed convolution on every element of its output.

Where the kernel is an input of the network and `output_padding` exceeds the padding at the end,
TensorRT's parser appends the rows and columns that no kernel reaches after it has added the bias:
they stay zero. With the bias as an addition of its own they get it, as ONNX has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from tiedexport.passes import Plan


def apply(model: ir.Model, plan: Plan) -> ir.Model:
    """Split the bias off wherever the parser would lose some of it, in place."""
    for node in list(model.graph):
        if node.op_type == "ConvTranspose" and len(node.inputs) > 2 and _outgrows(node):
            _split(model.graph, node)
    return model


def _outgrows(node: ir.Node) -> bool:
    padding = _ints(node, "output_padding")
    pads = _ints(node, "pads") or (0,) * (2 * len(padding))
    return any(more > end for more, end in zip(padding, pads[len(padding) :], strict=False))


def _ints(node: ir.Node, name: str) -> tuple[int, ...]:
    attribute = node.attributes.get(name)
    return () if attribute is None else tuple(attribute.as_ints())


def _split(graph: ir.Graph, node: ir.Node) -> None:
    """ConvTranspose(x, k, b) → ConvTranspose(x, k) + b of shape [channels, 1, 1]."""
    bias, output = node.inputs[2], node.outputs[0]
    assert bias is not None
    assert output.shape is not None
    axes = ir.tensor(list(range(1, len(output.shape) - 1)), ir.DataType.INT64, name="axes")
    constant = ir.node("Constant", [], {"value": axes}, name=f"{node.name}_bias_axes")
    shaped = ir.node("Unsqueeze", [bias, constant.outputs[0]], name=f"{node.name}_bias_shape")
    product = ir.node(
        "ConvTranspose", list(node.inputs[:2]), dict(node.attributes), name=f"{node.name}_product"
    )
    total = ir.node("Add", [product.outputs[0], shaped.outputs[0]], name=node.name)
    for made in (constant, shaped, product):
        assert made.name is not None
        made.outputs[0].name = f"{made.name}_output"
    for value in (product.outputs[0], total.outputs[0]):
        value.type, value.shape = output.type, output.shape
    ir.convenience.replace_nodes_and_values(
        graph, node, [node], [constant, shaped, product, total], [output], [total.outputs[0]]
    )
