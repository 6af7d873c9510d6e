"""Sparse tensors, which onnx_ir does not know: carried as lists of tensors and put back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import AttributeProto

from tiedexport.onnx_files.skeleton import SPARSE_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx


def restore_sparse(nodes: Iterable[onnx.NodeProto]) -> None:
    """Turn lists of values and indices into the sparse attributes that they were, in place."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                restore_sparse(attribute.g.node)
            for graph in attribute.graphs:
                restore_sparse(graph.node)
            if attribute.tensors and _dims(attribute.tensors[0]) is not None:
                _restore(attribute)


def _restore(attribute: onnx.AttributeProto) -> None:
    pairs = zip(attribute.tensors[::2], attribute.tensors[1::2], strict=True)
    for values, indices in pairs:
        sparse = attribute.sparse_tensors.add()
        sparse.dims.extend(_dims(values) or [])
        sparse.values.CopyFrom(values)
        sparse.indices.CopyFrom(indices)
        for entry in [e for e in sparse.values.metadata_props if e.key == SPARSE_KEY]:
            sparse.values.metadata_props.remove(entry)
    attribute.ClearField("tensors")
    attribute.type = AttributeProto.SPARSE_TENSORS
    if len(attribute.sparse_tensors) == 1:
        attribute.sparse_tensor.CopyFrom(attribute.sparse_tensors[0])
        attribute.ClearField("sparse_tensors")
        attribute.type = AttributeProto.SPARSE_TENSOR


def _dims(values: onnx.TensorProto) -> list[int] | None:
    """The dense shape that stands in the metadata of a sparse tensor's values."""
    for entry in values.metadata_props:
        if entry.key == SPARSE_KEY:
            return [int(size) for size in entry.value.split(",") if size]
    return None
