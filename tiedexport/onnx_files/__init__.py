"""ONNX files without their weights: graphs to edit, and where each tensor's bytes lie."""

from __future__ import annotations

from mmap import ACCESS_READ, mmap
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from tiedexport.errors import GraphError
from tiedexport.onnx_files.external import DataFolder
from tiedexport.onnx_files.names import check_names
from tiedexport.onnx_files.skeleton import OFFSET_KEY, Skeleton
from tiedexport.onnx_files.sparse import restore_sparse
from tiedexport.onnx_files.tensors import PLACE, graphs_of, stored_tensors, tensors_of
from tiedexport.onnx_files.wire import WireFile

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["load", "node_count", "stored_tensors", "to_proto"]


def load(path: Path) -> ir.Model:
    """The graph of a file, every tensor of more than 1 KiB as an `ir.ExternalTensor`.

    Inline weights are not read either: they become external tensors that point into `path` itself
    by its absolute path (the file is walked by its wire format), so that a model costs memory by
    its nodes only. What was external before keeps its relative location. Nodes come in topological
    order. A sparse initializer becomes a Constant, and a sparse attribute a list of its values and
    indices, since onnx_ir knows neither: write such a model with `to_proto`.

    Raises:
        GraphError: not an ONNX file, truncated, cyclic, with values that nothing defines or that
            are defined twice, or its external data is missing, too short, or outside the model's
            folder.
    """
    proto = _parse(_skeleton(path), path)
    check_names(proto, path)
    try:
        model = ir.from_proto(proto)
        _settle(model, path)
    except GraphError:
        raise
    except Exception as error:  # the wall: onnx_ir has no exception of its own for every fault
        cause = _root_cause(error)
        unknown = isinstance(cause, NotImplementedError)
        what = "a graph of a kind that onnx_ir does not read" if unknown else "a malformed graph"
        raise GraphError(what, where=path, got=cause) from error
    _sort(model, path)
    model.meta["training_info"] = list(proto.training_info)
    return model


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """The protobuf of a model from `load`, with what onnx_ir cannot hold put back.

    Tensors that were inline in the loaded file still point into it: replace them first where the
    result is to stand alone.

    Raises:
        GraphError: it holds what onnx_ir cannot write, as a string that is not UTF-8.
    """
    try:
        proto = ir.to_proto(model)
    except Exception as error:  # the wall, as in `load`
        raise GraphError("a graph that onnx_ir does not write", got=_root_cause(error)) from error
    proto.training_info.extend(model.meta.get("training_info", ()))
    for nodes in (proto.graph.node, *(function.node for function in proto.functions)):
        restore_sparse(nodes)
    return proto


def node_count(model: ir.Model) -> int:
    """Nodes of a model, with those of its subgraphs and functions."""
    return sum(len(graph) for _, graph in graphs_of(model))


def _skeleton(path: Path) -> bytes:
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        raise GraphError("not an ONNX file", where=path, got=got)
    try:
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise GraphError("not an ONNX file", where=path, got="an empty file")
            with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
                return Skeleton(WireFile(data, path), DataFolder(path)).model()
    except OSError as error:
        raise GraphError("cannot read the file", where=path, got=error) from error


def _parse(skeleton: bytes, path: Path) -> onnx.ModelProto:
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(skeleton)
    except DecodeError as error:
        raise GraphError("not an ONNX file, or damaged", where=path, got=error) from error
    if not proto.HasField("graph"):
        raise GraphError("not an ONNX file", where=path, got="a protobuf without a graph")
    return proto


def _settle(model: ir.Model, path: Path) -> None:
    """Tell each tensor where it lies: external data its folder, inline data its offset."""
    for _, graph in graphs_of(model):
        for node in graph:
            for attribute in node.attributes.values():
                if not _is_readable(attribute):
                    where = f"{attribute.name!r} of {node.name or node.op_type} in {path}"
                    raise GraphError("an attribute without a type or value", where=where)
        for owned in tensors_of(graph):
            tensor = owned.tensor
            if tensor.dtype == ir.DataType.UNDEFINED:
                raise GraphError("a tensor without a type", where=f"{owned.name!r} in {path}")
            if isinstance(tensor, ir.ExternalTensor):
                inline = tensor.location == str(path.resolve())
                tensor.base_dir = "" if inline else path.parent
            elif OFFSET_KEY in tensor.metadata_props:
                offset, length = tensor.metadata_props.pop(OFFSET_KEY).split()
                tensor.meta[PLACE] = int(offset), int(length)
                del tensor.raw.metadata_props[-1]  # the entry itself, which came last
                tensor.numpy()  # raises where elements are missing


def _is_readable(attribute: ir.Attr) -> bool:
    """Whether it has a type and a value; a graph of the caller's is none that onnx_ir can walk."""
    if attribute.is_ref():
        return attribute.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return attribute.type != ir.AttributeType.UNDEFINED and attribute.value is not None


def _sort(model: ir.Model, path: Path) -> None:
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        try:
            graph.sort()
        except ValueError as error:
            raise GraphError("a cyclic graph", where=path, got=error) from error


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
