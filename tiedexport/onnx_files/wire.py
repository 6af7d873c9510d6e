"""Protobuf's wire format: fields found and stepped over without reading what they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tiedexport.errors import GraphError
from tiedexport.protobuf import BYTES, FIXED32, FIXED64, VARINT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from mmap import mmap
    from pathlib import Path


class Field(NamedTuple):
    """A field of a message: where it starts, and where its payload begins and ends."""

    number: int
    wire: int
    start: int
    begin: int
    end: int


class WireFile:
    """A mapped protobuf file. Every method raises GraphError where the bytes make no sense."""

    def __init__(self, data: mmap, path: Path) -> None:
        self.data, self.path = data, path

    def fields(self, start: int, stop: int) -> Iterator[Field]:
        """The fields of the message that lies between two offsets."""
        at = start
        while at < stop:
            tag, begin = self._read_varint(at, stop)
            number, wire = tag >> 3, tag & 7
            if wire == VARINT:
                end = self._read_varint(begin, stop)[1]
            elif wire == BYTES:
                length, begin = self._read_varint(begin, stop)
                end = begin + length
            elif wire in (FIXED32, FIXED64):
                end = begin + (4 if wire == FIXED32 else 8)
            else:
                raise self._broken(at, f"wire type {wire}")
            if number == 0:
                raise self._broken(at, "field number 0")
            if end > stop:
                raise self._broken(at, f"a field of {end - begin} bytes, {stop - begin} are left")
            yield Field(number, wire, at, begin, end)
            at = end

    def _read_varint(self, at: int, stop: int) -> tuple[int, int]:
        value = shift = 0
        while at < stop and shift < 70:
            byte = self.data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, at
            shift += 7
        raise self._broken(at, "a number that does not end")

    def varints(self, field: Field) -> list[int]:
        """The int64 values of a repeated field, packed or not."""
        values, at = [], field.begin
        while at < field.end:
            value, at = self._read_varint(at, field.end)
            values.append(value - (1 << 64) if value >> 63 else value)
        return values

    def text(self, field: Field) -> str:
        """The payload as UTF-8."""
        return str(self.data[field.begin : field.end], errors="replace")

    def _broken(self, at: int, got: str) -> GraphError:
        return GraphError(
            "not an ONNX file, or damaged",
            where=f"{self.path}, byte {at}",
            got=got,
            expected="a protobuf field",
            hint="export or download the file again",
        )
