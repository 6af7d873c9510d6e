"""Memory that a fresh process takes to run a bundle, on the host, on a device and on disk."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from msgspec import Struct

from tiedexport import fresh
from tiedexport.bundle import Bundle, open_bundle
from tiedexport.candidates import candidates
from tiedexport.contender import refuse_batches
from tiedexport.device import memory_bytes
from tiedexport.errors import RuntimeFailedError
from tiedexport.memory import PeakMemory, private_bytes, pss_bytes
from tiedexport.progress import Progress
from tiedexport.results.cold import Footprint, Held
from tiedexport.runtimes import Memory
from tiedexport.session import open_session
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tiedexport.candidates import Candidate

SAMPLING_S = 0.05
"""Between two looks at the process: each walks all of its pages."""


class Question(Struct, frozen=True):
    """What a process is to run, and how."""

    bundle: str
    runtime: str
    precision: Precision
    memory: Memory
    threads: int
    batch: int
    on_gpu: bool


class Answer(Struct, frozen=True):
    """What it held at each point."""

    base: Held
    loaded: Held
    ran: Held
    device_bytes: int | None


def footprint(
    bundle: Bundle | str | Path,
    *,
    runtime: Sequence[str] = (),
    memory: str = "shared",
    threads: int = 1,
    batch: int = 64,
    progress: Progress | None = None,
    ask: Callable[[Question], tuple[Answer, int]] | None = None,
) -> tuple[Footprint, ...]:
    """Run the autoencoder in a fresh process for each contender, one after the other, and look.

    Args:
        bundle: an open bundle or its path.
        runtime: names; by default every runtime that is not slow by design.
        memory: "shared", "packed", or "both".
        threads: CPU threads a session computes with.
        batch: samples of the second call; the first has one.
        progress: where to show progress; by default nowhere.
        ask: starts a process: its answer, and the peak of its Pss; for tests.

    Raises:
        UsageError: an argument is out of range or names nothing that exists.
    """
    refuse_batches([batch])
    bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    rows, found = list(candidates(bundle, runtime, memory)), []
    with (progress or Progress(quiet=True)).task("memory", len(rows)) as task:
        for row in rows:
            found.append(_row(bundle, row, threads, batch, ask or _asked))
            task.advance(note=f"{row.runtime.name} {row.precision}")
    return tuple(found)


def _row(
    bundle: Bundle,
    row: Candidate,
    threads: int,
    batch: int,
    asked: Callable[[Question], tuple[Answer, int]],
) -> Footprint:
    named = (row.runtime.name, row.precision, row.memory, threads)
    remark = row.runtime.remark
    if row.reason:
        return Footprint(*named, "not run", row.reason, remark=remark)
    on_gpu = row.runtime.on_gpu
    try:
        answer, peak_bytes = asked(
            Question(
                str(bundle.path),
                row.runtime.name,
                row.precision,
                row.memory,
                threads,
                batch,
                on_gpu,
            )
        )
    except RuntimeFailedError as error:
        return Footprint(*named, "failed", error.what, remark=remark)
    return Footprint(
        *named,
        "passed",
        batch=batch,
        base=answer.base,
        loaded=answer.loaded,
        ran=answer.ran,
        peak_pss_bytes=max(peak_bytes, answer.loaded.pss_bytes, answer.ran.pss_bytes),
        device_bytes=answer.device_bytes,
        disk_bytes=disk_bytes(bundle, row.precision, row.runtime.name),
        remark=remark,
    )


def disk_bytes(bundle: Bundle, precision: Precision, runtime: str) -> int:
    """Bytes of the files that a runtime reads in one precision: weights, and engines or graphs."""
    manifest = bundle.manifest
    plans = [
        plan.file
        for plan in manifest.plans
        if (plan.package, plan.precision) == (runtime, precision)
    ]
    names = {manifest.weights[precision], *(plans or manifest.graphs[precision].values())}
    return sum(manifest.files[name].size_bytes for name in names)


def _asked(question: Question) -> tuple[Answer, int]:
    """The answer of a fresh process, and the peak of its Pss as seen from here."""
    peaks: list[PeakMemory] = []

    def watching(pid: int) -> PeakMemory:
        peaks.append(PeakMemory(pid, SAMPLING_S))
        return peaks[0]

    answer = fresh.ask(("-m", __name__), question, Answer, watching=watching)
    return answer, peaks[0].peak_bytes


def main() -> None:
    """The fresh process: a question on standard input, the answer into the argument's file."""
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    Path(sys.argv[1]).write_bytes(msgspec.json.encode(_measured(question)))


def _measured(question: Question) -> Answer:
    bundle = open_bundle(question.bundle, check="size")
    stage = bundle.manifest.stage("autoencoder")
    sides = stage.inputs[0], stage.outputs[0]
    calls = [
        [np.ones((batch, *side.element_shape), side.dtype.dtype) for side in sides]
        for batch in (1, question.batch)
    ]
    free_bytes = memory_bytes()[0] if question.on_gpu else 0
    base = _held()
    session = open_session(
        bundle,
        runtime=question.runtime,
        precision=question.precision,
        memory=question.memory,
        threads=question.threads,
    )
    with session:
        loaded = _held()
        for x, out in calls:
            session.reconstruct(x, out)
        ran = _held()
        taken_bytes = free_bytes - memory_bytes()[0] if question.on_gpu else None
    return Answer(base, loaded, ran, taken_bytes)


def _held() -> Held:
    return Held(pss_bytes(), private_bytes())


if __name__ == "__main__":
    main()
