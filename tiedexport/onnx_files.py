"""ONNX files without their weights: graphs to edit, and where each tensor's bytes lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from tiedexport.stored import StoredTensor


def load(path: Path) -> ir.Model:
    """The graph of a file, every tensor of more than 1 KiB as an `ir.ExternalTensor`.

    Inline weights are not read either: they become external tensors that point into `path` itself
    (the file is walked by its wire format), so that a model costs memory by its nodes only.

    Raises:
        GraphError: not an ONNX file, truncated, cyclic, with values that nothing defines, or its
            external data is missing, too short, or outside the model's folder.
    """
    raise NotImplementedError


def stored_tensors(model: ir.Model, home: Path) -> list[StoredTensor]:
    """Every tensor that the file stores: initializers and constants of all graphs and functions.

    Strings and empty tensors are left out; a sparse tensor's values and indices are two tensors.
    `handle` is the `ir.Value` (initializer) or the `ir.Node` (Constant).
    """
    raise NotImplementedError
