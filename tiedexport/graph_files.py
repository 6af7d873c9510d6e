"""ONNX graphs as files and bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from tiedexport.errors import GraphError

if TYPE_CHECKING:
    from pathlib import Path


def save_checked(model: ir.Model, path: Path) -> None:
    """Write a graph and have onnx.checker read it back, with shape inference and external data.

    Raises:
        GraphError: onnx.checker refuses the graph, in its own words.
    """
    ir.save(model, path)
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GraphError(
            "onnx.checker refuses the graph",
            where=path.name,
            got=str(error),
            hint="a later --opset knows more types: Conv in bf16 needs 22",
        ) from error


def serialised(model: ir.Model) -> bytes:
    """A graph without external data as bytes, the same for the same graph."""
    proto: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return proto
