"""The tools that rewrite ONNX files, and graphs with a tied weight to try them on."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper, parser

from tiedexport import copies
from tiedexport.onnx_files import load, stored_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

TIED = {
    "Gemm, Transpose, Gemm": (
        "(float[N, 96] x) => (float[N, 96] y) { a = Gemm <transB = 1> (x, w) z = Relu(a) "
        "t = Transpose <perm = [1, 0]> (w) y = Gemm <transB = 1> (z, t) }"
    ),
    "MatMul, Transpose, MatMul": (
        "(float[N, 96] x) => (float[N, 96] y) { t = Transpose <perm = [1, 0]> (w) "
        "a = MatMul(x, t) z = Relu(a) y = MatMul(z, w) }"
    ),
    "Gemm, Gemm": (
        "(float[N, 96] x) => (float[N, 96] y) { a = Gemm <transB = 1> (x, w) z = Relu(a) "
        "y = Gemm(z, w) }"
    ),
    "Gather, Transpose, MatMul": (
        "(int64[N, T] tokens) => (float[N, T, 88] y) { e = Gather(w, tokens) z = Relu(e) "
        "t = Transpose <perm = [1, 0]> (w) y = MatMul(z, t) }"
    ),
    "Conv, ConvTranspose": (
        "(float[N, 8, 20, 20] x) => (float[N, 8, H, V] y) { a = Conv(x, w) z = Relu(a) "
        "y = ConvTranspose(z, w) }"
    ),
}
"""Form → a graph that uses its one weight, w, twice."""

UNTIED = {
    "Gemm, Gemm, stored twice": (
        "(float[N, 96] x) => (float[N, 96] y) { a = Gemm <transB = 1> (x, w) z = Relu(a) "
        "y = Gemm(z, again) }"
    ),
    "Gather, MatMul, transpose stored": (
        "(int64[N, T] tokens) => (float[N, T, 88] y) { e = Gather(w, tokens) z = Relu(e) "
        "y = MatMul(z, across) }"
    ),
}
"""Form → a graph that has a second copy of w, as it is or transposed."""


def write_graph(form: str, folder: Path) -> Path:
    """The graph of a form, its weights inline."""
    shape = (11, 8, 12, 8) if form.startswith("Conv") else (88, 96)
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32) / 10
    head = '<ir_version: 10, opset_import: ["" : 20]> g'
    model = parser.parse_model(f"{head} {(TIED | UNTIED)[form]}")
    arrays = {"w": weight, "again": weight, "across": weight.T}
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(array), name)
        for name, array in arrays.items()
        if name in used
    )
    path = folder / "tied.onnx"
    onnx.save(model, path)
    return path


def _onnxslim(path: Path, out: Path) -> None:
    import onnxslim

    onnx.save(onnxslim.slim(onnx.load(path)), out)


def _onnxsim(path: Path, out: Path) -> None:
    import onnxsim

    onnx.save(onnxsim.simplify(onnx.load(path))[0], out)


def _polygraphy(path: Path, out: Path, threshold: int | None = None) -> None:
    """What `polygraphy surgeon sanitize --fold-constants [--fold-size-threshold]` calls."""
    from polygraphy.backend.onnx import fold_constants

    onnx.save(fold_constants(onnx.load(path), size_threshold=threshold), out)


def _onnxruntime(level: str) -> Callable[[Path, Path], None]:
    def optimise(path: Path, out: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(
            onnxruntime.GraphOptimizationLevel, f"ORT_{level}"
        )
        options.optimized_model_filepath = str(out)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    return optimise


def _float16(path: Path, out: Path) -> None:
    from onnxconverter_common import float16

    onnx.save(float16.convert_float_to_float16(onnx.load(path)), out)


def _mixed(path: Path, out: Path) -> None:
    """The last node in fp32: what `node_block_list` is for."""
    from onnxconverter_common import float16

    model = onnx.load(path)
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"
    last = model.graph.node[-1].name
    onnx.save(float16.convert_float_to_float16(model, node_block_list=[last]), out)


def _deduplicated(name: str) -> Callable[[Path, Path], None]:
    def apply(path: Path, out: Path) -> None:
        import onnx_ir.passes.common as passes

        model = ir.load(path)
        getattr(passes, name)()(model)
        ir.save(model, out)

    return apply


def _in_turn(*steps: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    def apply(path: Path, out: Path) -> None:
        for number, step in enumerate(steps):
            between = out.with_stem(f"{out.stem}.{number}") if step is not steps[-1] else out
            step(path, between)
            path = between

    return apply


TOOLS: dict[str, Callable[[Path, Path], None]] = {
    "onnxslim": _onnxslim,
    "onnxsim": _onnxsim,
    "polygraphy --fold-constants": _polygraphy,
    "polygraphy --fold-size-threshold": lambda path, out: _polygraphy(path, out, 1024),
    "onnxruntime BASIC": _onnxruntime("ENABLE_BASIC"),
    "onnxruntime EXTENDED": _onnxruntime("ENABLE_EXTENDED"),
    "onnxruntime ALL": _onnxruntime("ENABLE_ALL"),
    "onnxconverter-common fp16": _float16,
    "onnxconverter-common mixed": _mixed,
}
"""Tool → what it does to a file."""


def autocast(path: Path, out: Path) -> None:
    """ModelOpt's conversion to fp16, which wants nodes with names."""
    from modelopt.onnx import autocast

    model = onnx.load(path)
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"
    named = path.with_name("named.onnx")
    onnx.save(model, named)
    onnx.save(autocast.convert_to_mixed_precision(str(named)), out)


FOLDED_CASTS = _in_turn(_mixed, _onnxruntime("ENABLE_BASIC"))
"""A mixed graph casts one weight at run time, and the next tool stores what the Cast makes."""

DEDUPLICATORS: dict[str, Callable[[Path, Path], None]] = {
    "onnx_ir deduplication": _deduplicated("DeduplicateInitializersPass"),
    "onnx_ir deduplication by hash": _deduplicated("DeduplicateHashedInitializersPass"),
}
"""Tools that look for equal initializers."""


def applied(tool: Callable[[Path, Path], None], path: Path) -> Path:
    """What a tool makes of a file, its warnings left to its authors."""
    out = path.with_name("out.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tool(path, out)
    return out


def copies_of(paths: Sequence[Path]) -> int:
    """How many physical copies files keep of the weight that they keep most copies of."""
    tensors = [tensor for path in paths for tensor in stored_tensors(load(path), path)]
    places = [
        {group.original.place, *(copy.tensor.place for copy in group.copies)}
        for group in copies.find(tensors)
    ]
    return max(map(len, places), default=1)


def runs(path: Path) -> bool:
    """Whether ONNX Runtime takes a file as it is."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.Fail:
        return False
    return True
