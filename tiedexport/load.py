"""Load: several callers of one session, latency against throughput, and every result compared."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from tiedexport.bundle import Bundle, open_bundle
from tiedexport.candidates import candidates
from tiedexport.contender import golden_inputs, refuse_batches
from tiedexport.errors import TiedExportError, UsageError
from tiedexport.progress import Progress
from tiedexport.results.load import Load
from tiedexport.session import open_session
from tiedexport.spec import STAGE_OF_VERB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tiedexport.candidates import Candidate
    from tiedexport.session import Session

LEAST_CALLS = 5
MOST_CALLERS = 256
PERCENTILES = (50, 90, 99)


@dataclass
class Caller:
    """One caller: its own input, the output that a single caller got for it, and what it saw.

    Attributes:
        spans_ns: beginning and end of each call.
        different: results that were not bit for bit the expected one.
    """

    x: np.ndarray
    expected: np.ndarray
    spans_ns: list[tuple[int, int]] = field(default_factory=list)
    different: int = 0

    def call(
        self,
        run: Callable[[np.ndarray, np.ndarray], object],
        duration_s: float,
        clock: Callable[[], int],
    ) -> None:
        """Call again and again for at least so long; what is compared is not timed."""
        out = np.empty_like(self.expected)
        while not self._done(duration_s):
            out.fill(np.nan)  # what is left from the call before proves nothing
            began = clock()
            run(self.x, out)
            self.spans_ns.append((began, clock()))
            self.different += out.tobytes() != self.expected.tobytes()

    def _done(self, duration_s: float) -> bool:
        if len(self.spans_ns) < LEAST_CALLS:
            return False
        return self.spans_ns[-1][1] - self.spans_ns[0][0] >= duration_s * 1e9


def load(
    bundle: Bundle | str | Path,
    callers: int,
    *,
    runtime: Sequence[str] = (),
    stage: str = "autoencoder",
    batch: int = 1,
    threads: int = 1,
    memory: str = "shared",
    duration_s: float = 0.5,
    progress: Progress | None = None,
) -> tuple[Load, ...]:
    """Let 1, 2, 4, … up to `callers` threads call one session at once, in every runtime by itself.

    Args:
        bundle: an open bundle or its path.
        callers: the most.
        runtime: names; by default every runtime that is not slow by design.
        stage: stage or verb.
        batch: samples a call.
        threads: CPU threads that compute for each call.
        memory: "shared", "packed", or "both".
        duration_s: at least, for each number of callers.
        progress: where to show progress; by default nowhere.

    Raises:
        UsageError: an argument is out of range or names nothing that exists.
    """
    if not 1 <= callers <= MOST_CALLERS:
        raise UsageError(
            "not a useful number of callers", got=callers, expected=f"1 to {MOST_CALLERS}"
        )
    refuse_batches([batch])
    bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    name = STAGE_OF_VERB.get(stage, stage)
    bundle.manifest.stage(name)
    rows = list(candidates(bundle, runtime, memory))
    found: list[Load] = []
    with (progress or Progress(quiet=True)).task("load", len(rows)) as task:
        for row in rows:
            named = (row.runtime.name, name, row.precision, row.memory, threads, batch)
            empty = Load(*named, callers=1, status="not run", remark=row.runtime.remark)
            found += _rows(bundle, row, empty, numbers_up_to(callers), duration_s)
            task.advance(note=f"{row.runtime.name} {row.precision}")
    return tuple(found)


def numbers_up_to(callers: int) -> list[int]:
    """1, 2, 4, … and the number itself."""
    return sorted({*(1 << n for n in range(callers.bit_length())), callers})


def _rows(
    bundle: Bundle, row: Candidate, empty: Load, numbers: list[int], duration_s: float
) -> Iterator[Load]:
    if row.reason:
        yield replace(empty, callers=numbers[-1], reason=row.reason)
        return
    try:
        session = open_session(
            bundle,
            runtime=empty.runtime,
            precision=empty.precision,
            memory=row.memory,
            threads=empty.threads,
        )
    except TiedExportError as error:
        yield replace(empty, callers=numbers[-1], status="failed", reason=str(error))
        return
    with session:
        for number in numbers:
            try:
                yield measured(replace(empty, callers=number), session, duration_s)
            except TiedExportError as error:
                yield replace(empty, callers=number, status="failed", reason=str(error))


def measured(
    row: Load,
    session: Session,
    duration_s: float,
    clock: Callable[[], int] = perf_counter_ns,
) -> Load:
    """The row with what its callers saw.

    Args:
        row: says how many call which stage, with how many samples.
        session: all of them call this one.
        duration_s: at least.
        clock: nanoseconds, the same for all callers.
    """
    spec = session.bundle.manifest.stage(row.stage)
    samples = golden_inputs(session.bundle, spec, row.batch + row.callers - 1)
    inputs = [samples[first : first + row.batch] for first in range(row.callers)]
    alone = [Caller(x, session.run(row.stage, x)) for x in inputs]
    if any(session.run(row.stage, c.x).tobytes() != c.expected.tobytes() for c in alone):
        reason = "a single caller's results differ from call to call: nothing to compare with"
        return replace(row, reason=reason)
    together = threading.Barrier(row.callers)

    def call(caller: Caller) -> None:
        together.wait()
        caller.call(lambda x, out: session.run(row.stage, x, out), duration_s, clock)

    with ThreadPoolExecutor(row.callers) as pool:
        for done in [pool.submit(call, caller) for caller in alone]:
            done.result()
    return summed_up(row, alone)


def summed_up(row: Load, callers: Sequence[Caller]) -> Load:
    """The figures of all calls of all callers; throughput is over all of the time they took."""
    spans = np.array([span for caller in callers for span in caller.spans_ns], np.int64)
    seconds = (spans[:, 1] - spans[:, 0]) / 1e9
    percentiles = np.percentile(seconds, PERCENTILES)
    different = sum(caller.different for caller in callers)
    wrong = f"{different} of {len(spans)} results differ from a single caller's"
    return replace(
        row,
        status="failed" if different else "passed",
        reason=wrong if different else "",
        calls=len(spans),
        latencies_s={
            "min": float(seconds.min()),
            "mean": float(seconds.mean()),
            **{f"p{p}": float(s) for p, s in zip(PERCENTILES, percentiles, strict=True)},
            "max": float(seconds.max()),
        },
        throughput_per_s=float(
            row.batch * len(spans) / ((spans[:, 1].max() - spans[:, 0].min()) / 1e9)
        ),
        different=different,
    )
