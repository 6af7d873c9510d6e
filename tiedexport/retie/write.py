"""Mended graphs as files: each kept tensor once, streamed from where it lies.

A tensor goes into the one data file of all graphs if it was external or if several graphs hold it;
what was inline in its own graph stays there.
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import onnx_ir as ir
from onnx import TensorProto

from tiedexport import onnx_files
from tiedexport.retie.kept import SHARED_KEY
from tiedexport.retie.protos import Source, external_source, tensors_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from tiedexport.retie.graph import GraphFile

_ALIGNMENTS = (64, 16, 1)
_PAYLOADS = (
    "external_data",
    "raw_data",
    "float_data",
    "int32_data",
    "int64_data",
    "double_data",
    "uint64_data",
)
_PIECE_BYTES = 8 << 20
_FRAME_BYTES = 24  # at most: tag and length of raw data, and longer lengths of what is around it


@dataclass
class _Stored:
    """One physical tensor of the result, and every entry that points to it."""

    entries: list[TensorProto] = field(default_factory=list)
    graphs: set[int] = field(default_factory=set)
    outside: bool = False
    offset: int = 0


class Layout:
    """What the written files will hold: `place` everything, then `write`.

    Args:
        files: mended graphs.
        data_name: of the data file, beside the graphs.
    """

    def __init__(self, files: Sequence[GraphFile], data_name: str) -> None:
        self._files, self._data_name = files, data_name
        self._protos = [onnx_files.to_proto(file.model) for file in files]
        self._stored: dict[Source, _Stored] = defaultdict(_Stored)
        for index, (file, proto) in enumerate(zip(files, self._protos, strict=True)):
            _forget_initializer_types(proto.graph)
            for tensor in tensors_in(proto):
                self._enter(index, file.path, tensor)
        for stored in self._stored.values():
            for tensor in stored.entries:
                for name in _PAYLOADS:
                    tensor.ClearField(name)

    def _enter(self, index: int, path: Path, tensor: TensorProto) -> None:
        shared = next((e for e in tensor.metadata_props if e.key == SHARED_KEY), None)
        if shared is not None:
            data = ir.serde.TensorProtoTensor(tensor).tobytes()
            source = Source("", int(shared.value), len(data), data)
            tensor.metadata_props.remove(shared)
        elif tensor.data_location == TensorProto.EXTERNAL:
            source = external_source(path, tensor)
        else:
            return
        stored = self._stored[source]
        stored.entries.append(tensor)
        stored.graphs.add(index)
        stored.outside |= source.file != str(path.resolve())  # and so if two graphs hold it

    def place(self, budget_bytes: int) -> None:
        """Place every tensor, as well aligned as the budget for all files together allows."""
        inside = [source.size_bytes for source, s in self._stored.items() if not s.outside]
        inline = sum(inside) + _FRAME_BYTES * len(inside)
        for alignment in _ALIGNMENTS:
            data_bytes = self._align(alignment)
            graphs = sum(proto.ByteSize() for proto in self._protos)
            if inline + graphs + data_bytes <= budget_bytes:
                return

    def _align(self, alignment: int) -> int:
        """Give every tensor outside its offset; returns the size of the data file in bytes."""
        end = 0
        for source, stored in self._stored.items():
            if stored.outside:
                stored.offset = -(-end // alignment) * alignment
                end = stored.offset + source.size_bytes
                for tensor in stored.entries:
                    _point(tensor, self._data_name, stored.offset, source.size_bytes)
        return end

    def write(self, folder: Path) -> list[Path]:
        """Write the graphs and, where there is any, the data file: in this order."""
        outside = [(source, s) for source, s in self._stored.items() if s.outside]
        if outside:
            with (folder / self._data_name).open("xb") as out:
                for source, stored in outside:
                    _copy(source, out, stored.offset)
                out.truncate(max(stored.offset + source.size_bytes for source, stored in outside))
        written = []
        for index, (file, proto) in enumerate(zip(self._files, self._protos, strict=True)):
            for source, stored in self._stored.items():
                if not stored.outside and index in stored.graphs:
                    for tensor in stored.entries:
                        _embed(tensor, source)
            written.append(folder / file.written_name)
            written[-1].write_bytes(proto.SerializeToString(deterministic=True))
            self._protos[index].Clear()
        return written + [folder / self._data_name] * bool(outside)


def _forget_initializer_types(graph: onnx.GraphProto) -> None:
    """Drop the type that onnx_ir writes down for each initializer, which has one anyway."""
    names = {tensor.name for tensor in graph.initializer}
    others = [value for value in graph.value_info if value.name not in names]
    del graph.value_info[:]
    graph.value_info.extend(others)
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        for subgraph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            _forget_initializer_types(subgraph)


def _point(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    """Make a tensor external."""
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("external_data")
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def _embed(tensor: TensorProto, source: Source) -> None:
    """Put a tensor's bytes into the graph."""
    with open(source.file, "rb") as file:
        file.seek(source.offset)
        tensor.raw_data = file.read(source.size_bytes)
    tensor.ClearField("data_location")


def _copy(source: Source, out: BinaryIO, at: int) -> None:
    """Copy bytes between files piece by piece; holes of a sparse file stay holes."""
    if not source.file:
        out.seek(at)
        out.write(source.data)
        return
    with open(source.file, "rb", buffering=0) as file:
        begin, end, shift = source.offset, source.offset + source.size_bytes, at - source.offset
        while (begin := _next_data(file.fileno(), begin, end)) < end:
            file.seek(begin)
            piece = file.read(min(_PIECE_BYTES, end - begin))
            if not piece:
                raise OSError(errno.EIO, "the file became shorter", source.file)
            out.seek(begin + shift)
            out.write(piece)
            begin += len(piece)


def _next_data(descriptor: int, begin: int, end: int) -> int:
    """The first byte from `begin` on that is not in a hole."""
    if begin >= end:
        return end
    try:
        return min(os.lseek(descriptor, begin, os.SEEK_DATA), end)
    except OSError as error:
        if error.errno == errno.ENXIO:  # there is only a hole left
            return end
        return begin  # a file system that tells nothing of holes
