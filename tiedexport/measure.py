"""Latency of every runtime and precision that can run a bundle, measured in turns."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from tiedexport import environment
from tiedexport.bundle import Bundle, open_bundle
from tiedexport.contender import Contender, RemoteContender, SessionContender
from tiedexport.errors import TiedExportError, UsageError
from tiedexport.progress import Progress
from tiedexport.results import BenchResult, Latency
from tiedexport.runtimes import all_runtimes, choose_precision, runtime_named
from tiedexport.session import refuse_threads
from tiedexport.spec import STAGE_OF_VERB

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tiedexport.progress import Task
    from tiedexport.results import Status
    from tiedexport.runtimes import Memory
    from tiedexport.spec import Precision

TURN_S = 0.005
"""The shortest turn: some hundred thousand times the clock's resolution."""

_PERCENT = 100
_MODES: dict[str, tuple[Memory, ...]] = {
    "shared": ("shared",),
    "packed": ("packed",),
    "both": ("shared", "packed"),
}


def bench(
    bundle: Bundle | str | Path,
    *,
    runtime: Sequence[str] = (),
    stage: Sequence[str] = ("autoencoder",),
    batch: Sequence[int] = (1, 8, 64, 256),
    warmup_ms: float = 200.0,
    duration_s: float = 1.0,
    iterations: int = 10,
    percentile: Sequence[float] = (50, 95, 99),
    threads: int = 1,
    memory: Memory | Literal["both"] = "shared",
    progress: Progress | None = None,
) -> BenchResult:
    """Time every runtime and precision that can run the bundle; the others are rows that say why.

    All contenders at one stage and batch size take turns until the last is done, so that a drift of
    the machine hits all alike. Every timed call counts. With one thread all live in this process;
    with more each has a process of its own, since idle thread pools that spin would starve the one
    whose turn it is. Calls go through `Session.bind`. Flags mean what they mean in trtexec.

    Args:
        bundle: an open bundle or its path.
        runtime: names; by default every runtime that is not slow by design.
        stage: stages or verbs ("encode", "decode", "reconstruct").
        batch: batch sizes.
        warmup_ms: untimed calls before, in milliseconds a contender and batch size.
        duration_s: timed seconds, at least, a contender and batch size.
        iterations: timed calls, at least, a contender and batch size.
        percentile: percentiles to report, interpolated linearly between calls.
        threads: CPU threads a session computes with.
        memory: "shared", "packed", or "both" side by side where a runtime lays out both
            differently.
        progress: where to show progress; by default nowhere.

    Raises:
        UsageError: an argument is out of range or names nothing that exists.
    """
    started = time.perf_counter()
    budget = Budget(warmup_ms / 1e3, duration_s, iterations, tuple(percentile), threads)
    budget.check()
    if not batch or min(batch) < 1:
        raise UsageError("batch sizes must be positive", got=list(batch))
    if memory not in _MODES:
        raise UsageError("unknown memory mode", got=repr(memory), expected=", ".join(_MODES))
    bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    stages = [STAGE_OF_VERB.get(name, name) for name in stage]
    known = [spec.name for spec in bundle.manifest.stages]
    if unknown := [name for name in stages if name not in known]:
        raise UsageError("unknown stage", got=", ".join(unknown), expected=", ".join(known))
    rows = list(_rows(bundle, runtime, memory))
    latencies: list[Latency] = []
    try:
        _open(rows, bundle, threads)
        heats = [(name, size) for name in stages for size in batch]
        progress = progress or Progress(quiet=True)
        with progress.task("bench", len(heats) * _PERCENT) as task:
            for index, (name, size) in enumerate(heats):
                task.reach(index * _PERCENT, note=f"{name}, batch {size}")
                latencies += heat(rows, name, size, budget, task)
            task.reach(task.total)
    finally:
        for row in rows:
            if row.contender is not None:
                row.contender.close()
    return BenchResult(
        bundle=str(bundle.path),
        latencies=tuple(latencies),
        environment=environment.current(),
        seconds=time.perf_counter() - started,
        options=budget.options(),
    )


@dataclass(frozen=True)
class Budget:
    """How long to measure, and what to report of it; `warmup_s` and `duration_s` as in `bench`."""

    warmup_s: float
    duration_s: float
    iterations: int
    percentile: tuple[float, ...]
    threads: int

    def check(self) -> None:
        """Refuse what cannot be measured."""
        if not (self.warmup_s >= 0 and self.duration_s >= 0 and self.iterations >= 1):
            raise UsageError(
                "a measurement needs time",
                got=f"warmUp {self.warmup_s * 1e3:g} ms, duration {self.duration_s:g} s, "
                f"iterations {self.iterations}",
                expected="warmUp and duration not negative, iterations at least 1",
            )
        if not all(0 < p < 100 for p in self.percentile):
            raise UsageError(
                "percentiles lie between 0 and 100", got=", ".join(map(str, self.percentile))
            )
        refuse_threads(self.threads)

    def options(self) -> dict[str, float]:
        """What a reader needs to repeat the measurement, named as on the command line."""
        return {
            "warmUp": self.warmup_s * 1e3,
            "duration": self.duration_s,
            "iterations": self.iterations,
            "threads": self.threads,
        }


