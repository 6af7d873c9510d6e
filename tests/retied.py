"""Small ONNX files to retie, and what the suites ask of the results."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

from tiedexport import onnx_files
from tiedexport.copies import find

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tiedexport.results.ties import RetieResult


def weight(*shape: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    """Random normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def model(
    graph: str,
    functions: str = "",
    *,
    ir_version: int = 10,
    opset: int = 21,
    **tensors: np.ndarray,
) -> onnx.ModelProto:
    """A model from ONNX's text form and its initializers."""
    head = f'<ir_version: {ir_version}, opset_import: ["" : {opset}, "own" : 1]>'
    made = parser.parse_model(f"{head} {graph} {functions}")
    made.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in tensors.items())
    return made


def constant(name: str, array: np.ndarray) -> onnx.NodeProto:
    """A Constant node."""
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))


def saved(made: onnx.ModelProto, path: Path, *, external: str = "") -> Path:
    """Write a model, with all of its weights in a file of that name beside it if there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if external:
        onnx.save(made, path, save_as_external_data=True, location=external, size_threshold=0)
    else:
        onnx.save(made, path)
    return path


def graphs(result: RetieResult) -> list[Path]:
    """The written graphs."""
    return [Path(path) for path in result.outputs[: len(result.inputs)]]


def nodes(path: Path) -> list[str]:
    """The operators of the main graph, in order."""
    return [node.op_type for node in onnx.load(path, load_external_data=False).graph.node]


def second_copies(paths: Iterable[Path]) -> list[str]:
    """Names of the tensors that repeat another one at another place."""
    tensors = [t for path in paths for t in onnx_files.stored_tensors(onnx_files.load(path), path)]
    return [
        copy.tensor.name
        for group in find(tensors)
        for copy in group.copies
        if copy.tensor.place != group.original.place
    ]


def digests(folder: Path) -> dict[str, str]:
    """Every file below a folder and what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
