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
from tiedexport.contender import (
    golden_inputs,
    refuse_batches,
    timed,
    wait_until_alone,
    warm_up,
)
from tiedexport.errors import TiedExportError, UsageError
from tiedexport.open_loop import figures
from tiedexport.progress import Progress
from tiedexport.results.load import Load
from tiedexport.session import open_session
from tiedexport.spec import STAGE_OF_VERB

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tiedexport.candidates import Candidate
    from tiedexport.session import Session

ROUNDS = 5
"""Turns of each runtime at a number of callers: as in `bench`, a drift of the machine hits all."""

_MOST_CALLERS = 256


@dataclass
class Caller:
    """One caller: its own input, the output that a single caller got for it, and what it saw.

    Attributes:
        turns_ns: turn by turn, beginning and end of each call.
        different: results that were not bit for bit the expected one.
    """

    x: np.ndarray
    expected: np.ndarray
    turns_ns: list[list[tuple[int, int]]] = field(default_factory=list)
    different: int = 0

    def take_turn(
        self,
        run: Callable[[np.ndarray, np.ndarray], object],
        duration_s: float,
        clock: Callable[[], int],
    ) -> None:
        """Call again and again for at least so long; what is compared is not timed.

        Nor is the first call, which finds what others left in the caches.
        """
        out, spans = np.empty_like(self.expected), list[tuple[int, int]]()
        self.turns_ns.append(spans)
        self._call(run, out, clock)
        while not spans or spans[-1][1] - spans[0][0] < duration_s * 1e9:
            spans.append(self._call(run, out, clock))

    def _call(
        self,
        run: Callable[[np.ndarray, np.ndarray], object],
        out: np.ndarray,
        clock: Callable[[], int],
    ) -> tuple[int, int]:
        out.fill(np.nan)  # what is left from the call before proves nothing
        began = clock()
        run(self.x, out)
        ended = clock()
        self.different += out.tobytes() != self.expected.tobytes()
        return began, ended


@dataclass
class Crowd:
    """Several callers of one session, who take their turns together.

    Attributes:
        row: says how many call which stage, with how many samples; as it goes on, why they cannot.
        session: all of them call this one; None where it cannot be opened.
    """

    row: Load
    session: Session | None
    callers: list[Caller] = field(default_factory=list)

    def line_up(self, number: int, warmup_s: float) -> None:
        """Get what a single caller is answered, and warm up by the rule of `bench`."""
        self.row, self.callers = replace(self.row, callers=number), []
        if self.session is None:
            return
        self.row = replace(self.row, status="passed", reason="")
        try:
            self.callers = self._callers(self.session, number)
            if not self.callers:
                why = "a single caller's results differ from call to call: nothing to compare with"
                self.row = replace(self.row, status="not run", reason=why)
                return
            run, first = self.session.run, self.callers[0]
            warm_up(lambda calls: timed(lambda: run(self.row.stage, first.x), calls), warmup_s)
        except TiedExportError as error:
            self._fail(error)

    def take_turn(self, duration_s: float, clock: Callable[[], int]) -> None:
        """Let all of them call at once, for so long at least."""
        session, stage = self.session, self.row.stage
        if session is None or self.row.status != "passed":
            return
        together = threading.Barrier(len(self.callers))

        def call(caller: Caller) -> None:
            together.wait()
            caller.take_turn(lambda x, out: session.run(stage, x, out), duration_s, clock)

        try:
            with ThreadPoolExecutor(len(self.callers)) as pool:
                for done in [pool.submit(call, caller) for caller in self.callers]:
                    done.result()
        except TiedExportError as error:
            self._fail(error)

    def told(self) -> Load:
        """The row with what its callers saw."""
        ran = self.session is not None and self.row.status == "passed"
        return summed_up(self.row, self.callers) if ran else self.row

    def _callers(self, session: Session, number: int) -> list[Caller]:
        """Each with an input of its own; none where a single one is not answered alike."""
        row = self.row
        spec = session.bundle.manifest.stage(row.stage)
        samples = golden_inputs(session.bundle, spec, row.batch + number - 1)
        inputs = [samples[first : first + row.batch] for first in range(number)]
        found = [Caller(x, session.run(row.stage, x)) for x in inputs]
        alike = (session.run(row.stage, c.x).tobytes() == c.expected.tobytes() for c in found)
        return found if all(alike) else []

    def _fail(self, error: TiedExportError) -> None:
        self.row = replace(self.row, status="failed", reason=str(error))


