"""The stage of ONNX files: their initializers and constants, inline or in external data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiedexport.audit.table import measured, not_run, shown
from tiedexport.audit.weights import safetensors
from tiedexport.results.ties import STAGE_NAMES, Stage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tiedexport.audit.given import Given
    from tiedexport.bundle import Bundle
    from tiedexport.spec import Precision
    from tiedexport.stored import StoredTensor

_STAGE = STAGE_NAMES[2]


def examine(given: Given, _before: Sequence[Stage]) -> list[Stage]:
    """One row over all files, since encoder and decoder may share; a row a precision of a bundle.

    Raises:
        GraphError: a file is no sound ONNX file, or its external data is missing.
    """
    if given.bundle is not None:
        return [_of_bundle(given.bundle, precision) for precision in given.bundle.manifest.weights]
    if not given.graphs:
        return [not_run(_STAGE, "no graph was given; give the .onnx files as well")]
    subject = ", ".join(shown(str(path)) for path in given.graphs)
    return [measured(_STAGE, subject, read(given.graphs))]


def read(paths: Iterable[Path]) -> list[StoredTensor]:
    """Every tensor of ONNX files.

    Raises:
        GraphError: a file is no sound ONNX file, or its external data is missing.
    """
    from tiedexport import onnx_files

    return [
        tensor
        for path in paths
        for tensor in onnx_files.stored_tensors(onnx_files.load(path), path)
    ]


def graphs_of(bundle: Bundle, precision: Precision) -> list[Path]:
    """The graph of every stage."""
    return [bundle.graph(stage.name, precision) for stage in bundle.manifest.stages]


def _of_bundle(bundle: Bundle, precision: Precision) -> Stage:
    """The graphs, together with whatever else their weights file holds."""
    try:
        tensors = read(graphs_of(bundle, precision))
    except ModuleNotFoundError as error:  # a deployment target needs no onnx
        return not_run(_STAGE, missing(error), precision)
    tensors = [*safetensors(bundle.weights_path(precision)), *tensors]
    return measured(_STAGE, precision, tensors, declared=bundle.manifest.ties)


def found(before: Sequence[Stage]) -> dict[str, Stage]:
    """The rows of this stage that ran, by subject."""
    return {row.subject: row for row in before if row.name == _STAGE and row.status != "not run"}


def missing(error: ModuleNotFoundError) -> str:
    """What to say of a stage whose library is not installed."""
    return f"the package {error.name} is not installed; pip install 'tiedexport[train]'"
