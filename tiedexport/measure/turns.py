"""Contenders taking turns at one stage and batch size, until the last has been timed enough."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from tiedexport.errors import TiedExportError, UsageError
from tiedexport.measure import stability, statistics
from tiedexport.results import Latency
from tiedexport.session import refuse_threads

if TYPE_CHECKING:
    from tiedexport.contender import Contender
    from tiedexport.progress import Task
    from tiedexport.results import Status
    from tiedexport.results.bench import WarmUp
    from tiedexport.runtimes import Memory
    from tiedexport.spec import Precision

TURN_S = 0.005
"""The shortest turn: some hundred thousand times the clock's resolution."""

FEWEST_TURNS, MOST_TURNS = 20, 400
"""In the time that a contender has: enough for an interval, and few enough to be kept."""

LONGEST_LED_S = 0.1
"""A turn begins with a call that is not timed, as it finds caches full of what others left: where a
turn has few calls, it alone made medians 10 to 20 % longer. Calls that take longer than this do not
need it: to fill a cache again takes milliseconds at most."""

MOST_TIMES = 2
"""Whoever has been timed enough goes on with the others, for so many times the duration at most:
else a stall would end a contender's part at its worst, and leave what comes after to the others."""

PROGRESS_A_HEAT = 100


@dataclass(frozen=True)
class Budget:
    """How long to measure, and what to report of it.

    `warmup_s`, `duration_s` and `idle_s`: as in `bench`, in seconds.
    """

    warmup_s: float
    duration_s: float
    iterations: int
    percentile: tuple[float, ...]
    threads: int
    idle_s: float = 0.0

    def check(self) -> None:
        """Refuse what cannot be measured."""
        times_s = (self.warmup_s, self.duration_s, self.idle_s)
        if not (all(0 <= t < math.inf for t in times_s) and self.iterations >= 1):
            raise UsageError(
                "a measurement needs time",
                got=f"warmUp {self.warmup_s * 1e3:g} ms, duration {self.duration_s:g} s, "
                f"idleTime {self.idle_s * 1e3:g} ms, iterations {self.iterations}",
                expected="times finite and not negative, iterations at least 1",
            )
        if not all(0 < p < 100 for p in self.percentile):
            raise UsageError(
                "percentiles lie between 0 and 100", got=", ".join(map(str, self.percentile))
            )
        refuse_threads(self.threads)

    def options(self) -> dict[str, float]:
        """What a reader needs to repeat the measurement, named as on the command line."""
        found = {
            "warmUp": self.warmup_s * 1e3,
            "duration": self.duration_s,
            "iterations": self.iterations,
            "threads": self.threads,
        }
        return found | ({"idleTime": self.idle_s * 1e3} if self.idle_s else {})


@dataclass
class Row:
    """What runs in which way; `contender` where it can run, else `status` and `reason`.

    Attributes:
        remark: what must be said beside its figures.
        on_gpu: whether it computes on a device with memory of its own.
        warm_up, samples_ns, spent_s, calls_a_turn, untimed, running: of the present heat.
    """

    runtime: str
    precision: Precision
    reason: str = ""
    memory: Memory = "shared"
    remark: str = ""
    on_gpu: bool = False
    status: Status = "not run"
    contender: Contender | None = None
    warm_up: WarmUp | None = None
    samples_ns: list[np.ndarray] = field(default_factory=list)
    spent_s: float = 0.0
    calls_a_turn: int = 1
    untimed: int = 1
    running: bool = False

    def fail(self, error: TiedExportError) -> None:
        """Take no more part in this heat."""
        self.status, self.reason, self.running = "failed", str(error), False

    def line_up(self, stage: str, batch: int, budget: Budget) -> None:
        """Forget the heat before, and warm up for this one."""
        self.warm_up, self.samples_ns, self.spent_s = None, [], 0.0
        self.status, self.reason, self.running = "passed", "", True
        assert self.contender is not None
        try:
            self.warm_up = self.contender.prepare(stage, batch, budget.warmup_s)
        except TiedExportError as error:
            self.fail(error)

    def take_turn(self, budget: Budget) -> None:
        """Time one turn, which may make it enough calls over enough seconds."""
        assert self.contender is not None
        try:
            samples = self.contender.take_turn(self.untimed + self.calls_a_turn)[self.untimed :]
        except TiedExportError as error:
            self.fail(error)
            return
        self.samples_ns.append(samples)
        self.spent_s += float(samples.sum()) / 1e9 + len(samples) * budget.idle_s
        calls = sum(map(len, self.samples_ns))
        self.running = self.spent_s < budget.duration_s or calls < budget.iterations

    def goes_on(self, budget: Budget) -> bool:
        """Whether it takes part in another round, as long as there is one."""
        more = self.running or self.spent_s < MOST_TIMES * budget.duration_s
        return self.status == "passed" and more

    def latency(self, stage: str, batch: int, budget: Budget, timer_s: float) -> Latency:
        """What this heat told of it; a row without figures where it could not run."""
        found = Latency(
            self.runtime,
            stage,
            self.precision,
            batch,
            budget.threads,
            self.status,
            self.reason,
            memory=self.memory,
            remark=self.remark,
        )
        if self.status != "passed":
            return found
        found = statistics.filled(found, self.samples_ns, budget.percentile, self.warm_up)
        return stability.warned(found, timer_s)


def heat(
    rows: list[Row],
    stage: str,
    batch: int,
    budget: Budget,
    task: Task,
    timer_s: float = 0.0,
    beside: Row | None = None,
) -> list[Latency]:
    """Measure all contenders at one stage and batch size, and tell of every row.

    Args:
        rows: who takes part; a contender that fails is out of this heat only.
        stage: handed to `Contender.prepare`, as is `batch`.
        batch: how many rows a call has.
        budget: how long.
        task: advances by up to `PROGRESS_A_HEAT`.
        timer_s: what timing a call adds to it.
        beside: takes a turn in every round, however many there are.
    """
    racing = [row for row in rows if row.contender is not None]
    for row in racing:
        row.line_up(stage, batch, budget)
    _share_out(racing, budget)
    if beside is not None:
        beside.line_up(stage, batch, replace(budget, warmup_s=0.0))
        _share_out([beside], replace(budget, duration_s=0.0))
    turn, heat_starts = 0, task.done
    while any(row.running for row in racing):
        going = [row for row in racing if row.goes_on(budget)]
        # Alternate the order: who follows whom must not favour anyone.
        for row in going[:: -1 if turn % 2 else 1]:
            row.take_turn(budget)
        if beside is not None:
            beside.take_turn(budget)
        turn += 1
        goal_s = max(budget.duration_s, 1e-9)
        slowest = min(row.spent_s / goal_s for row in racing)
        task.reach(heat_starts + PROGRESS_A_HEAT * min(slowest, 0.99))
    return [row.latency(stage, batch, budget, timer_s) for row in rows]


def _share_out(racing: list[Row], budget: Budget) -> None:
    """Give all turns of one length: the slowest call, but neither too many turns nor too few."""
    call_s = {
        id(row): row.warm_up.call_s + budget.idle_s for row in racing if row.warm_up is not None
    }
    longest_s = budget.duration_s / FEWEST_TURNS
    slowest_s = min(max(call_s.values(), default=0.0), longest_s)
    turn_s = max(TURN_S, slowest_s, budget.duration_s / MOST_TURNS)
    for row in racing:
        one_s = call_s.get(id(row), turn_s)
        row.calls_a_turn = math.ceil(turn_s / max(one_s, 1e-9))
        row.untimed = int(one_s <= LONGEST_LED_S)
