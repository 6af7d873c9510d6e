"""The network that TensorRT's parser makes of an ONNX graph: what a builder is really told."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tiedexport import trt

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Node:
    """One layer of a parsed network.

    Attributes:
        kind: its LayerType by name, "MATRIX_MULTIPLY".
        layer: itself, with the attributes of its kind.
    """

    kind: str
    layer: Any

    @property
    def name(self) -> str:
        """The ONNX node's name, or one that the parser made up."""
        return str(self.layer.name)

    @property
    def inputs(self) -> tuple[Any, ...]:
        """Its input ITensors; None for an optional one that is absent."""
        return tuple(self.layer.get_input(index) for index in range(self.layer.num_inputs))

    @property
    def outputs(self) -> tuple[Any, ...]:
        """Its output ITensors."""
        return tuple(self.layer.get_output(index) for index in range(self.layer.num_outputs))


@dataclass(frozen=True)
class Parsed:
    """A network, and what must live as long as it: it refers to weights that the parser holds.

    The parser stands first because it must also be the first to go.
    """

    parser: Any
    network: Any
    builder: Any
    handle: trt.Handle

    @property
    def inputs(self) -> tuple[Any, ...]:
        """The network's inputs as ITensors."""
        return tuple(self.network.get_input(index) for index in range(self.network.num_inputs))

    @property
    def outputs(self) -> tuple[Any, ...]:
        """The network's outputs as ITensors."""
        return tuple(self.network.get_output(index) for index in range(self.network.num_outputs))

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every layer, in the order in which the parser added them: inputs come first."""
        return tuple(self._node(index) for index in range(self.network.num_layers))

    def _node(self, index: int) -> Node:
        """The bindings hand out plain ILayers, which lack the attributes of their kinds."""
        module, layer = self.handle.module, self.network.get_layer(index)
        kind = module.ILayer.type.__get__(layer).name  # IActivationLayer has another `type`
        wanted = f"i{kind.replace('_', '')}layer".lower()
        for name in dir(module):
            if name.lower() == wanted:
                layer.__class__ = getattr(module, name)
        return Node(kind, layer)


def parse(handle: trt.Handle, graph: Path | bytes) -> Parsed:
    """Parse an ONNX graph into a strongly typed network: the graph alone decides on every type.

    Args:
        handle: TensorRT or TensorRT-RTX.
        graph: a serialised graph, or the path of one with its external data beside it.

    Raises:
        RuntimeError: the parser refused it, in its own words, with the nodes that it names.
    """
    module = handle.module
    builder = module.Builder(handle.logger)
    # Required by TensorRT 10; TensorRT 11 and TensorRT-RTX know no other networks.
    strongly_typed = 1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(strongly_typed)
    parser = module.OnnxParser(network, handle.logger)
    in_memory = isinstance(graph, bytes)
    if not (parser.parse(graph) if in_memory else parser.parse_from_file(str(graph))):
        raise RuntimeError("; ".join(_words(parser)))
    return Parsed(parser, network, builder, handle)


def layer_list(parsed: Parsed) -> tuple[str, ...]:
    """The network, a line a layer: kind, name, type of the result ← types of the operands.

    An operand that a matrix product transposes is marked: `MATRIX_MULTIPLY gemm fp16 ← fp16,
    fp16ᵀ`.
    """
    return tuple(_line(parsed, node) for node in parsed.nodes)


def type_name(tensor: Any) -> str:
    """The type of an ITensor: "fp16", "bf16", "fp32", else TensorRT's word in lower case."""
    name = str(tensor.dtype.name)
    return str(trt.DATA_TYPES.get(name, name.lower()))


def _line(parsed: Parsed, node: Node) -> str:
    operands = [type_name(tensor) for tensor in node.inputs if tensor is not None]
    if node.kind == "MATRIX_MULTIPLY":
        transpose = parsed.handle.module.MatrixOperation.TRANSPOSE
        flags = (node.layer.op0, node.layer.op1)
        operands = [
            f"{operand}ᵀ" if flag == transpose else operand
            for operand, flag in zip(operands, flags, strict=True)
        ]
    results = ", ".join(type_name(tensor) for tensor in node.outputs)
    return f"{node.kind} {node.name} {results}" + (f" ← {', '.join(operands)}" if operands else "")


def _words(parser: Any) -> list[str]:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return [
        f"{error.desc()} (node {error.node_name() or error.node()}, {error.node_operator()})"
        for error in errors
    ]
