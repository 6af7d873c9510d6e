"""One graph that is being mended: its names, its constants, and nodes put at its front."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from tiedexport import onnx_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiedexport.stored import StoredTensor

INPUTS_HOLD_INITIALIZERS = 4
"""Below this IR version every initializer must be an input as well."""

_ANNOTATION = "quant_parameter_tensor_names"  # where onnx_ir keeps a value's annotation


class GraphFile:
    """An ONNX file and its graph, which is edited in place; the file is not.

    Args:
        path: as the user gave it.
        written_name: what it is called where it is written; "" for its own name.
    """

    def __init__(self, path: Path, written_name: str = "") -> None:
        self.path, self.written_name = path, written_name or path.name
        self.model = onnx_files.load(path)
        self._graphs = set(self.model.graphs())
        self._defined = Counter(name for graph in self._graphs for name in _definitions(graph))

    def tensors(self) -> list[StoredTensor]:
        """Everything that the graph stores now."""
        return onnx_files.stored_tensors(self.model, self.path)

    def why_fixed(self, tensor: StoredTensor) -> str:
        """Why a tensor cannot give way or be shared by others; "" if it can."""
        value = constant_value(tensor.handle)
        if value is None:
            return "part of a sparse tensor or of an attribute that is no tensor"
        if value.graph not in self._graphs:
            return "inside a local function, which sees no initializer"
        if value.is_graph_input() and self.model.ir_version >= INPUTS_HOLD_INITIALIZERS:
            return "also an input of the graph: a caller may override it"
        if value.name in self._named_elsewhere:
            return "named by a quantisation annotation"
        return ""

    def why_unsupported(self, op: str, dtype: ir.DataType) -> str:
        """Why a node cannot take a tensor of this type in the model's opset; "" if it can."""
        opset = self.model.graph.opset_imports.get("")
        if opset is None:
            return f"the model imports no ONNX opset to take {op} from"
        try:
            schema = onnx.defs.get_schema(op, opset, "")
        except onnx.defs.SchemaError:
            return f"opset {opset} has no {op}"
        admitted = {
            t for constraint in schema.type_constraints for t in constraint.allowed_type_strs
        }
        if f"tensor({_type_name(dtype)})" not in admitted:
            return f"{op} of opset {opset} takes no {dtype.name}"
        return "" if opset >= _OLDEST[op] else f"{op} of opset {opset} has another form"

    def add_initializer(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        """A new initializer of the main graph, of this name or one like it."""
        value = ir.Value(
            name=self.free(name), const_value=tensor, shape=tensor.shape,  # type: ignore[arg-type]
            type=ir.TensorType(tensor.dtype),
        )  # fmt: skip
        self.model.graph.initializers.add(value)
        if self.model.ir_version < INPUTS_HOLD_INITIALIZERS:
            self.model.graph.inputs.append(value)
        return value

    def add_node(
        self, op: str, inputs: Sequence[ir.Value], name: str, **attributes: object
    ) -> ir.Value:
        """A new node at the front of the main graph, after the one before; returns its output."""
        output = ir.Value(name=self.free(name))
        node = ir.node(op, inputs, attributes, outputs=[output])  # type: ignore[arg-type]
        graph, producer = self.model.graph, inputs[0].producer()
        if producer is not None:
            graph.insert_after(producer, node)
        elif len(graph):
            graph.insert_before(graph[0], node)
        else:
            graph.append(node)
        return output

    def to_front(self, value: ir.Value) -> ir.Value:
        """The same constant as an initializer of the main graph, where every node can see it."""
        name, tensor = str(value.name), constant_tensor(value)
        hidden = self._defined[name] > 1  # a subgraph has something else of this name
        if value.is_initializer() and value.graph is self.model.graph:
            if not hidden:
                return value
            if not value.is_graph_output():
                value.name = self.free(name)
                self.release(name)
                return value
        if not value.is_graph_output():
            self.release(name)  # it may go on with the tensor
        return self.replace(value, self.add_initializer(name, tensor))

    def replace(self, old: ir.Value, new: ir.Value) -> ir.Value:
        """Let every use of a constant read `new`, and remove the constant."""
        node, graph = old.producer(), old.graph
        if old.is_graph_output():
            assert graph is not None  # its outputs name it
            self._return(graph, old, new)
        old.replace_all_uses_with(new)
        if node is not None:
            assert node.graph is not None
            node.graph.remove(node, safe=True)
        elif graph is not None:
            if old.is_graph_input():
                graph.inputs.remove(old)
            del graph.initializers[str(old.name)]
        return new

    def _return(self, graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
        """Let a graph return `new` by the name of `old`: by an Identity, as names are its API."""
        output = ir.Value(name=old.name, type=old.type, shape=old.shape)
        graph.append(ir.node("Identity", [new], outputs=[output]))
        for i, returned in enumerate(graph.outputs):
            if returned is old:
                graph.outputs[i] = output

    def release(self, name: str) -> None:
        """Let the next definition take the name of one that goes away."""
        self._defined[name] -= 1

    def free(self, wanted: str) -> str:
        """A name that no graph of the model defines, as much like this one as can be."""
        name, number = wanted, 0
        while self._defined[name]:
            number += 1
            name = f"{wanted}_{number}"
        self._defined[name] += 1
        return name

    @cached_property
    def _named_elsewhere(self) -> set[str | None]:
        """Names that a graph mentions other than by using the value."""
        values = (
            value
            for graph in self._graphs
            for value in (
                *graph.inputs,
                *graph.initializers.values(),
                *(output for node in graph for output in node.outputs),
            )
        )
        return {name for value in values for name in (value.meta.get(_ANNOTATION) or {}).values()}


def constant_value(handle: object) -> ir.Value | None:
    """The value of an initializer or of a Constant node that holds a tensor."""
    if isinstance(handle, ir.Value):
        return handle
    if not isinstance(handle, ir.Node) or handle.op_type != "Constant":
        return None
    held = handle.attributes.get("value")
    return None if held is None or held.is_ref() else handle.outputs[0]


def constant_tensor(value: ir.Value) -> ir.TensorProtocol:
    """What an initializer or a Constant node holds."""
    node = value.producer()
    tensor = value.const_value if node is None else node.attributes["value"].as_tensor()
    assert tensor is not None  # both hold one
    return tensor


def _definitions(graph: ir.Graph) -> list[str | None]:
    """Every name that a graph defines, once each."""
    values = {*graph.inputs, *graph.initializers.values()}
    values.update(output for node in graph for output in node.outputs)
    return [value.name for value in values]


_OLDEST = {"Transpose": 1, "Reshape": 5, "Cast": 6, "Identity": 1}
"""Opset from which a node has today's inputs and attributes."""

_TYPE_NAMES = {"FLOAT": "float", "DOUBLE": "double"}


def _type_name(dtype: ir.DataType) -> str:
    """As the schemas of onnx spell it: bfloat16, float8e4m3fn, int64."""
    return _TYPE_NAMES.get(dtype.name, dtype.name.lower())
