"""What `bench` reports: latencies and what they rest on, ratios of them, and changes since before.

The JSON has the schema that `tiedexport bench --json-schema` prints. Files of every earlier schema
are still read: what those did not hold is empty.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from tiedexport.results.cold import ColdStart, Footprint
from tiedexport.results.device import DeviceTimes
from tiedexport.results.load import Load
from tiedexport.results.machine import Environment
from tiedexport.results.roofline import Roofline
from tiedexport.results.status import Status
from tiedexport.spec import Precision

BENCH_SCHEMA = 2
"""2 added to a latency its cv, warm-up, rounds and warnings, and to the result all else."""

Kind = Literal["noise", "drift", "warm-up", "timer", "enqueue-bound", "transfer-bound"]
Verdict = Literal["faster", "slower", "no difference shown"]


class WarmUp(Struct, frozen=True):
    """The untimed calls before the timed ones, which go on until they take equally long.

    Attributes:
        call_s: median seconds a call in the last window.
        seconds: spent on all windows, which is not the whole: the first call may load or compile.
        calls: how many in all windows.
        spread: largest over smallest median of the last three windows, less 1; None where there
            were fewer windows.
        stable: whether the spread came below the limit before time was up.
    """

    call_s: float
    seconds: float
    calls: int
    spread: float | None = None
    stable: bool = False


class Timer(Struct, frozen=True):
    """What timing a call adds to it: an empty call through the loop that times all others.

    Attributes:
        median_s, p99_s: seconds of an empty call.
        calls: how many there were.
        resolution_s: of the clock, as the system states it.
    """

    median_s: float
    p99_s: float
    calls: int
    resolution_s: float


class Instability(Struct, frozen=True):
    """Why a row's figures may not repeat, or are not of what they seem.

    Attributes:
        kind: "noise": rounds differ by more than the limit; "drift": the second half of them from
            the first; "warm-up": it did not settle; "timer": timing is no longer small beside a
            call; "enqueue-bound", "transfer-bound": the device waits for the host, or for copies.
        value: of what has a limit, as a fraction.
        limit: which `value` exceeds.
        reason: both in words.
    """

    kind: Kind
    value: float
    limit: float
    reason: str


class Latency(Struct, frozen=True):
    """Seconds a call of one contender at one batch size, over every timed call (none dropped).

    Attributes:
        iterations: how many calls were timed.
        percentiles_s: "p99" → seconds, interpolated linearly between calls.
        throughput_per_s: samples a second: batch × calls / seconds of all calls.
        memory: the mode of its session: one copy of each weight, or the runtime's fastest layout.
        remark: what must be said beside it.
        cv: coefficient of variation of all calls: standard deviation / mean.
        rounds_ns: the median call of each turn in nanoseconds, in order. Turn by turn, those of all
            rows of one stage and batch size were measured side by side: ratios rest on them.
        warm_up: what went before.
        warnings: why its figures may not repeat.
        device: on a GPU the parts of a call, without and with a CUDA graph.
    """

    runtime: str
    stage: str
    precision: Precision
    batch: int
    threads: int
    status: Status
    reason: str = ""
    iterations: int = 0
    min_s: float | None = None
    mean_s: float | None = None
    median_s: float | None = None
    max_s: float | None = None
    percentiles_s: dict[str, float] = field(default_factory=dict)
    throughput_per_s: float | None = None
    memory: Literal["shared", "packed"] = "shared"
    remark: str = ""
    cv: float | None = None
    rounds_ns: tuple[int, ...] = ()
    warm_up: WarmUp | None = None
    warnings: tuple[Instability, ...] = ()
    device: tuple[DeviceTimes, ...] = ()


class Ratio(Struct, frozen=True):
    """How many times as fast a row is as another of the same stage and batch size.

    Attributes:
        speed: the other's time over this one's: above 1 it is faster.
        low, high: ends of the confidence interval; None where too few rounds are independent.
        rounds: how many it rests on.
        verdict: "faster" or "slower" only where the interval excludes 1.
        independent_rounds: how many those rounds are worth, as neighbours are alike; None in older
            files.
    """

    runtime: str
    stage: str
    precision: Precision
    batch: int
    threads: int
    memory: Literal["shared", "packed"]
    remark: str
    speed: float
    low: float | None
    high: float | None
    rounds: int
    verdict: Verdict
    independent_rounds: float | None = None


class Scatter(Struct, frozen=True):
    """How far runs of the same code differ on this machine, once its own change is taken out.

    Attributes:
        deviation: standard deviation of the logarithm of a time, from run to run.
        freedom: degrees of freedom of that estimate.
        runs: earlier runs that it is from; of a single one, it is from how far the rows of a
            runtime changed apart.
    """

    deviation: float
    freedom: float
    runs: int


class Against(Struct, frozen=True):
    """What changed since earlier results, beyond what the machine itself did.

    Attributes:
        file: the earlier result; several with commas between them.
        changes: the speed of every row that both have, over its own earlier one.
        gone, new: rows that only the earlier, only this result has measured.
        warnings: why the two may not be comparable.
        max_regression_percent: how much more time a call may take; None for any.
        machine: time of the reference loop over its earlier time, one a stage and batch size:
            what was taken out of the changes.
        scatters: what a change must go beyond: one for all rows, or of several earlier runs one a
            stage and batch size.
    """

    file: str
    changes: tuple[Ratio, ...]
    gone: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    max_regression_percent: float | None = None
    machine: tuple[float, ...] = ()
    scatters: tuple[Scatter, ...] = ()

    @property
    def regressions(self) -> tuple[Ratio, ...]:
        """The rows that are slower, beyond chance, by more than may be."""
        if self.max_regression_percent is None:
            return ()
        most = 1 + self.max_regression_percent / 100
        return tuple(
            row for row in self.changes if row.verdict == "slower" and 1 / row.speed > most
        )


class BenchResult(Struct, frozen=True):
    """All rows of `bench`; contenders of one batch size were interleaved round by round.

    Attributes:
        options: of the measurement, as on the command line: warmUp and idleTime in ms, duration in
            s, iterations, threads.
        timer: what timing a call adds to it.
        baseline: what `ratios` are over, as on the command line; "" where none was asked for.
        confidence: of every interval.
        against: the comparison with an earlier result.
        roofline: the limits of the machine, and each latency against them, if asked for.
        cold_starts, footprints, loads: seconds to a first output, memory, and several callers of
            one session; none where they were not asked for.
        references: a loop that is no part of what is measured, a stage and batch size each: it took
            a turn in every round, so that what it takes is the machine's doing.
        weights_sha256: digests of the weights that the bundle held; none in older files.
    """

    bundle: str
    latencies: tuple[Latency, ...]
    environment: Environment
    seconds: float
    options: dict[str, float] = field(default_factory=dict)
    timer: Timer | None = None
    baseline: str = ""
    ratios: tuple[Ratio, ...] = ()
    confidence: float | None = None
    against: Against | None = None
    roofline: Roofline | None = None
    cold_starts: tuple[ColdStart, ...] = ()
    footprints: tuple[Footprint, ...] = ()
    loads: tuple[Load, ...] = ()
    references: tuple[Latency, ...] = ()
    weights_sha256: dict[Precision, str] = field(default_factory=dict)
    schema: int = BENCH_SCHEMA

    @property
    def failed(self) -> bool:
        """Whether any contender failed, or became slower than it may be."""
        regressed = self.against is not None and bool(self.against.regressions)
        parts = tuple(part for row in self.latencies for part in row.device)
        beside = (self.latencies, self.cold_starts, self.footprints, self.loads, parts)
        return regressed or any(row.status == "failed" for rows in beside for row in rows)

    @property
    def passed(self) -> bool:
        """Whether something was measured and nothing failed."""
        return not self.failed and any(row.status == "passed" for row in self.latencies)
