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
        """Transpose, Reshape and Cast of the kept value, as needed; the last takes the old name."""
        ops, name = ops_between(self._tensor, copy), str(old.name)
        if not old.is_graph_output():
            file.release(name)
        value = kept
        for op in ops:
            output = name if op == ops[-1] else f"{name}_{op.lower()}"
            if op == "Transpose":
                value = file.add_node(op, [value], output, perm=list(copy.axes))
            elif op == "Cast":
                value = file.add_node(op, [value], output, to=int(dtype_of(copy.tensor)))
            else:
                shape = ir.tensor(list(copy.tensor.shape), ir.DataType.INT64)
                value = file.add_node(
                    op, [value, file.add_initializer(f"{name}_shape", shape)], output
                )
        return value


def _turn_gemms(old: ir.Value, kept: ir.Value) -> list[str]:
    """Let each Gemm that reads `old` as a matrix read its transpose; returns the flags turned."""
    turned = []
    for node, index in tuple(old.uses()):
        if node.op_type == "Gemm" and node.domain == "" and index < 2:
            flag = ("transA", "transB")[index]
            if flag in node.attributes and node.attributes[flag].is_ref():
                continue
            node.replace_input_with(index, kept)
            node.attributes.add(ir.AttrInt64(flag, 1 - node.attributes.get_int(flag, 0)))
            turned.append(f"Gemm {flag}")
    return sorted(set(turned))


def _outside(tensor: ir.TensorProtocol, home: Path, name: str) -> ir.TensorProtocol:
    """The same bytes, named as seen from a graph in any folder."""
    if not isinstance(tensor, ir.ExternalTensor):
        tensor.metadata_props[SHARED_KEY] = str(id(tensor))
        return tensor
    path = (home.parent / tensor.location).resolve()
    return ir.ExternalTensor(
        path, tensor.offset, tensor.length, tensor.dtype, shape=tensor.shape.copy(), name=name
    )
