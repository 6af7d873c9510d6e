"""A stage's graph as a chain of layers: for the error bound and for runtimes that read no ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import msgspec

from tiedexport.errors import GraphError
from tiedexport.spec import Layer, LayerOp

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

ANY_NETWORK = "any other network: export it to ONNX, then tiedexport retie MODEL.onnx -o OUT"
"""What to do with a graph that is no chain of layers."""


def layers_from_graph(graph: ir.Graph) -> tuple[Layer, ...]:
    """The layers of a canonical fp32 graph with one input and one output, in order.

    Raises:
        GraphError: the graph is no chain, or holds an operator that no layer describes.
    """
    current = graph.inputs[0]
    layers = []
    for node in graph:
        if node.op_type == "Constant" or _turns_a_weight(node):
            continue
        layer = _READERS.get(node.op_type, _activation)(node)
        layers.append(msgspec.structs.replace(layer, output=node.outputs[0].name or ""))
        if node.inputs[0] is not current:
            got = _values(node.inputs)
            raise GraphError("not a chain of layers", where=node.name, got=got, hint=ANY_NETWORK)
        current = node.outputs[0]
    if current is not graph.outputs[0]:
        raise GraphError("not a chain of layers", where=graph.name, got=f"ends in {current.name}")
    return tuple(layers)


def _turns_a_weight(node: ir.Node) -> bool:
    first = node.inputs[0] if node.inputs else None
    return node.op_type == "Transpose" and first is not None and first.is_initializer()


def _dense(node: ir.Node) -> Layer:
    """Gemm(x, W, b, transB=1), or with Wᵀ from a Transpose node in the place of W; b may lack."""
    _require(node, {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1})
    weight = node.inputs[1]
    producer = None if weight is None else weight.producer()
    if producer is not None:
        if producer.op_type != "Transpose" or tuple(producer.attributes["perm"].as_ints()) != (
            1,
            0,
        ):
            raise GraphError("a weight that is computed", where=node.name, got=producer.op_type)
        weight = producer.inputs[0]
    return Layer("dense", _name(weight), _bias(node), transposed=producer is not None)


def _convolution(node: ir.Node) -> Layer:
    kernel = node.inputs[1]
    if kernel is None or kernel.shape is None or kernel.shape.rank() != 4:
        raise GraphError("a convolution over other than two axes", where=node.name, got=kernel)
    _require(node, {"group": 1, "dilations": (1, 1), "auto_pad": "NOTSET"})
    pads = _attribute(node, "pads", (0, 0, 0, 0))
    if pads[:2] != pads[2:]:
        raise GraphError("padding that is not symmetric", where=node.name, got=pads)
    return Layer(
        "conv" if node.op_type == "Conv" else "conv_transpose",
        _name(kernel),
        _bias(node),
        strides=_attribute(node, "strides", (1, 1)),
        pads=pads[:2],
        output_padding=_attribute(node, "output_padding", ()),
    )


def _reshape(node: ir.Node) -> Layer:
    """Reshape to a constant [0, …], where 0 keeps the batch axis."""
    producer = None if node.inputs[1] is None else node.inputs[1].producer()
    if producer is None or "value" not in producer.attributes:
        raise GraphError("a shape that moves the batch axis", where=node.name, hint=ANY_NETWORK)
    batch, *element = producer.attributes["value"].as_tensor().numpy().tolist()
    if batch != 0 or min(element, default=1) < 1:
        raise GraphError(
            "a shape that moves the batch axis", where=node.name, got=[batch, *element]
        )
    return Layer("reshape", shape=tuple(element))


def _activation(node: ir.Node) -> Layer:
    op: Any = node.op_type.lower()
    if op not in get_args(LayerOp) or len(node.inputs) != 1:
        raise GraphError(
            "an operator that no layer describes",
            where=node.name,
            got=node.op_type,
            expected=", ".join(get_args(LayerOp)),
            hint=f"Gelu needs --opset 20 or later; {ANY_NETWORK}",
        )
    _require(node, {"approximate": "none"})
    return Layer(op)


_READERS: dict[str, Callable[[ir.Node], Layer]] = {
    "Gemm": _dense,
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Reshape": _reshape,
}


def _attribute(node: ir.Node, name: str, default: Any) -> Any:
    if name not in node.attributes:
        return default
    value = node.attributes[name].value
    return tuple(value) if isinstance(value, list | tuple) else value


def _require(node: ir.Node, wanted: dict[str, Any]) -> None:
    for name, expected in wanted.items():
        got = _attribute(node, name, expected)
        if got != expected:
            raise GraphError(
                "an attribute that no layer describes",
                where=f"{node.name}.{name}",
                got=got,
                expected=expected,
            )


def _name(value: ir.Value | None) -> str:
    if value is None or value.name is None or not value.is_initializer():
        raise GraphError("a weight or bias that is no initializer", got=value)
    return value.name


def _bias(node: ir.Node) -> str | None:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return None
    if value.shape is None or value.shape.rank() != 1:
        raise GraphError("a bias that is no vector", where=node.name, got=value)
    return _name(value)


def _values(values: Any) -> str:
    return ", ".join(str(value.name) for value in values if value is not None)
