"""Mended graphs as files: each kept tensor once, streamed from where it lies.

A tensor goes into the one data file of all graphs if it was external or if several graphs hold it;
what was inline in its own graph stays there.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import onnx
import onnx_ir as ir
from onnx import AttributeProto, TensorProto

from tiedexport import onnx_files
from tiedexport.errors import UsageError
from tiedexport.retie.kept import SHARED_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tiedexport.retie.graph import GraphFile

_ALIGNMENTS = (64, 16, 1)
_PIECE_BYTES = 8 << 20


class _Source(NamedTuple):
    """Where bytes lie now; `file` is empty for those that `data` holds."""

    file: str
    offset: int
    size_bytes: int
    data: bytes = b""


@dataclass
class _Stored:
    """One physical tensor of the result, and every entry that points to it."""

    entries: list[TensorProto] = field(default_factory=list)
    graphs: set[int] = field(default_factory=set)
    outside: bool = False
    offset: int = 0


class Layout:
    """What the written files will hold; nothing is read or written before `write`.

    Args:
        files: mended graphs.
        data_name: of the data file, beside the graphs.
    """

    def __init__(self, files: Sequence[GraphFile], data_name: str) -> None:
        self._files, self._data_name = files, data_name
        self._protos = [onnx_files.to_proto(file.model) for file in files]
        self._stored: dict[_Source, _Stored] = defaultdict(_Stored)
        for index, (file, proto) in enumerate(zip(files, self._protos, strict=True)):
            _forget_initializer_types(proto.graph)
            for tensor in tensors_in(proto):
                self._enter(index, file.path, tensor)
        for stored in self._stored.values():
            stored.outside |= len(stored.graphs) > 1

    def _enter(self, index: int, path: Path, tensor: TensorProto) -> None:
        shared = next((e for e in tensor.metadata_props if e.key == SHARED_KEY), None)
        if shared is not None:
            data = onnx.numpy_helper.to_array(tensor).tobytes()
            source = _Source("", int(shared.value), len(data), data)
            tensor.metadata_props.remove(shared)
        elif tensor.data_location == TensorProto.EXTERNAL:
            source = _external_source(path, tensor)
        else:
            return
        stored = self._stored[source]
        stored.entries.append(tensor)
        stored.graphs.add(index)
        stored.outside |= bool(source.file) and source.file != str(path.resolve())

    def fit(self, budget_bytes: int) -> int | None:
        """Place every tensor, as well aligned as the budget allows.

        Returns:
            The bytes of all files together; None if that is more than the budget.
        """
        inline = sum(source.size_bytes for source, s in self._stored.items() if not s.outside)
        for alignment in _ALIGNMENTS:
            data_bytes = self._place(alignment)
            graphs: int = sum(proto.ByteSize() for proto in self._protos)
            if inline + graphs + data_bytes <= budget_bytes:
                return inline + graphs + data_bytes
        return None

    def _place(self, alignment: int) -> int:
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
                    _copy(source, out.fileno(), stored.offset)
                out.truncate(max(stored.offset + source.size_bytes for source, stored in outside))
        written = []
        for index, (file, proto) in enumerate(zip(self._files, self._protos, strict=True)):
            for source, stored in self._stored.items():
                if not stored.outside and index in stored.graphs:
                    for tensor in stored.entries:
                        _embed(tensor, source)
            written.append(folder / file.path.name)
            written[-1].write_bytes(proto.SerializeToString(deterministic=True))
            self._protos[index].Clear()
        return written + [folder / self._data_name] * bool(outside)


@dataclass(frozen=True)
class Given:
    """The files that were given, and the external data that they name.

    Attributes:
        paths: the graphs.
        data: graph → location, as the graph names it → data file.
    """

    paths: tuple[Path, ...]
    data: dict[Path, dict[str, Path]]

    @classmethod
    def read(cls, paths: Sequence[Path]) -> Given:
        """Look the data files up.

        Raises:
            GraphError: one of them is no sound ONNX file.
        """
        return cls(tuple(paths), {path: _data_files(path) for path in paths})

    @property
    def files(self) -> set[Path]:
        """All files, each once, resolved."""
        data = [file for files in self.data.values() for file in files.values()]
        return {file.resolve() for file in (*self.paths, *data)}

    @property
    def size_bytes(self) -> int:
        """All that they take, each file once."""
        return sum(file.stat().st_size for file in self.files)

    def copy(self, folder: Path) -> list[Path]:
        """Byte for byte copies of graphs and their data, each under its relative path.

        Raises:
            UsageError: two graphs have different data of one name.
        """
        targets: dict[Path, Path] = {}
        for path in self.paths:
            for name, file in {path.name: path, **self.data[path]}.items():
                source = file.resolve()
                if targets.setdefault(folder / name, source) != source:
                    raise UsageError(
                        "nothing can be mended, and copies of the inputs would have one name",
                        where=name,
                        got=f"{targets[folder / name]} and {source}",
                        hint="give each file alone",
                    )
        for target, source in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        return list(targets)


def _data_files(path: Path) -> dict[str, Path]:
    proto = onnx_files.to_proto(onnx_files.load(path))
    locations = {
        entry.value
        for tensor in tensors_in(proto)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return {name: path.parent / name for name in sorted(locations - {str(path.resolve())})}


def tensors_in(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every TensorProto of a model, in subgraphs and functions as well."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Sequence[onnx.NodeProto]) -> Iterator[TensorProto]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        if attribute.type == AttributeProto.TENSOR:
            yield attribute.t
        elif attribute.type == AttributeProto.GRAPH:
            yield from _graph_tensors(attribute.g)
        elif attribute.type == AttributeProto.SPARSE_TENSOR:
            yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
        yield from attribute.tensors
        for sparse in attribute.sparse_tensors:
            yield from (sparse.values, sparse.indices)
        for graph in attribute.graphs:
            yield from _graph_tensors(graph)


def _forget_initializer_types(graph: onnx.GraphProto) -> None:
    """Drop the type that onnx_ir writes down for each initializer, which has one anyway."""
    names = {tensor.name for tensor in graph.initializer}
    for value in [value for value in graph.value_info if value.name in names]:
        graph.value_info.remove(value)
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        for subgraph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            _forget_initializer_types(subgraph)


def _external_source(path: Path, tensor: TensorProto) -> _Source:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    file = (path.parent / entries["location"]).resolve()
    size = int(entries["length"]) if "length" in entries else _size_bytes(tensor)
    return _Source(str(file), int(entries.get("offset", 0)), size)


def _size_bytes(tensor: TensorProto) -> int:
    bits: int = math.prod(tensor.dims) * ir.DataType(tensor.data_type).bitwidth
    return -(-bits // 8)


def _point(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    """Make a tensor external."""
    name, dims, dtype, doc = tensor.name, list(tensor.dims), tensor.data_type, tensor.doc_string
    props = list(tensor.metadata_props)
    tensor.Clear()
    tensor.name, tensor.data_type, tensor.data_location = name, dtype, TensorProto.EXTERNAL
    tensor.dims.extend(dims)
    tensor.metadata_props.extend(props)
    if doc:
        tensor.doc_string = doc
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def _embed(tensor: TensorProto, source: _Source) -> None:
    """Put a tensor's bytes into the graph."""
    with open(source.file, "rb") as file:
        tensor.raw_data = os.pread(file.fileno(), source.size_bytes, source.offset)
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")


def _copy(source: _Source, target: int, at: int) -> None:
    """Copy bytes between files piece by piece; holes of a sparse file stay holes."""
    if not source.file:
        os.pwrite(target, source.data, at)
        return
    with open(source.file, "rb") as file:
        begin, end, shift = source.offset, source.offset + source.size_bytes, at - source.offset
        while (begin := _next_data(file.fileno(), begin, end)) < end:
            piece = os.pread(file.fileno(), min(_PIECE_BYTES, end - begin), begin)
            if not piece:
                raise OSError(errno.EIO, "the file became shorter", source.file)
            os.pwrite(target, piece, begin + shift)
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
