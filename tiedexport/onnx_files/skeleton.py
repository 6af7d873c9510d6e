"""An ONNX file rewritten without its weights: every larger tensor becomes an external one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx_ir as ir

from tiedexport.errors import GraphError
from tiedexport.onnx_files.wire import Field, WireFile
from tiedexport.protobuf import BYTES, VARINT, entry, framed, tag, varint

if TYPE_CHECKING:
    from tiedexport.onnx_files.external import DataFolder

ONNX_EXTERNAL = 1
"""TensorProto.data_location of external data."""

INLINE_BYTES = 1024
"""Tensors up to this size stay in the graph: shapes and axes, which shape inference reads."""

OFFSET_KEY = "tiedexport.offset"
"""Metadata of a tensor that stays inline: the offset and length of its bytes in the file."""

SPARSE_KEY = "tiedexport.sparse_dims"
"""Metadata of the values of a sparse tensor: its dense shape. onnx_ir knows
no sparse attributes, so one becomes a list of tensors: values, indices."""

_DEEPEST = 100  # messages in messages: protobuf itself refuses more

_NESTED: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse initializer"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
}
"""Message → field number → message of the field. What is not named here is copied as it is."""

_RAW_DATA = 9
_PAYLOADS = (4, 5, 7, _RAW_DATA, 10, 11)  # float, int32, int64, raw, double, uint64
_VERBATIM = {
    4: (ir.DataType.FLOAT, ir.DataType.COMPLEX64),
    10: (ir.DataType.DOUBLE, ir.DataType.COMPLEX128),
}
"""Typed fields that hold a packed tensor of these types byte for byte; the others are varints."""


class Skeleton:
    """An ONNX file as the bytes of a ModelProto in which every larger tensor is external.

    Args:
        file: its absolute path becomes the location of the tensors that were inline.
        folder: checks what was external before.
    """

    def __init__(self, file: WireFile, folder: DataFolder) -> None:
        self._file, self._folder = file, folder
        self._location = str(file.path.resolve())

    def model(self) -> bytes:
        """The rewritten ModelProto.

        Raises:
            GraphError: not protobuf, truncated, or a tensor without the bytes it declares.
        """
        return self._message("model", 0, len(self._file.data), 0)

    def _message(self, kind: str, start: int, stop: int, depth: int) -> bytes:
        if depth > _DEEPEST:
            raise GraphError(
                "graphs nested too deeply", where=self._file.path, got=f"more than {depth} messages"
            )
        parts, kept = [], start
        for field in self._file.fields(start, stop):
            child = _NESTED[kind].get(field.number)
            if child is None or field.wire != BYTES:
                continue
            parts.append(self._file.data[kept : field.start])
            parts.append(self._child(child, field, depth + 1))
            kept = field.end
        return b"".join([*parts, self._file.data[kept:stop]])

    def _child(self, kind: str, field: Field, depth: int) -> bytes:
        if kind == "tensor":
            return framed(field.number, self._tensor(field.begin, field.end))
        if kind == "sparse":
            return self._sparse(field)
        if kind == "sparse initializer":
            return self._sparse_initializer(field)
        return framed(field.number, self._message(kind, field.begin, field.end, depth))

    def _sparse_initializer(self, field: Field) -> bytes:
        """As the Constant that it is an abbreviation of: onnx_ir knows no sparse initializers."""
        name = next(
            (
                self._file.text(inner)
                for outer in self._file.fields(field.begin, field.end)
                if outer.number == 1
                for inner in self._file.fields(outer.begin, outer.end)
                if inner.number == 8
            ),
            "",
        )
        attribute = framed(1, b"sparse_value") + self._sparse(field)
        node = framed(2, name.encode()) + framed(4, b"Constant") + framed(5, attribute)
        return framed(1, node)

    def _sparse(self, field: Field) -> bytes:
        """The value of a sparse attribute as a list of tensors: see `SPARSE_KEY`."""
        dims: list[int] = []
        tensors = {1: b"", 2: b""}
        for inner in self._file.fields(field.begin, field.end):
            if inner.number in tensors and inner.wire == BYTES:
                tensors[inner.number] = self._tensor(inner.begin, inner.end)
            elif inner.number == 3:
                dims += self._file.varints(inner)
        values = tensors[1] + entry(16, SPARSE_KEY, ",".join(map(str, dims)))
        kind = tag(20, VARINT) + varint(ir.AttributeType.TENSORS.value)
        return framed(10, values) + framed(10, tensors[2]) + kind

    def _tensor(self, start: int, stop: int) -> bytes:
        """The TensorProto, external if it is large and lies in one piece."""
        tensor = _Tensor(self._file, start, stop)
        if tensor.external is not None:
            self._folder.check(tensor.label, tensor.external, tensor.size_bytes)
        elif tensor.size_bytes:
            return self._inline(tensor, start, stop)
        return self._file.data[start:stop]

    def _inline(self, tensor: _Tensor, start: int, stop: int) -> bytes:
        length = sum(payload.end - payload.begin for payload in tensor.payloads)
        if length != tensor.size_bytes and (tensor.in_one_piece or not length):
            raise GraphError(
                "a tensor of another size than its type and shape",
                where=f"{tensor.label} in {self._file.path}",
                got=f"{length} bytes",
                expected=f"{tensor.size_bytes} bytes: {tensor.dtype.name}{tensor.dims}",
            )
        first = tensor.payloads[0]
        if not tensor.in_one_piece or length <= INLINE_BYTES:
            return self._file.data[start:stop] + entry(16, OFFSET_KEY, f"{first.begin} {length}")
        kept = self._file.data[start : first.start] + self._file.data[first.end : stop]
        place = {"location": self._location, "offset": first.begin, "length": length}
        entries = b"".join(entry(13, key, str(value)) for key, value in place.items())
        return kept + entries + tag(14, VARINT) + varint(ONNX_EXTERNAL)


class _Tensor:
    """What a TensorProto declares; its payload is stepped over.

    Attributes:
        label: its name, quoted.
        external: key → value of its external data, None where it is inline.
        payloads: the fields with its elements.
        in_one_piece: whether these are its elements byte for byte.
    """

    def __init__(self, file: WireFile, start: int, stop: int) -> None:
        self.dims: list[int] = []
        self.payloads: list[Field] = []
        name, kind, location, entries = "", 0, 0, {}
        for field in file.fields(start, stop):
            match field.number:
                case 1:
                    self.dims += file.varints(field)
                case 2 if field.wire == VARINT:
                    kind = file.varints(field)[0]
                case 8:
                    name = file.text(field)
                case 13 if field.wire == BYTES:
                    pair = {f.number: file.text(f) for f in file.fields(field.begin, field.end)}
                    entries[pair.get(1, "")] = pair.get(2, "")
                case 14 if field.wire == VARINT:
                    location = file.varints(field)[0]
                case number if number in _PAYLOADS:
                    self.payloads.append(field)
        self.label = repr(name)
        self.dtype = self._known(kind, file)
        self.external = entries if location == ONNX_EXTERNAL else None
        self.size_bytes = self._declared_bytes(file)
        self.in_one_piece = len(self.payloads) == 1 and self._verbatim(self.payloads[0])

    def _known(self, kind: int, file: WireFile) -> ir.DataType:
        try:
            dtype = ir.DataType(kind)
        except ValueError:
            dtype = ir.DataType.UNDEFINED
        if dtype == ir.DataType.UNDEFINED:
            raise GraphError(
                "a tensor of an unknown type",
                where=f"{self.label} in {file.path}",
                got=f"data_type {kind}",
                hint="a newer onnx_ir may know it: pip install -U onnx-ir",
            )
        return dtype

    def _declared_bytes(self, file: WireFile) -> int:
        if min(self.dims, default=0) < 0:
            raise GraphError(
                "a tensor of negative size", where=f"{self.label} in {file.path}", got=self.dims
            )
        bits = 0 if self.dtype == ir.DataType.STRING else self.dtype.bitwidth
        return (math.prod(self.dims) * bits + 7) // 8

    def _verbatim(self, field: Field) -> bool:
        return field.wire == BYTES and (
            field.number == _RAW_DATA or self.dtype in _VERBATIM.get(field.number, ())
        )
