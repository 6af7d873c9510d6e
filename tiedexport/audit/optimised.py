"""The stage of ONNX Runtime's optimised graph: what its own passes make of the weights."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from tiedexport.audit import graphs
from tiedexport.audit.child import Optimise, ask
from tiedexport.audit.table import MEMORY, measured, not_run
from tiedexport.copies.compare import largest_difference
from tiedexport.copies.views import orders
from tiedexport.errors import GraphError
from tiedexport.results.ties import STAGE_NAMES, Stage
from tiedexport.spec import Precision
from tiedexport.stored import Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiedexport.audit.given import Given
    from tiedexport.runtimes import Memory
    from tiedexport.spec import Tie
    from tiedexport.stored import StoredTensor

_STAGE = STAGE_NAMES[3]
LARGEST_BYTES = 512 << 20
"""Of weights: what ONNX Runtime reads whole is skipped above, unless asked for."""

DEFAULTS = "ONNX Runtime's defaults"

_ROWS: tuple[tuple[Memory, str], ...] = (("shared", ""), ("packed", DEFAULTS))


def examine(given: Given, before: Sequence[Stage]) -> list[Stage]:
    """Two rows a precision: with the options that share weights, and with the defaults.

    The latter are there for comparison only.
    """
    rows = []
    for subject, source in graphs.found(before).items():
        paths: Sequence[Path] = given.graphs
        declared = None
        if given.bundle is not None:
            paths = graphs.graphs_of(given.bundle, Precision(subject))
            declared = given.bundle.manifest.ties
        why_not = obstacle(source, given.deep)
        rows += [not_run(_STAGE, why_not, subject)] if why_not else _rows(paths, subject, declared)
    return rows or [not_run(_STAGE, "no graph was read; give the .onnx files as well")]


def obstacle(source: Stage, deep: bool) -> str:
    """Why ONNX Runtime is not started on the files of a row; or ""."""
    if not source.ties:
        return "no weight is tied"
    if find_spec("onnxruntime") is None:
        return "onnxruntime is not installed; pip install 'tiedexport[cpu]'"
    if source.stored_bytes > LARGEST_BYTES and not deep:
        size = f"{source.stored_bytes >> 20:,} MiB of weights"
        return f"{size}, and ONNX Runtime reads them whole: --deep"
    return ""


def _rows(paths: Sequence[Path], subject: str, declared: Sequence[Tie] | None) -> list[Stage]:
    originals = {path: graphs.read([path]) for path in paths}
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            Optimise(str(path.resolve()), str(Path(folder, f"{memory}.{number}.onnx")), memory)
            for memory, _ in _ROWS
            for number, path in enumerate(paths)
        ]
        done = list(zip(jobs, ask(*jobs), strict=True))
        rows: list[Stage] = []
        for memory, remark in _ROWS:
            mine = [(job.output, answer) for job, answer in done if job.memory == memory]
            label, counts = ", ".join(filter(None, (subject, remark))), memory == "shared"
            failed = "; ".join(dict.fromkeys(answer.failed for _, answer in mine if answer.failed))
            try:
                made = [] if failed else _settled(originals, [Path(out) for out, _ in mine])
            except GraphError as error:
                failed = f"what ONNX Runtime wrote cannot be read: {error.what}: {error.got}"
            if failed:  # its defaults would fail alike
                return [*rows, not_run(_STAGE, failed, label, counts=counts)]
            rows.append(measured(_STAGE, label, made, declared=declared, counts=counts))
        return rows


def _settled(
    originals: dict[Path, list[StoredTensor]], outputs: Sequence[Path]
) -> list[StoredTensor]:
    """The tensors of optimised graphs, where they lie when these run.

    Those that ONNX Runtime left alone are read from the original file, which sessions share; what
    it made is in each session's memory.
    """
    addresses = count()
    settled = []
    for (path, tensors), output in zip(originals.items(), outputs, strict=True):
        by_name = {(tensor.scope, tensor.name): tensor for tensor in tensors}
        for tensor in graphs.read([output]):
            original = by_name.get((tensor.scope, tensor.name))
            place = Place(MEMORY, next(addresses), tensor.place.size_bytes)
            if original is not None and _equal(original, tensor):
                place = original.place
            settled.append(replace(tensor, place=place, home=str(path)))
    return settled


def _equal(a: StoredTensor, b: StoredTensor) -> bool:
    if (a.dtype, a.elements) != (b.dtype, b.elements):
        return False
    as_it_is = next(orders(a.elements))
    return largest_difference(a, b, as_it_is, route=(), atol=0.0) is not None
