"""The stage of process memory: what open sessions hold, measured in a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from tiedexport.audit import graphs
from tiedexport.audit.child import Done, OpenBundle, OpenGraphs, ask
from tiedexport.audit.optimised import DEFAULTS, LARGEST_BYTES, obstacle
from tiedexport.audit.table import not_run
from tiedexport.audit.weights import safetensors
from tiedexport.results.ties import STAGE_NAMES, Stage
from tiedexport.runtimes import all_runtimes, choose_precision, runtime_named
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tiedexport.audit.given import Given
    from tiedexport.bundle import Bundle
    from tiedexport.results.ties import StageStatus
    from tiedexport.runtimes import Memory

_STAGE = STAGE_NAMES[4]

MARGIN = 1.25
"""Memory over the weights' bytes that one copy may take, beside what empty sessions take."""

ALLOCATOR_BYTES = 256 << 10
"""By so much a session's memory may be off: two measurements of one differ by up to 0.2 MiB."""

SMALLEST_TIED_BYTES = 4 * ALLOCATOR_BYTES
"""Of tied weights: a second copy shows where it takes several times what may be off."""


def examine(given: Given, before: Sequence[Stage]) -> list[Stage]:
    """A row for what is opened by default, which counts, and rows to compare it with."""
    if given.bundle is not None:
        return _of_bundle(given.bundle, given.deep)
    if not given.graphs:
        return [not_run(_STAGE, "no graph was given; give the .onnx files as well")]
    (source,) = graphs.found(before).values()
    return _of_graphs(given.graphs, source, given.deep)


def judge(needed_bytes: int, tied_bytes: int, done: Done) -> tuple[StageStatus, str]:
    """Whether memory grew by one copy of the weights; if not, the rule in words.

    Args:
        needed_bytes: of all weights, once.
        tied_bytes: of those that are tied: what a second copy of every tie would add. Where the
            rule's margin is wider than that, a second copy cannot be seen: "not run".
        done: what was measured.
    """
    overhead_bytes = done.overhead_bytes + ALLOCATOR_BYTES
    limit_bytes = int(MARGIN * needed_bytes) + overhead_bytes
    empty = f"{overhead_bytes >> 10:,} KiB for sessions without weights"
    rule = f"one copy takes at most {MARGIN:g} x its bytes and {empty}"
    if needed_bytes + tied_bytes <= limit_bytes:
        return "not run", f"too small to tell a second copy: {rule}"
    if done.unrun:
        return "not proven", f"opened, but not run to its end: {done.unrun}"
    if done.grown_bytes > limit_bytes:
        return "copies", rule
    return "one copy", ""


def _too_small(needed_bytes: int, tied_bytes: int) -> str:
    """Why no measurement could tell one copy from two; or ""."""
    if tied_bytes < SMALLEST_TIED_BYTES:
        return (
            f"too small to tell from the allocator's noise: the tied weights have {tied_bytes:,} "
            f"bytes, and a second copy shows from {SMALLEST_TIED_BYTES >> 20} MiB on"
        )
    if needed_bytes + tied_bytes <= MARGIN * needed_bytes:
        tied = f"the tied weights have {tied_bytes:,} of {needed_bytes:,} bytes"
        return f"{tied}: a second copy would not show in a process"
    return ""


def _row(subject: str, needed_bytes: int, tied_bytes: int, done: Done, counts: bool) -> Stage:
    if done.failed:
        return not_run(_STAGE, done.failed, subject, counts=counts)
    status, reason = judge(needed_bytes, tied_bytes, done)
    if status == "not run":
        return not_run(_STAGE, reason, subject, counts=counts)
    grown_bytes = max(0, done.grown_bytes)
    return Stage(_STAGE, status, subject, reason, (), needed_bytes, grown_bytes, counts)


