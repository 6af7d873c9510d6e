"""What takes its turn in a measurement: a session in this process, or in a process of its own."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import threading
from pathlib import Path
from time import get_clock_info, perf_counter_ns, sleep
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tiedexport.bundle import open_bundle
from tiedexport.errors import RuntimeFailedError, TiedExportError, UsageError
from tiedexport.gate import nothing
from tiedexport.results.bench import Timer, WarmUp
from tiedexport.session import open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection

    from tiedexport.bundle import Bundle
    from tiedexport.runtimes import Memory
    from tiedexport.spec import StageSpec

WINDOWS = 3
SPREAD_LIMIT = 0.05
LONGEST = 5
"""When a warm-up ends: see `warm_up`."""

_EMPTY_TURNS, _EMPTY_CALLS = 50, 1000

IDLE_LIMIT_S, _LOOK_S = 1.0, 0.001
"""How long to wait for idle pools, the slowest of which spins for 0.2 s, and how often to look."""


class Contender(Protocol):
    """Something whose calls are timed in turns."""

    def prepare(self, stage: str, batch: int, warmup_s: float) -> WarmUp:
        """Bind a stage at a batch size, warm up, and tell how long a call takes."""
        ...

    def take_turn(self, calls: int) -> np.ndarray:
        """Nanoseconds of each of `calls` consecutive calls, int64 [calls]."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...


class SessionContender:
    """A session whose calls go through `Session.bind`: arrays are checked and bound once, outside.

    Args:
        bundle: the bundle, or its path where it has been checked before.
        runtime, precision, threads, memory: as `open_session` takes them.
        idle_s: a pause before each call.

    Raises:
        TiedExportError: the session cannot be opened.
    """

    def __init__(
        self,
        bundle: Bundle | str,
        runtime: str,
        precision: str,
        threads: int,
        memory: Memory = "shared",
        idle_s: float = 0.0,
    ) -> None:
        self._idle_s = idle_s
        self._bundle = open_bundle(bundle, check="size") if isinstance(bundle, str) else bundle
        self._session = open_session(
            self._bundle, runtime=runtime, precision=precision, threads=threads, memory=memory
        )
        self._call: Callable[[], None] = lambda: None

    def prepare(self, stage: str, batch: int, warmup_s: float) -> WarmUp:
        """Bind golden inputs, repeated to the batch size: zeros would flatter some kernels."""
        bound = self._bundle.manifest.stage(stage)
        x, spec = golden_inputs(self._bundle, bound, batch), bound.outputs[0]
        out = np.empty((batch, *spec.element_shape), spec.dtype.dtype)
        self._call = self._session.bind(stage, x, out)
        return warm_up(self.take_turn, warmup_s, self._idle_s)

    def take_turn(self, calls: int) -> np.ndarray:
        """Nanoseconds of each call, after a pause each if one was asked for."""
        return timed(self._call, calls, self._idle_s)

    def close(self) -> None:
        """Close the session."""
        self._session.close()


def refuse_batches(sizes: Sequence[int]) -> None:
    """Refuse sizes of which one is no size of a batch.

    Raises:
        UsageError: there is none, or one is not positive.
    """
    if not sizes or min(sizes) < 1:
        raise UsageError("batch sizes must be positive", got=list(sizes))


def golden_inputs(bundle: Bundle, stage: StageSpec, batch: int) -> np.ndarray:
    """Golden inputs, repeated to the batch size, [batch, ...] in the stage's type."""
    spec = stage.inputs[0]
    shape = (batch, *spec.element_shape)
    return np.resize(bundle.golden[spec.name], shape).astype(spec.dtype.dtype)


def timed(call: Callable[[], object], calls: int, idle_s: float = 0.0) -> np.ndarray:
    """Nanoseconds of each of `calls` consecutive calls, int64 [calls].

    One clock reading ends a call and begins the next, so a call pays for one reading; with a pause
    of `idle_s` before each it pays for one too, and the pause is not timed.
    """
    if idle_s > 0:
        return np.array([_timed_rested(call, idle_s) for _ in range(calls)], np.int64)
    readings = [perf_counter_ns()]
    for _ in range(calls):
        call()
        readings.append(perf_counter_ns())
    return np.diff(np.array(readings, np.int64))


def empty_call() -> Timer:
    """What timing costs: a call of nothing, in turns, by the very loop that times all others."""
    samples = np.concatenate([timed(nothing, _EMPTY_CALLS) for _ in range(_EMPTY_TURNS)]) / 1e9
    return Timer(
        median_s=float(np.median(samples)),
        p99_s=float(np.percentile(samples, 99)),
        calls=len(samples),
        resolution_s=get_clock_info("perf_counter").resolution,
    )