@dataclass
class Row:
    """What runs in which way; `contender` where it can run, else `status` and `reason`.

    Attributes:
        remark: what must be said beside its figures.
        samples_ns, spent_ns, calls_a_turn, running: of the present heat.
    """

    runtime: str
    precision: Precision
    reason: str = ""
    memory: Memory = "shared"
    remark: str = ""
    status: Status = "not run"
    contender: Contender | None = None
    samples_ns: list[np.ndarray] = field(default_factory=list)
    spent_ns: int = 0
    calls_a_turn: int = 1
    running: bool = False

    def fail(self, error: TiedExportError) -> None:
        """Take no more part in this heat."""
        self.status, self.reason, self.running = "failed", str(error), False

    def take_turn(self, budget: Budget) -> None:
        """Time one turn, and leave once there are enough calls over enough seconds."""
        assert self.contender is not None
        try:
            samples = self.contender.take_turn(self.calls_a_turn)
        except TiedExportError as error:
            self.fail(error)
            return
        self.samples_ns.append(samples)
        self.spent_ns += int(samples.sum())
        calls = sum(map(len, self.samples_ns))
        self.running = self.spent_ns < budget.duration_s * 1e9 or calls < budget.iterations


def _rows(bundle: Bundle, wanted: Sequence[str], memory: str) -> Iterator[Row]:
    chosen = [runtime_named(name) for name in wanted] or list(all_runtimes().values())
    for row in chosen:
        found = row.availability()
        modes = _MODES[memory] if row.packs else _MODES[memory][:1]
        for precision in bundle.manifest.precisions:
            if not found.available:
                reason = found.why
            elif row.slow and not wanted:
                reason = f"slow by design; to measure it: --runtime {row.name}"
            else:
                _, reason = choose_precision(row, bundle, precision)
            for mode in modes:
                yield Row(row.name, precision, reason, mode, row.remark)


def _open(rows: list[Row], bundle: Bundle, threads: int) -> None:
    for row in rows:
        if row.reason:
            continue
        arguments = (row.runtime, row.precision.value, threads, row.memory)
        try:
            if threads == 1:
                row.contender = SessionContender(bundle, *arguments)
            else:
                row.contender = RemoteContender(SessionContender, str(bundle.path), *arguments)
        except TiedExportError as error:
            row.fail(error)


def heat(rows: list[Row], stage: str, batch: int, budget: Budget, task: Task) -> Iterator[Latency]:
    """Measure all contenders at one stage and batch size, then tell of every row.

    Args:
        rows: who takes part; a contender that fails is out of this heat only.
        stage: handed to `Contender.prepare`, as is `batch`.
        batch: how many rows a call has.
        budget: how long.
        task: advances by up to a hundred.
    """
    racing = [row for row in rows if row.contender is not None]
    _line_up(racing, stage, batch, budget)
    turn, heat_starts = 0, task.done
    while running := [row for row in racing if row.running]:
        # Alternate the order: who follows whom must not favour anyone.
        for row in running[:: -1 if turn % 2 else 1]:
            row.take_turn(budget)
        turn += 1
        goal_ns = max(budget.duration_s, 1e-9) * 1e9
        slowest = min(row.spent_ns / goal_ns for row in racing)
        task.reach(heat_starts + _PERCENT * min(slowest, 0.99))
    for row in rows:
        yield _latency(row, stage, batch, budget)


def _line_up(racing: list[Row], stage: str, batch: int, budget: Budget) -> None:
    """Warm up, and give all turns of one length: the slowest call, but ten turns at least."""
    call_s = {}
    for row in racing:
        row.samples_ns, row.spent_ns, row.status, row.reason = [], 0, "passed", ""
        assert row.contender is not None
        try:
            call_s[id(row)] = row.contender.prepare(stage, batch, budget.warmup_s)
        except TiedExportError as error:
            row.fail(error)
        else:
            row.running = True
    slowest_s = max(call_s.values(), default=0.0)
    turn_s = max(TURN_S, min(slowest_s, budget.duration_s / 10))
    for row in racing:
        row.calls_a_turn = math.ceil(turn_s / max(call_s.get(id(row), turn_s), 1e-9))


def _latency(row: Row, stage: str, batch: int, budget: Budget) -> Latency:
    if row.status != "passed":
        return Latency(
            row.runtime,
            stage,
            row.precision,
            batch,
            budget.threads,
            row.status,
            row.reason,
            memory=row.memory,
            remark=row.remark,
        )
    seconds = np.concatenate(row.samples_ns) / 1e9
    return Latency(
        runtime=row.runtime,
        stage=stage,
        precision=row.precision,
        batch=batch,
        threads=budget.threads,
        status="passed",
        iterations=len(seconds),
        min_s=float(seconds.min()),
        mean_s=float(seconds.mean()),
        median_s=float(np.median(seconds)),
        max_s=float(seconds.max()),
        percentiles_s={f"p{p:g}": float(np.percentile(seconds, p)) for p in budget.percentile},
        throughput_per_s=float(batch * len(seconds) / seconds.sum()),
        memory=row.memory,
        remark=row.remark,
    )