def _of_graphs(paths: Sequence[Path], source: Stage, deep: bool) -> list[Stage]:
    subject, needed_bytes = source.subject, source.needed_bytes
    tied_bytes = sum(tie.needed_bytes for tie in source.ties)
    if why_not := obstacle(source, deep) or _too_small(needed_bytes, tied_bytes):
        return [not_run(_STAGE, why_not, subject)]
    job = _opening(paths)

    def row(memory: Memory, label: str, *, counts: bool) -> Stage:
        (done,) = ask(replace(job, memory=memory))
        return _row(label, needed_bytes, tied_bytes, done, counts)

    return [
        row("shared", subject, counts=True),
        row("packed", f"{subject}, {DEFAULTS}", counts=False),
    ]


def _opening(paths: Sequence[Path]) -> OpenGraphs:
    """The job of a session of each graph, all of its memory shared."""
    from tiedexport import onnx_files

    models = {path: onnx_files.load(path) for path in paths}
    stored = (onnx_files.stored_tensors(model, path) for path, model in models.items())
    return OpenGraphs(
        graphs=tuple(str(path.resolve()) for path in paths),
        memory="shared",
        data=tuple(sorted({tensor.place.file for tensors in stored for tensor in tensors})),
        nodes=tuple(map(onnx_files.node_count, models.values())),
    )


def _of_bundle(bundle: Bundle, deep: bool) -> list[Stage]:
    """What `open_session` takes by default, then the other layout and the other precisions.

    A GPU's runtimes hold the weights on the device, which is a stage of its own.
    """
    manifest = bundle.manifest
    if not manifest.ties:
        return [not_run(_STAGE, "no weight is tied")]
    needed_bytes, tied_bytes = _sizes(bundle, manifest.precisions[0])
    if why_not := _too_small(needed_bytes, tied_bytes):
        return [not_run(_STAGE, why_not)]
    opened, default = _opened(bundle, "auto", None, "shared", counts=True)
    if opened.failed or (needed_bytes > LARGEST_BYTES and not deep):
        return [default]  # which maps the weights, where others would copy them
    chosen = runtime_named(opened.runtime)
    candidates = [row for row in all_runtimes().values() if not row.slow] if deep else [chosen]
    others: list[tuple[str, str, Memory]] = [
        (runtime.name, precision.value, "shared")
        for runtime in candidates
        for precision in runtime.precisions
        if choose_precision(runtime, bundle, precision)[0] is not None
        and (runtime.name, precision) != (opened.runtime, opened.precision)
    ]
    if chosen.packs:
        others.insert(0, (opened.runtime, opened.precision, "packed"))
    compared = [_opened(bundle, *other, counts=False)[1] for other in others]
    return [default, *(row for row in compared if row.status != "not run")]


def _opened(
    bundle: Bundle, runtime: str, precision: str | None, memory: Memory, *, counts: bool
) -> tuple[Done, Stage]:
    files = tuple(str(bundle.weights_path(stored)) for stored in bundle.manifest.weights)
    nodes = _nodes(bundle)
    (done,) = ask(OpenBundle(str(bundle.path), runtime, precision, memory, files, nodes))
    label = [done.runtime or runtime, done.precision or precision, f"memory={memory}"]
    subject = " ".join(filter(None, label))
    if done.failed:
        return done, _row(subject, 0, 0, done, counts)
    row = _row(subject, *_sizes(bundle, Precision(done.precision)), done, counts)
    hidden = runtime_named(done.runtime).hidden_copies(bundle, Precision(done.precision))
    if hidden and row.status == "copies":
        row = replace(row, reason=f"{hidden}; {row.reason}")
    return done, row


def _nodes(bundle: Bundle) -> tuple[int, ...]:
    """Nodes of each stage's graph, alike in every precision; none where onnx is not installed."""
    try:
        from tiedexport import onnx_files
    except ModuleNotFoundError:  # a deployment target needs no onnx
        return ()
    paths = graphs.graphs_of(bundle, bundle.manifest.precisions[0])
    return tuple(onnx_files.node_count(onnx_files.load(path)) for path in paths)


def _sizes(bundle: Bundle, precision: Precision) -> tuple[int, int]:
    """Bytes of all weights, and of those that are tied."""
    weights = safetensors(bundle.weights_path(precision))
    sizes = {tensor.name: tensor.place.size_bytes for tensor in weights}
    return sum(sizes.values()), sum(sizes.get(tie.weight, 0) for tie in bundle.manifest.ties)