def _timed_rested(call: Callable[[], object], idle_s: float) -> int:
    sleep(idle_s)
    start_ns = perf_counter_ns()
    call()
    return perf_counter_ns() - start_ns


def warm_up(take_turn: Callable[[int], np.ndarray], warmup_s: float, idle_s: float = 0.0) -> WarmUp:
    """Call until it takes equally long: for `warmup_s` at least, `LONGEST` times that at most.

    It goes by windows of a quarter of `warmup_s`, and is stable once the medians of the last
    `WINDOWS` of them lie within `SPREAD_LIMIT`. The first call, which may load or compile, does not
    count; one more comes after it, even for 0 s. A pause of `idle_s` before each call is time too.
    """
    take_turn(1)
    medians_s: list[float] = []
    spent_s, calls, window = 0.0, 0, 1
    while True:
        samples = take_turn(window)
        medians_s.append(float(np.median(samples)) / 1e9)
        spent_s += float(samples.sum()) / 1e9 + len(samples) * idle_s
        calls += window
        spread = _spread(medians_s[-WINDOWS:])
        stable = spread is not None and spread <= SPREAD_LIMIT
        if spent_s >= warmup_s * (1 if stable else LONGEST):
            return WarmUp(medians_s[-1], spent_s, calls, spread, stable)
        wanted = math.ceil(warmup_s / (WINDOWS + 1) / max(medians_s[-1] + idle_s, 1e-9))
        # By and by: one call may tell little of the next.
        window = min(max(wanted, 1), 10 * window)


def _spread(medians_s: list[float]) -> float | None:
    """Largest over smallest, less 1; None while there are fewer than `WINDOWS`."""
    if len(medians_s) < WINDOWS:
        return None
    return max(medians_s) / max(min(medians_s), 1e-9) - 1


class RemoteContender:
    """A contender in a process of its own, so that its idle threads cannot slow another's turn.

    Args:
        factory: makes the contender in the child process; it and its arguments are pickled.

    Raises:
        TiedExportError: the factory's error, or the child process died.
    """

    def __init__(self, factory: Callable[..., Contender], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, childs_end = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(childs_end, factory, arguments), daemon=True
        )
        self._process.start()
        childs_end.close()
        self._receive()

    def prepare(self, stage: str, batch: int, warmup_s: float) -> WarmUp:
        """As the contender in the child does."""
        found: WarmUp = self._ask("prepare", stage, batch, warmup_s)
        return found

    def take_turn(self, calls: int) -> np.ndarray:
        """As the contender in the child does; the pipe is outside the timed calls."""
        return np.asarray(self._ask("take_turn", calls))

    def close(self) -> None:
        """End the child process."""
        with contextlib.suppress(TiedExportError):
            self._ask("close")
        self._pipe.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            self._pipe.send((method, arguments))
        except OSError as error:
            raise self._died() from error
        return self._receive()

    def _receive(self) -> Any:
        try:
            value = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        if isinstance(value, TiedExportError):
            raise value
        return value

    def _died(self) -> RuntimeFailedError:
        self._process.join(timeout=10)
        return RuntimeFailedError(
            "the process of a contender died", got=f"exit code {self._process.exitcode}"
        )


def _serve(pipe: Connection, factory: Callable[..., Contender], arguments: tuple[Any, ...]) -> None:
    """The child's side: answer each (method, arguments) with a value or one of our errors."""
    try:
        contender = factory(*arguments)
    except TiedExportError as error:
        pipe.send(RuntimeFailedError(str(error)))
        return
    pipe.send(None)
    method = ""
    while method != "close":
        try:
            method, values = pipe.recv()
        except EOFError:
            return
        try:
            answer = getattr(contender, method)(*values)
        except TiedExportError as error:
            answer = RuntimeFailedError(str(error))
        wait_until_alone()
        pipe.send(answer)


def wait_until_alone(limit_s: float = IDLE_LIMIT_S) -> None:
    """Return when no other thread of this process runs, or after so many seconds.

    Idle pools spin for tens of milliseconds after a call, on cores that are the next contender's.
    """
    own, until_ns = threading.get_native_id(), perf_counter_ns() + limit_s * 1e9
    while perf_counter_ns() < until_ns and any(map(_runs, _threads_but(own))):
        sleep(_LOOK_S)


def _threads_but(own: int) -> list[Path]:
    with contextlib.suppress(OSError):  # elsewhere than on Linux
        return [task for task in Path("/proc/self/task").iterdir() if task.name != str(own)]
    return []


def _runs(task: Path) -> bool:
    """Whether a thread computes or waits for a core; see proc_pid_stat(5)."""
    try:
        state = (task / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # it has ended
        return False
    return state == "R"
