"""The kept tensor of a group: its value in each graph, and what is made of it there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from tiedexport.retie.forms import dtype_of, ops_between
from tiedexport.retie.graph import constant_tensor, constant_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiedexport.copies import Copy, Group
    from tiedexport.retie.graph import GraphFile
    from tiedexport.stored import StoredTensor

SHARED_KEY = "tiedexport.shared"
"""Metadata of a small tensor that several graphs hold: which one it is."""


class Kept:
    """Lets the copies of one group give way, one after the other, in the graphs of all files."""

    def __init__(self, files: Sequence[GraphFile], file_of: dict[Path, int], group: Group) -> None:
        self._files, self._tensor = files, group.original
        self._home = file_of[Path(group.original.home)]
        self._values: dict[int, ir.Value] = {}
        self._made: dict[tuple[int, str], ir.Value] = {}
        value = constant_value(group.original.handle)
        assert value is not None  # what is fixed is in no group
        self._source = constant_tensor(value)
        self._present = {self._home: value}

    def replace(self, index: int, copy: Copy, *, gemm_flags: bool) -> str:
        """Let a copy in a file give way; returns what stands in its place."""
        old = constant_value(copy.tensor.handle)
        assert old is not None
        file, ops = self._files[index], ops_between(self._tensor, copy)
        if not old.uses() and not old.is_graph_output():
            file.replace(old, old)
            return "removed, as nothing reads it"
        if not ops:
            self._share(index, old)
            return "shared"
        kept = self._value(index)
        turned = _turn_gemms(old, kept) if gemm_flags and ops == ["Transpose"] else []
        if turned and not old.uses() and not old.is_graph_output():
            file.replace(old, kept)
            return ", ".join(turned)
        form = index, f"{copy.axes} {copy.tensor.shape} {copy.tensor.dtype}"
        if form not in self._made:
            self._made[form] = self._derive(file, kept, old, copy)
        file.replace(old, self._made[form])
        return ", ".join([*turned, " + ".join(ops)])

    def adopt(self, index: int, tensor: StoredTensor) -> None:
        """Note what a graph has for the kept bytes already."""
        value = constant_value(tensor.handle)
        assert value is not None
        self._present.setdefault(index, value)

    def _value(self, index: int) -> ir.Value:
        """The kept tensor's initializer in a graph, made where there is none."""
        if index not in self._values:
            if index in self._present:
                self._values[index] = self._files[index].to_front(self._present[index])
            else:
                tensor = _outside(self._source, self._files[self._home].path, self._tensor.name)
                file = self._files[index]
                self._values[index] = file.add_initializer(self._tensor.name, tensor)
        return self._values[index]

    def _share(self, index: int, old: ir.Value) -> None:
        """Replace an equal tensor; the first in another file takes the kept one's bytes itself."""
        file = self._files[index]
        if index in self._values or index in self._present:
            file.replace(old, self._value(index))
            return
        own = file.to_front(old)
        own.const_value = _outside(self._source, self._files[self._home].path, str(own.name))
        self._values[index] = own

    def _derive(self, file: GraphFile, kept: ir.Value, old: ir.Value, copy: Copy) -> ir.Value:
        """The nodes that make a copy; the last takes the name of what they replace."""
        ops, name = ops_between(self._tensor, copy), str(old.name)
        if not old.is_graph_output():
            file.release(name)
        value = kept
        for at, op in enumerate(ops):
            inputs, attributes = [value], dict[str, object]()
            if op == "Transpose":
                attributes["perm"] = list(copy.axes)
            elif op == "Cast":
                again = "Cast" in ops[at + 1 :]
                attributes["to"] = int(ir.DataType.FLOAT if again else dtype_of(copy.tensor))
            elif op == "Reshape":
                shape = ir.tensor(list(copy.tensor.shape), ir.DataType.INT64)
                inputs.append(file.add_initializer(f"{name}_shape", shape))
            output = name if at == len(ops) - 1 else f"{name}_{op.lower()}"
            value = file.add_node(op, inputs, output, **attributes)
        return value


def _turn_gemms(old: ir.Value, kept: ir.Value) -> list[str]:
    """Let each Gemm that reads `old` read its transpose, where that keeps the order of its sums.

    Returns:
        The flag, if any was turned over.
    """
    readers = [use.node for use in old.uses() if use.idx == 1 and _keeps_order(use.node)]
    for node in readers:
        node.replace_input_with(1, kept)
        node.attributes.add(ir.AttrInt64("transB", 1 - node.attributes.get_int("transB", 0)))
    return ["Gemm transB"] * bool(readers)


def _keeps_order(node: ir.Node) -> bool:
    """Whether a node is a Gemm that adds up in the same order for either transB.

    ONNX Runtime multiplies a single row or column by kernels of its own, one for each flag; the
    result must be known to have more. With transA it cuts long sums elsewhere.
    """
    if (node.domain, node.op_type) != ("", "Gemm") or None in node.inputs[:2]:
        return False
    flags = [node.attributes.get_int(flag, 0) for flag in ("transA", "transB")]
    shapes = [value.shape for value in node.inputs[:2] if value is not None]
    if any(shape is None or len(shape) != 2 for shape in shapes):
        return False
    rows, columns = (
        shape[axis] for shape, axis in zip(shapes, (flags[0], 1 - flags[1]), strict=True) if shape
    )
    return isinstance(rows, int) and rows > 1 and isinstance(columns, int) and columns > 1


def _outside(tensor: ir.TensorProtocol, home: Path, name: str) -> ir.TensorProtocol:
    """The same bytes, named as seen from a graph in any folder."""
    if not isinstance(tensor, ir.ExternalTensor):
        tensor.metadata_props[SHARED_KEY] = str(id(tensor))
        return tensor
    path = (home.parent / tensor.location).resolve()
    return ir.ExternalTensor(
        path, tensor.offset, tensor.length, tensor.dtype, shape=tensor.shape.copy(), name=name
    )