def load(
    bundle: Bundle | str | Path,
    callers: int,
    *,
    runtime: Sequence[str] = (),
    stage: str = "autoencoder",
    batch: int = 1,
    threads: int = 1,
    memory: str = "shared",
    warmup_s: float = 0.1,
    duration_s: float = 0.5,
    progress: Progress | None = None,
) -> tuple[Load, ...]:
    """Let 1, 2, 4, … up to `callers` threads call one session at once, runtimes taking turns.

    Args:
        bundle: an open bundle or its path.
        callers: the most.
        runtime: names; by default every runtime that is not slow by design.
        stage: stage or verb.
        batch: samples a call.
        threads: CPU threads that compute for each call.
        memory: "shared", "packed", or "both".
        warmup_s: untimed calls before, by the rule of `bench`.
        duration_s: at least, for each number of callers, in `ROUNDS` turns.
        progress: where to show progress; by default nowhere.

    Raises:
        UsageError: an argument is out of range or names nothing that exists.
    """
    refuse_callers(callers)
    refuse_batches([batch])
    bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    name = STAGE_OF_VERB.get(stage, stage)
    bundle.manifest.stage(name)
    numbers = numbers_up_to(callers)
    crowds = [
        _crowd(bundle, one, name, batch, threads) for one in candidates(bundle, runtime, memory)
    ]
    found: list[list[Load]] = [[] for _ in crowds]
    try:
        with (progress or Progress(quiet=True)).task("load", len(numbers)) as task:
            for number in numbers:
                told = heat(crowds, number, warmup_s, duration_s)
                for rows, crowd, row in zip(found, crowds, told, strict=True):
                    # Who cannot run at all is one row.
                    if crowd.session is not None or number == numbers[-1]:
                        rows.append(row)
                task.advance(note=f"callers {number}")
    finally:
        for crowd in crowds:
            if crowd.session is not None:
                crowd.session.close()
    return tuple(row for rows in found for row in rows)


def refuse_callers(callers: int) -> None:
    """Refuse none, and more than tell anything.

    Raises:
        UsageError: there are as few or as many.
    """
    if not 1 <= callers <= _MOST_CALLERS:
        raise UsageError(
            "not a useful number of callers", got=callers, expected=f"1 to {_MOST_CALLERS}"
        )


def numbers_up_to(callers: int) -> list[int]:
    """1, 2, 4, … and the number itself."""
    return sorted({*(1 << n for n in range(callers.bit_length())), callers})


def _crowd(bundle: Bundle, one: Candidate, stage: str, batch: int, threads: int) -> Crowd:
    """With its session, or why there is none."""
    named = (one.runtime.name, stage, one.precision, one.memory, threads, batch)
    row = Load(*named, callers=1, status="not run", reason=one.reason, remark=one.runtime.remark)
    if one.reason:
        return Crowd(row, None)
    try:
        session = open_session(
            bundle,
            runtime=row.runtime,
            precision=row.precision,
            memory=one.memory,
            threads=threads,
        )
    except TiedExportError as error:
        return Crowd(replace(row, status="failed", reason=str(error)), None)
    return Crowd(row, session)


def heat(
    crowds: Sequence[Crowd],
    number: int,
    warmup_s: float,
    duration_s: float,
    clock: Callable[[], int] = perf_counter_ns,
) -> list[Load]:
    """What so many callers of each session see, crowd after crowd, in an order that alternates.

    Args:
        crowds: one a runtime, precision and mode.
        number: of callers.
        warmup_s: as for `load`, and so is `duration_s`.
        duration_s: of all turns of a crowd.
        clock: nanoseconds, the same for all callers.
    """
    for crowd in crowds:
        crowd.line_up(number, warmup_s)
    for turn in range(ROUNDS):
        for crowd in crowds[:: -1 if turn % 2 else 1]:
            crowd.take_turn(duration_s / ROUNDS, clock)
            wait_until_alone()  # idle pools that spin would take the next one's cores
    return [crowd.told() for crowd in crowds]


def summed_up(row: Load, callers: Sequence[Caller]) -> Load:
    """The figures of all calls of all callers; throughput is over all of the time they took.

    A turn lasts from the first call's beginning to the last one's end; between turns others run.
    """
    turns = [
        np.array([span for spans in turn for span in spans], np.int64)
        for turn in zip(*(caller.turns_ns for caller in callers), strict=True)
    ]
    taken_s = sum(int(turn[:, 1].max() - turn[:, 0].min()) for turn in turns) / 1e9
    spans = np.concatenate(turns)
    seconds = (spans[:, 1] - spans[:, 0]) / 1e9
    different = sum(caller.different for caller in callers)
    untimed = len(callers) * len(turns)
    wrong = f"{different} of {len(spans) + untimed} results differ from a single caller's"
    return replace(
        row,
        status="failed" if different else "passed",
        reason=wrong if different else "",
        calls=len(spans),
        latencies_s=figures(seconds),
        throughput_per_s=row.batch * len(spans) / taken_s,
        different=different,
    )
