"""Latency of every runtime and precision that can run a bundle, measured in turns."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec import structs

from tiedexport import environment
from tiedexport.bundle import Bundle, open_bundle
from tiedexport.contender import empty_call, refuse_batches
from tiedexport.errors import UsageError
from tiedexport.measure import against as earlier_results
from tiedexport.measure import times
from tiedexport.measure.baseline import Baseline, baseline_from, ratios
from tiedexport.measure.device_rows import open_device_rows, with_device_times
from tiedexport.measure.entrants import open_all, rows_of
from tiedexport.measure.intervals import CONFIDENCE
from tiedexport.measure.reference import reference_row
from tiedexport.measure.turns import PROGRESS_A_HEAT, Budget, Row, heat
from tiedexport.progress import Progress
from tiedexport.results import BenchResult, Latency
from tiedexport.results.reading import read_bench
from tiedexport.spec import STAGE_OF_VERB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiedexport.measure.device_rows import DeviceRow
    from tiedexport.measure.times import Times
    from tiedexport.results.bench import Timer
    from tiedexport.runtimes import Memory


def bench(
    bundle: Bundle | str | Path,
    *,
    runtime: Sequence[str] = (),
    stage: Sequence[str] = ("autoencoder",),
    batch: Sequence[int] = (1, 8, 64, 256),
    warmup_ms: float = 200.0,
    duration_s: float = 1.0,
    iterations: int = 10,
    percentile: Sequence[float] = (90, 95, 99),
    threads: int = 1,
    memory: Memory | Literal["both"] = "shared",
    idle_ms: float = 0.0,
    baseline: str = "",
    against: str | Path | Sequence[str | Path] = (),
    max_regression: float | None = None,
    export_times: str | Path | None = None,
    progress: Progress | None = None,
) -> BenchResult:
    """Time every runtime and precision that can run the bundle; the others are rows that say why.

    All contenders at one stage and batch size take turns until the last is done, so that a drift of
    the machine hits all alike. The first call of a turn, which finds caches full of what others
    left, is not timed; every timed call counts. With one thread all live in this process; with more
    each has a process of its own, since idle thread pools that spin would starve the one whose turn
    it is. Calls go through `Session.bind`. Flags mean what they mean in trtexec.

    Args:
        bundle: an open bundle or its path.
        runtime: names; by default every runtime that is not slow by design.
        stage: stages or verbs ("encode", "decode", "reconstruct").
        batch: batch sizes.
        warmup_ms: untimed calls before, in milliseconds a contender and batch size, and on until
            they take equally long, for five times that at most.
        duration_s: timed seconds, at least, a contender and batch size.
        iterations: timed calls, at least, a contender and batch size.
        percentile: percentiles to report, interpolated linearly between calls.
        threads: CPU threads a session computes with.
        memory: "shared", "packed", or "both" side by side where a runtime lays out both
            differently.
        idle_ms: a pause before each call, in milliseconds.
        baseline: whom to give every row's speed over: RUNTIME, RUNTIME/PRECISION or
            RUNTIME/PRECISION/MEMORY.
        against: the JSON of an earlier result to compare with, or of several of the same code,
            which tell how far such runs differ.
        max_regression: percent more time than in `against` that a call may take; a row that beyond
            chance and the machine takes more has the result fail.
        export_times: a file for every single time that is taken.
        progress: where to show progress; by default nowhere.

    Raises:
        UsageError: an argument is out of range or names nothing that exists.
        BadInputError: `against` cannot be read or compared with.
    """
    started = time.perf_counter()
    budget = Budget(
        warmup_ms / 1e3, duration_s, iterations, tuple(percentile), threads, idle_ms / 1e3
    )
    budget.check()
    base = baseline_from(baseline) if baseline else None
    files = (against,) if isinstance(against, str | Path) else tuple(against)
    earlier = _earlier(files, max_regression)
    bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    heats = _heats(bundle, stage, batch)
    rows = rows_of(bundle, runtime, memory)
    _refuse_absent(base, rows)
    measured = _Run(bundle, rows, budget, empty_call(), keep_times=export_times is not None)
    measured.run(heats, progress or Progress(quiet=True))
    if export_times is not None:
        times.write(Path(export_times), str(bundle.path), measured.times)
    result = measured.result(base)
    if earlier:
        changes = earlier_results.compared(result, earlier, max_regression)
        result = structs.replace(result, against=changes, confidence=CONFIDENCE)
    return structs.replace(result, seconds=time.perf_counter() - started)


@dataclass
class _Run:
    """All heats of one bench, and what they told."""

    bundle: Bundle
    rows: list[Row]
    budget: Budget
    timer: Timer
    keep_times: bool

    def __post_init__(self) -> None:
        self.latencies: list[Latency] = []
        self.references: list[Latency] = []
        self.reference = reference_row()
        self.on_device: list[DeviceRow] = []
        self.times: list[Times] = []

    def run(self, heats: list[tuple[str, int]], progress: Progress) -> None:
        """Open all contenders, measure heat by heat, and close them."""
        try:
            open_all(self.rows, self.bundle, self.budget.threads, self.budget.idle_s)
            self.on_device += open_device_rows(self.rows, self.bundle)
            with progress.task("bench", len(heats) * PROGRESS_A_HEAT) as task:
                for index, (name, size) in enumerate(heats):
                    task.reach(index * PROGRESS_A_HEAT, note=f"{name}, batch {size}")
                    timer_s, beside = self.timer.median_s, self.reference
                    rows = [*self.rows, *self.on_device]
                    found = heat(rows, name, size, self.budget, task, timer_s, beside)
                    found = with_device_times(found, self.on_device, self.budget)
                    self.latencies += found
                    if beside.samples_ns:
                        self.references.append(beside.latency(name, size, self.budget, timer_s))
                    if self.keep_times:
                        pairs = zip(self.rows, found, strict=True)
                        self.times += [times.times_of(*pair) for pair in pairs if pair[1].rounds_ns]
                task.reach(task.total)
        finally:
            for row in (*self.rows, *self.on_device, self.reference):
                if row.contender is not None:
                    row.contender.close()

    def result(self, base: Baseline | None) -> BenchResult:
        """All of it but the seconds that it took."""
        name, speeds = ratios(self.latencies, base) if base else ("", ())
        return BenchResult(
            bundle=str(self.bundle.path),
            latencies=tuple(self.latencies),
            environment=environment.current(),
            seconds=0.0,
            options=self.budget.options(),
            timer=self.timer,
            baseline=name,
            ratios=speeds,
            confidence=CONFIDENCE if base else None,
            references=tuple(self.references),
            weights_sha256=self.bundle.manifest.weights_sha256,
        )


def _heats(bundle: Bundle, stage: Sequence[str], batch: Sequence[int]) -> list[tuple[str, int]]:
    refuse_batches(batch)
    stages = dict.fromkeys(STAGE_OF_VERB.get(name, name) for name in stage)
    known = [spec.name for spec in bundle.manifest.stages]
    if unknown := [name for name in stages if name not in known]:
        raise UsageError("unknown stage", got=", ".join(unknown), expected=", ".join(known))
    return [(name, size) for name in stages for size in dict.fromkeys(batch)]


def _earlier(against: Sequence[str | Path], max_regression: float | None) -> dict[str, BenchResult]:
    """The results to compare with, by file: a mistake in one shows before anything is measured."""
    if max_regression is not None and not max_regression >= 0:
        raise UsageError("a regression is not negative", got=f"{max_regression:g} %")
    if max_regression is not None and not against:
        raise UsageError("a regression is one against an earlier result", hint="--against FILE")
    earlier = {str(file): read_bench(file) for file in against}
    for file, result in earlier.items():
        earlier_results.refuse_what_cannot_be_compared(result, file)
    return earlier


def _refuse_absent(base: Baseline | None, rows: Sequence[Row]) -> None:
    """Refuse a baseline that takes no part."""
    if base is None:
        return
    if not any(base.names(row) for row in rows):
        names = dict.fromkeys(f"{row.runtime}/{row.precision}/{row.memory}" for row in rows)
        raise UsageError(
            "the baseline takes no part",
            got=str(base),
            expected=", ".join(names),
            hint=f"--runtime {base.runtime}",
        )
