"""Protobuf's wire format, written without its library: enough to add to a message.

A message is a row of fields, each a number, a wire type and a payload; nested messages, strings and
packed arrays have their length in front.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def varint(value: int) -> bytes:
    """A number, seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def tag(number: int, wire: int) -> bytes:
    """What stands in front of a field."""
    return varint(number << 3 | wire)


def framed(number: int, payload: bytes) -> bytes:
    """A field that holds bytes, text or a message."""
    return tag(number, BYTES) + varint(len(payload)) + payload


def entry(number: int, key: str, value: str) -> bytes:
    """A StringStringEntryProto."""
    return framed(number, framed(1, key.encode()) + framed(2, value.encode()))


def with_outputs(model: bytes, names: Iterable[str]) -> bytes:
    """A serialised ONNX model whose graph also outputs these of its values.

    Messages merge where their bytes are put end to end, so a ModelProto { graph (7): GraphProto {
    output (12): ValueInfoProto { name (1) } } } after the model adds to its list of outputs; their
    types are left to the inference of the reader.
    """
    outputs = (framed(12, framed(1, name.encode())) for name in names)
    return model + framed(7, b"".join(outputs))


def with_inputs(model: bytes, names: Iterable[str]) -> bytes:
    """A serialised ONNX model whose graph also has these of its initializers as inputs.

    Their values may then be overridden, so that no reader takes them for constants. It is a field
    input (11) beside `with_outputs`'s; types and shapes are those of the initializers.
    """
    inputs = (framed(11, framed(1, name.encode())) for name in names)
    return model + framed(7, b"".join(inputs))
